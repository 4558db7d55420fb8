//! The arithmetic contract: every kernel set, thread count, chunking and batch gives the oracle's bits.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bitnet_cpu::{CpuExecutor, CpuOptions, Form, kernel_sets};
use bitnet_model::conformance::{self, Tolerance};
use bitnet_model::{Batch, ExecError, Executor, KvType, LogitRows, Sequence};

fn conforms(kernels: &str, threads: usize, form: Form, kv_type: KvType) {
    conformance::run(Tolerance::Bits, kv_type, &mut |sample| {
        let options = CpuOptions {
            threads: Some(threads),
            kernels: Some(kernels.to_owned()),
            form: Some(form),
            kv_type,
            ..CpuOptions::default()
        };
        let executor = CpuExecutor::new(sample.spec.clone(), &sample.weights, &options, &mut |_, _| {})?;
        assert_eq!((executor.kernel_set_name(), executor.form()), (kernels, form));
        assert_eq!(executor.info().kv_type, kv_type);
        assert!(executor.warnings().is_empty(), "{:?}", executor.warnings());
        Ok(Box::new(executor))
    })
    .unwrap_or_else(|e| panic!("{kernels}, {threads} threads, {form:?}, {kv_type}: {e}"));
}

fn every_kernel_set(kv_type: KvType) {
    for set in kernel_sets() {
        if set.available {
            let form = if kv_type == KvType::F16 { Form::FiveTrits } else { Form::TwoBit };
            conforms(set.name, 1, form, kv_type);
        } else {
            println!("skipped {}: this processor lacks {}", set.name, set.requires);
        }
    }
}

#[test]
fn every_kernel_set_equals_the_oracle_with_f32_keys_and_values() {
    every_kernel_set(KvType::F32);
}

#[test]
fn every_kernel_set_equals_the_oracle_with_f16_keys_and_values() {
    every_kernel_set(KvType::F16);
}

#[test]
fn every_kernel_set_equals_the_oracle_with_int8_keys_and_values() {
    every_kernel_set(KvType::Int8);
}

#[test]
fn any_thread_count_equals_the_oracle() {
    let fastest = kernel_sets().into_iter().find(|s| s.available).map(|s| s.name).unwrap();
    for (threads, form, kv_type) in [
        (2, Form::TwoBit, KvType::F16),
        (3, Form::FiveTrits, KvType::Int8),
        (7, Form::FiveTrits, KvType::F32),
    ] {
        conforms(fastest, threads, form, kv_type);
    }
}

#[test]
fn kernel_sets_that_are_not_there_are_refused_by_name() {
    let sample = &conformance::samples()[0];
    let build = |kernels: &str, threads| {
        let options =
            CpuOptions { threads: Some(threads), kernels: Some(kernels.to_owned()), ..CpuOptions::default() };
        CpuExecutor::new(sample.spec.clone(), &sample.weights, &options, &mut |_, _| {}).map(|_| ())
    };
    let error = build("mmx", 1).unwrap_err().to_string();
    assert!(error.contains("mmx") && error.contains("scalar"), "{error}");
    assert!(build("scalar", 0).is_err());
    assert!(build("scalar", 1_000_000).is_err());
}

#[test]
fn impossible_batches_are_errors_and_leave_the_executor_usable() {
    let sample = &conformance::samples()[0];
    let options = CpuOptions { threads: Some(2), ..CpuOptions::default() };
    let mut executor =
        CpuExecutor::new(sample.spec.clone(), &sample.weights, &options, &mut |_, _| {}).unwrap();
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
