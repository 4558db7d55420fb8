//! The device, memory, threads, and errors.
#![cfg(feature = "mlx")]
#![allow(clippy::unwrap_used)]

mod common;

use bitnet_core::bytes::ByteView;
use bitnet_core::{DType, MemorySize};
use bitnet_mlx::{MAX_COLUMNS, MlxExecutor, MlxOptions, MlxWhere, device_info};
use bitnet_model::conformance::{Random, prefill, random_weights, samples};
use bitnet_model::{
    Batch, DenseTensor, ExecError, Executor, LogitRows, ModelSpec, Sequence, TopLogits, Traffic,
};

fn forward(
    executor: &mut MlxExecutor,
    tokens: &[u32],
    position: usize,
    blocks: &[u32],
    logits: &mut [f32],
) -> Result<(), ExecError> {
    let s = Sequence { tokens, position, blocks, logits: LogitRows::Last };
    executor.forward(&Batch { sequences: &[s] }, logits)
}

#[test]
fn the_device_is_described() {
    let device = device_info().unwrap();
    assert!(!device.name.is_empty() && device.version.starts_with("0."), "{device:?}");
    let sample = &samples()[0];
    let executor = common::of_sample(sample, &common::options()).unwrap();
    let info = executor.info();
    assert!(info.description.starts_with(&format!("mlx {} (", device.version)), "{}", info.description);
    assert!(info.description.contains(&executor.device().name), "{}", info.description);
    let Traffic { layers, output, .. } = info.traffic;
    assert_eq!(output, MemorySize::bytes(4 * 96 * 128));
    assert!(layers.as_bytes() >= sample.spec.ternary_parameters() / 4);
    assert!(info.weight_bytes.as_bytes() > layers.as_bytes() + output.as_bytes());
    assert_eq!(info.block_bytes.as_bytes(), 2 * 2 * 32 * 32 * 2);
    let gpu = MlxOptions { device: MlxWhere::Gpu, ..MlxOptions::default() };
    match common::of_sample(sample, &gpu) {
        Ok(executor) => assert!(device.is_gpu && executor.device().is_gpu),
        Err(ExecError::Device { backend: "mlx", what }) => {
            assert!(!device.is_gpu && what == "MLX has no GPU on this machine", "{what}");
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_is_a_typed_error() {
    let sample = &samples()[0];
    let of = |memory| MlxOptions { memory: Some(MemorySize::bytes(memory)), ..common::options() };
    match common::of_sample(sample, &of(1 << 14)) {
        Err(ExecError::OutOfDeviceMemory { backend: "mlx", needed, free: Some(free) }) => {
            assert!(free.as_bytes() == 1 << 14 && needed > free);
        }
        other => panic!("{other:?}"),
    }
    let wide = MAX_COLUMNS + 64;
    let spec = ModelSpec { intermediate_size: wide, hidden_size: 64, num_layers: 1, ..sample.spec.clone() };
    let weights = random_weights(&spec, DType::F32, &mut Random::new(1));
    match common::executor(&spec, &weights, &common::options()) {
        Err(ExecError::Unsupported { backend: "mlx", what }) => {
            assert!(what.contains("65600 columns"), "{what}");
        }
        other => panic!("{other:?}"),
    }

    // Blocks beyond the budget are refused; those of before go on.
    let mut executor = common::of_sample(sample, &of(4 << 20)).unwrap();
    executor.reserve_blocks(2).unwrap();
    match executor.reserve_blocks(1 << 16) {
        Err(ExecError::OutOfDeviceMemory { free: Some(free), .. }) => assert!(free.as_bytes() < 4 << 20),
        other => panic!("{other:?}"),
    }
    let tokens = [1, 2, 3];
    let before = prefill(&mut executor, &tokens, &[3]).unwrap();
    let mut logits = vec![0.0; sample.spec.vocab_size];
    let mut run = |tokens: &[u32], position, blocks: &[u32], size: usize| {
        forward(&mut executor, tokens, position, blocks, &mut logits[..size])
    };
    assert!(matches!(run(&[], 0, &[0], 96), Err(ExecError::EmptySequence { .. })));
    assert!(matches!(run(&[1], 0, &[7], 96), Err(ExecError::NoSuchBlock { .. })));
    assert!(matches!(run(&[96], 0, &[0], 96), Err(ExecError::TokenOutOfRange { .. })));
    assert!(matches!(run(&[1], 64, &[0], 96), Err(ExecError::BlocksMissing { .. })));
    assert!(matches!(run(&[1], 0, &[0], 95), Err(ExecError::OutputSize { .. })));
    assert_eq!(prefill(&mut executor, &tokens, &[3]).unwrap(), before);
    assert!(!executor.take_loss());
}

#[test]
fn results_that_are_no_numbers_are_told() {
    let sample = &samples()[0];
    let (spec, mut weights) = (&sample.spec, sample.weights.clone());
    let mut values = vec![1.0f32; spec.vocab_size * spec.hidden_size];
    values[40 * spec.hidden_size] = f32::INFINITY;
    let data = ByteView::from_vec(DType::F32.encode(&values));
    weights.output = DenseTensor::new(spec.vocab_size, spec.hidden_size, DType::F32, data);
    let mut executor = common::executor(spec, &weights, &common::options()).unwrap();
    executor.reserve_blocks(1).unwrap();
    let s = Sequence { tokens: &[5], position: 0, blocks: &[0], logits: LogitRows::Last };
    let batch = Batch { sequences: &[s] };
    let mut top = [TopLogits::default()];
    assert!(matches!(executor.forward_top(&batch, 3, &mut top), Err(ExecError::NotFinite)));
    let result = executor.forward(&batch, &mut vec![0.0; spec.vocab_size]);
    assert!(matches!(result, Err(ExecError::NotFinite)), "{result:?}");
    executor.forward_hidden(&batch, &mut vec![0.0; spec.hidden_size]).unwrap();
}

/// Executors belong to no thread, and several compute at the same time.
#[test]
fn executors_move_between_threads() {
    let run = |seed: usize| {
        let sample = samples().swap_remove(seed % 2);
        let mut executor = common::of_sample(&sample, &common::options()).unwrap();
        let first = prefill(&mut executor, &[1, 2, 3, 4, 5], &[2]).unwrap();
        std::thread::spawn(move || {
            let again = prefill(&mut executor, &[1, 2, 3, 4, 5], &[2]).unwrap();
            assert_eq!(first, again);
            again
        })
        .join()
        .unwrap()
    };
    let want = [run(0), run(1)];
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4).map(|i| scope.spawn(move || (i, run(i)))).collect();
        for handle in handles {
            let (i, got) = handle.join().unwrap();
            assert_eq!(got, want[i % 2]);
        }
    });
}

/// Steady decoding changes the cache where it lies, and takes no more memory.
#[test]
fn steady_decoding_takes_no_more_memory() {
    let sample = &samples()[4];
    let mut executor = common::of_sample(sample, &common::options()).unwrap();
    // The cache is far larger than all else: a copy of it would show.
    executor.reserve_blocks(2000).unwrap();
    let cache = 2000 * executor.info().block_bytes.as_bytes();
    let mut decode = |positions: std::ops::Range<usize>| {
        let mut logits = vec![0.0; sample.spec.vocab_size];
        for position in positions {
            forward(&mut executor, &[5], position, &[7, 1999, 3], &mut logits).unwrap();
        }
        executor.device_memory().unwrap()
    };
    let start = decode(0..3);
    let end = decode(3..60);
    assert!(start.in_use.as_bytes() > cache && end.budget >= end.in_use, "{start:?}");
    assert!(end.peak.as_bytes() < start.in_use.as_bytes() + cache / 4, "{start:?}, {end:?}, cache {cache}");
}
