//! What cannot be is a typed error, and leaves the executor usable.

use std::time::Instant;

use bitnet_core::MemorySize;
use bitnet_cuda::{CudaError, CudaExecutor, CudaOptions, devices};
use bitnet_model::conformance::samples;
use bitnet_model::{Batch, ExecError, Executor, KvType, LogitRows, Sequence};

use crate::emulator::Emulator;
use crate::{executor, on_device};

#[test]
fn a_machine_without_a_driver_is_told_so_at_once() {
    let begin = Instant::now();
    let found = devices();
    if on_device() {
        let found = found.unwrap();
        println!("{found:?}");
        assert!(!found.is_empty() && found[0].total_memory > MemorySize::GB(1));
        return;
    }
    // A machine with a driver may run these tests too.
    let Err(error) = found else { return };
    assert!(begin.elapsed().as_millis() < 200, "{:?}", begin.elapsed());
    assert!(matches!(&error, CudaError::Unavailable { reason } if reason.contains("driver")), "{error}");
    let sample = &samples()[0];
    let options = CudaOptions::default();
    let built = CudaExecutor::new(sample.spec.clone(), &sample.weights, &options, &mut |_, _| {});
    assert!(matches!(built, Err(ExecError::Device { backend: "cuda", .. })));
}

#[test]
fn impossible_batches_are_errors_and_leave_the_executor_usable() {
    let sample = &samples()[0];
    let mut executor = executor(&sample.spec, &sample.weights, KvType::F16, "sm_80").unwrap();
    executor.reserve_blocks(1).unwrap();
    let vocab = sample.spec.vocab_size;
    let mut logits = vec![0.0; vocab];
    let mut run = |tokens: &[u32], position, blocks: &[u32], logits: &mut [f32]| {
        let s = Sequence { tokens, position, blocks, logits: LogitRows::Last };
        executor.forward(&Batch { sequences: &[s] }, logits)
    };
    assert!(matches!(run(&[], 0, &[0], &mut logits), Err(ExecError::EmptySequence { .. })));
    assert!(matches!(run(&[vocab as u32], 0, &[0], &mut logits), Err(ExecError::TokenOutOfRange { .. })));
    assert!(matches!(run(&[1], 32, &[0], &mut logits), Err(ExecError::BlocksMissing { .. })));
    assert!(matches!(run(&[1], 0, &[1], &mut logits), Err(ExecError::NoSuchBlock { .. })));
    assert!(matches!(run(&[1], 0, &[0], &mut logits[1..]), Err(ExecError::OutputSize { .. })));
    run(&[1], 0, &[0], &mut logits).unwrap();
    assert!(logits.iter().any(|&l| l != 0.0));
}

#[test]
fn what_is_not_a_number_is_noticed() {
    let sample = &samples()[0];
    let mut executor = executor(&sample.spec, &sample.weights, KvType::F16, "sm_80").unwrap();
    executor.reserve_blocks(1).unwrap();
    let rows = vec![f32::NAN; sample.spec.hidden_size];
    let s = Sequence { tokens: &[1], position: 0, blocks: &[0], logits: LogitRows::Last };
    let batch = Batch { sequences: &[s] };
    for give in [bitnet_model::Give::Logits, bitnet_model::Give::Hidden] {
        let width = match give {
            bitnet_model::Give::Logits => sample.spec.vocab_size,
            bitnet_model::Give::Hidden => sample.spec.hidden_size,
        };
        let result = executor.forward_rows(&batch, &rows, give, &mut vec![0.0; width]);
        assert!(matches!(result, Err(ExecError::NotFinite)), "{result:?}");
    }
    let mut logits = vec![0.0; sample.spec.vocab_size];
    executor.forward(&batch, &mut logits).unwrap();
}

#[test]
fn a_full_device_and_a_spent_budget_say_what_was_needed() {
    let sample = &samples()[0];
    let build = |gpu, memory| {
        let options = CudaOptions { memory, ..CudaOptions::default() };
        CudaExecutor::on(Box::new(gpu), sample.spec.clone(), &sample.weights, &options, &mut |_, _| {})
    };
    let refused =
        |error| matches!(error, ExecError::OutOfDeviceMemory { backend: "cuda", free: Some(_), .. });
    assert!(refused(build(Emulator::small(1 << 20), None).unwrap_err()));
    assert!(refused(build(Emulator::new(true), Some(MemorySize::MB(1))).unwrap_err()));
    let mut executor = build(Emulator::new(true), Some(MemorySize::MB(64))).unwrap();
    assert!(refused(executor.reserve_blocks(1 << 20).unwrap_err()));
    executor.reserve_blocks(1).unwrap();
    let mut logits = vec![0.0; sample.spec.vocab_size];
    let s = Sequence { tokens: &[1], position: 0, blocks: &[0], logits: LogitRows::Last };
    executor.forward(&Batch { sequences: &[s] }, &mut logits).unwrap();
}

#[test]
fn shapes_that_kernels_lack_are_refused_by_name() {
    let mut sample = samples().swap_remove(0);
    sample.spec.head_dim = 512;
    let error = executor(&sample.spec, &sample.weights, KvType::F16, "sm_80").unwrap_err();
    assert!(matches!(error, ExecError::Unsupported { backend: "cuda", .. }), "{error}");
}
