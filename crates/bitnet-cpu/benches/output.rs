//! The output layer: whole passes through a model that is hardly more than that, on one thread, and the product that
//! rescores candidates.
//!
//! `scan` finds the rows that can be among the `k` best and rescores them, `int8` reads the same int8 rows and rescores
//! none, `full` reads the full-precision rows; the difference of the first two is rescoring. Bytes are those of the table
//! that is read.

mod common;

use std::hint::black_box;

use bitnet_core::DType;
use bitnet_cpu::probe::DenseRows;
use bitnet_cpu::{CpuExecutor, CpuOptions, OutputStorage};
use bitnet_model::conformance::{Random, random_weights};
use bitnet_model::{Batch, Executor, LogitRows, ModelSpec, Sequence, TopLogits};
use criterion::{BenchmarkId, Criterion, Throughput};

use common::{fast_sets, sets, testing};

fn main() {
    common::run(|criterion| {
        passes(criterion);
        for (dtype, name) in [(DType::BF16, "bf16"), (DType::F16, "f16"), (DType::F32, "f32")] {
            dense(criterion, dtype, name);
        }
    });
}

fn passes(criterion: &mut Criterion) {
    let (vocab_size, hidden_size) = if testing() { (512, 128) } else { (32_768, 2560) };
    let spec = ModelSpec {
        hidden_size,
        intermediate_size: 64,
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 64,
        ..common::spec(1, vocab_size)
    };
    let weights = random_weights(&spec, DType::BF16, &mut Random::new(1));
    for rows in [1, 8] {
        let mut group = criterion.benchmark_group(format!("output/{vocab_size}x{hidden_size} batch {rows}"));
        for set in fast_sets() {
            let storages = [
                (OutputStorage::Scan, "scan", 1),
                (OutputStorage::Scan, "scan", 40),
                (OutputStorage::Int8, "int8", 1),
                (OutputStorage::Full, "full", 1),
            ];
            for (output, name, k) in storages {
                let options = CpuOptions {
                    threads: Some(1),
                    kernels: Some(set.to_owned()),
                    output,
                    ..CpuOptions::default()
                };
                let mut executor = CpuExecutor::new(spec.clone(), &weights, &options, &mut |_, _| {})
                    .expect("an available set");
                executor.reserve_blocks(1).expect("memory");
                group.throughput(Throughput::BytesDecimal(executor.info().traffic.output_scan.as_bytes()));
                let tokens: Vec<u32> = (7..7 + rows).collect();
                let s = Sequence { tokens: &tokens, position: 0, blocks: &[0], logits: LogitRows::All };
                let batch = Batch { sequences: &[s] };
                let mut top = vec![TopLogits::default(); tokens.len()];
                group.bench_function(BenchmarkId::new(set, format!("{name}, k = {k}")), |b| {
                    b.iter(|| {
                        executor.forward_top(&batch, k, &mut top).expect("a valid batch");
                        black_box(&top);
                    });
                });
            }
        }
        group.finish();
    }
}

fn dense(criterion: &mut Criterion, dtype: DType, name: &str) {
    const ROWS: usize = 64;
    const COLS: usize = 2560;
    let mut group = criterion.benchmark_group(format!("dense/{ROWS}x{COLS}"));
    group.throughput(Throughput::ElementsAndBytes {
        elements: (ROWS * COLS) as u64,
        bytes: (ROWS * COLS * dtype.size()) as u64,
    });
    for set in sets() {
        let mut probe = DenseRows::new(set, dtype, ROWS, COLS).expect("an available set");
        group.bench_function(BenchmarkId::new(set, name), |b| {
            b.iter(|| {
                black_box(probe.run());
            });
        });
    }
    group.finish();
}
