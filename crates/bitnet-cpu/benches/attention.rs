//! Attention of one key/value head with four query heads of 128, on one thread: decoding (one row) at two depths, and a
//! tile of prefill (eight rows). Elements are multiply-adds, bytes those of keys and values.

mod common;

use std::hint::black_box;

use bitnet_cpu::probe::Attention;
use bitnet_model::KvType;
use criterion::{BenchmarkId, Criterion, Throughput};

use common::{sets, testing};

fn main() {
    common::run(|criterion| {
        let depths: &[usize] = if testing() { &[300] } else { &[512, 4096] };
        for &depth in depths {
            attention(criterion, "decode", depth, 1);
        }
        attention(criterion, "prefill", depths[0], 8);
    });
}

fn attention(criterion: &mut Criterion, name: &str, depth: usize, rows: usize) {
    let mut group = criterion.benchmark_group(format!("attention-{name}/depth {depth}"));
    for set in sets() {
        for kv_type in KvType::ALL {
            let mut probe = Attention::new(set, kv_type, 128, 4, depth, rows).expect("an available set");
            group.throughput(Throughput::ElementsAndBytes {
                elements: probe.multiply_adds() as u64,
                bytes: probe.kv_bytes() as u64,
            });
            group.bench_function(BenchmarkId::new(set, kv_type), |b| {
                b.iter(|| {
                    black_box(probe.run());
                });
            });
        }
    }
    group.finish();
}
