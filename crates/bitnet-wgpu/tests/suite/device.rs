//! Adapters, memory, and errors of the device.

use bitnet_core::MemorySize;
use bitnet_model::conformance::{prefill, samples};
use bitnet_model::{Batch, ExecError, Executor, LogitRows, ModelSpec, Sequence, TopLogits};
use bitnet_wgpu::{WgpuBackend, WgpuOptions, adapters};

use crate::common;

#[test]
fn adapters_are_described_and_found_by_name() {
    if !common::is_there() {
        return;
    }
    let all = adapters();
    for (i, adapter) in all.iter().enumerate() {
        assert_eq!(adapter.index, i);
        assert!(!adapter.name.is_empty() && adapter.max_binding >= MemorySize::bytes(1 << 27), "{adapter:?}");
    }
    let sample = &samples()[0];
    let named = WgpuOptions { adapter: Some(all[0].name.to_uppercase()), ..WgpuOptions::default() };
    let executor = common::of_sample(sample, &named).unwrap();
    assert_eq!(executor.adapter().name, all[0].name);
    let info = executor.info();
    assert!(info.description.contains(&all[0].name), "{}", info.description);
    assert!(info.weight_bytes > info.traffic.layers && info.traffic.output.as_bytes() > 0);
    let missing = WgpuOptions { adapter: Some("no such thing".to_owned()), ..common::options() };
    match common::of_sample(sample, &missing) {
        Err(ExecError::Device { backend: "wgpu", what }) => assert!(what.contains(&all[0].name), "{what}"),
        other => panic!("{other:?}"),
    }
    if cfg!(target_os = "linux") {
        let metal = WgpuOptions { backend: Some(WgpuBackend::Metal), ..common::options() };
        assert!(matches!(common::of_sample(sample, &metal), Err(ExecError::Device { .. })));
    }
}

#[test]
fn what_cannot_be_is_a_typed_error() {
    if !common::is_there() {
        return;
    }
    let sample = &samples()[0];
    let small = WgpuOptions { memory_budget: Some(MemorySize::bytes(1 << 14)), ..common::options() };
    match common::of_sample(sample, &small) {
        Err(ExecError::OutOfDeviceMemory { free: Some(free), .. }) => assert!(free.as_bytes() < 1 << 14),
        other => panic!("{other:?}"),
    }
    let narrow = WgpuOptions { max_binding: Some(16), ..common::options() };
    assert!(matches!(common::of_sample(sample, &narrow), Err(ExecError::Unsupported { .. })));
    let spec = ModelSpec { head_dim: 1024, ..sample.spec.clone() };
    let wide = common::executor(&spec, &sample.weights, &common::options());
    assert!(matches!(wide, Err(ExecError::Unsupported { .. })));

    // Blocks beyond the budget are refused; those of before go on.
    let budget = Some(MemorySize::bytes(8 << 20));
    let mut executor =
        common::of_sample(sample, &WgpuOptions { memory_budget: budget, ..common::options() }).unwrap();
    executor.reserve_blocks(2).unwrap();
    assert!(matches!(executor.reserve_blocks(1 << 20), Err(ExecError::OutOfDeviceMemory { .. })));
    let tokens = [1, 2, 3];
    let before = prefill(&mut executor, &tokens, &[3]).unwrap();
    let mut run = |tokens: &[u32], position, blocks: &[u32], logits: &mut [f32]| {
        let s = Sequence { tokens, position, blocks, logits: LogitRows::Last };
        executor.forward(&Batch { sequences: &[s] }, logits)
    };
    let mut logits = vec![0.0; sample.spec.vocab_size];
    assert!(matches!(run(&[], 0, &[0], &mut logits), Err(ExecError::EmptySequence { .. })));
    assert!(matches!(run(&[1], 0, &[7], &mut logits), Err(ExecError::NoSuchBlock { .. })));
    assert!(matches!(run(&[1], 64, &[0], &mut logits), Err(ExecError::BlocksMissing { .. })));
    assert!(matches!(run(&[1], 0, &[0], &mut logits[1..]), Err(ExecError::OutputSize { .. })));
    assert_eq!(prefill(&mut executor, &tokens, &[1]).unwrap(), before);

    executor.lose_device();
    let s = Sequence { tokens: &tokens, position: 0, blocks: &[0], logits: LogitRows::Last };
    let lost = executor.forward(&Batch { sequences: &[s] }, &mut logits);
    assert!(matches!(lost, Err(ExecError::Device { .. })), "{lost:?}");
}

/// Steady decoding makes no buffers: what the pool is asked for it has.
#[test]
fn steady_decoding_takes_buffers_from_the_pool() {
    if !common::is_there() {
        return;
    }
    let sample = &samples()[0];
    let mut executor = common::of_sample(sample, &common::options()).unwrap();
    executor.reserve_blocks(4).unwrap();
    let blocks = [0, 1, 2, 3];
    let mut top = [TopLogits::default()];
    let mut decode = |positions: std::ops::Range<usize>| {
        for position in positions {
            let s = Sequence { tokens: &[5], position, blocks: &blocks, logits: LogitRows::Last };
            executor.forward_top(&Batch { sequences: &[s] }, 40, &mut top).unwrap();
            assert_eq!(top[0].ids.len(), 40);
        }
        executor.memory()
    };
    let start = decode(0..3);
    let end = decode(3..100);
    assert_eq!((start.device, start.readback.reserved), (end.device, end.readback.reserved));
    let (asked, hits) =
        (end.readback.allocations - start.readback.allocations, end.readback.hits - start.readback.hits);
    assert!(asked > 0 && asked == hits, "{end:?}");
    assert!(end.readback.hit_rate() > 0.8 && end.device.fragmentation() < 0.2, "{end:?}");
}

#[test]
fn bandwidth_is_measured_and_noted() {
    if !common::is_there() {
        return;
    }
    let mut executor = common::of_sample(&samples()[0], &common::options()).unwrap();
    let before = executor.memory().device.reserved;
    let rate = executor.measure_bandwidth().unwrap();
    let device = executor.memory().device;
    assert!(rate > 1e8 && device.bandwidth == Some(rate), "{rate}");
    assert_eq!(device.reserved, before);
}
