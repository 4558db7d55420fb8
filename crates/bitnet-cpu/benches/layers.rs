//! Four whole layers of the 2B-4T shape with a small vocabulary, through [`CpuExecutor`]: decoding, which memory limits,
//! and prefill, which the multiplier limits. Elements are ternary multiply-adds, bytes those of the ternary weights.

mod common;

use std::hint::black_box;

use bitnet_core::DType;
use bitnet_cpu::{CpuExecutor, CpuOptions, Form};
use bitnet_model::conformance::{Random, random_weights};
use bitnet_model::{Batch, Executor, LogitRows, ModelSpec, Sequence, Weights};
use criterion::{BenchmarkId, Criterion, Throughput};

use common::{FORMS, fast_sets, testing, thread_counts};

/// Tokens of a prefill, which is also the depth that decoding starts at.
const PROMPT: usize = 192;

fn main() {
    common::run(|criterion| {
        let full = common::spec(4, 512);
        let spec = if testing() {
            ModelSpec {
                hidden_size: 128,
                intermediate_size: 192,
                num_heads: 4,
                num_kv_heads: 1,
                head_dim: 32,
                ..full
            }
        } else {
            full
        };
        let weights = random_weights(&spec, DType::BF16, &mut Random::new(1));
        for set in fast_sets() {
            for form in FORMS {
                for threads in thread_counts() {
                    passes(criterion, &spec, &weights, set, form, threads);
                }
            }
        }
    });
}

fn passes(
    criterion: &mut Criterion,
    spec: &ModelSpec,
    weights: &Weights,
    set: &str,
    form: Form,
    threads: usize,
) {
    let options = CpuOptions {
        threads: Some(threads),
        kernels: Some(set.to_owned()),
        form: Some(form),
        ..CpuOptions::default()
    };
    let mut executor =
        CpuExecutor::new(spec.clone(), weights, &options, &mut |_, _| {}).expect("an available set");
    let blocks: Vec<u32> = (0..(PROMPT as u32 + 1).div_ceil(executor.info().block_size as u32)).collect();
    executor.reserve_blocks(blocks.len()).expect("memory");
    let prompt: Vec<u32> = (0..PROMPT as u32).collect();
    let mut logits = vec![0.0; spec.vocab_size];
    let mut group = criterion.benchmark_group("layers");
    let macs = spec.ternary_parameters();
    for (name, tokens, position) in [("prefill", &prompt[..], 0), ("decode", &prompt[..1], PROMPT)] {
        let elements = macs * tokens.len() as u64;
        group.throughput(match tokens.len() {
            1 => Throughput::ElementsAndBytes { elements, bytes: executor.info().traffic.layers.as_bytes() },
            _ => Throughput::Elements(elements),
        });
        let name = format!("{name}/4 layers of 2B-4T/{set}/{}", form.name());
        let plural = if threads == 1 { "thread" } else { "threads" };
        group.bench_function(BenchmarkId::new(name, format!("{threads} {plural}")), |b| {
            b.iter(|| {
                let s = Sequence { tokens, position, blocks: &blocks, logits: LogitRows::Last };
                executor.forward(&Batch { sequences: &[s] }, &mut logits).expect("a valid batch");
                black_box(&logits);
            });
        });
    }
    group.finish();
}
