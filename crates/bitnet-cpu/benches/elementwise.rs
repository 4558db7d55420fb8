//! What happens to a row between products, on one thread: norm and quantisation, activation, encoding of keys and
//! values. Elements are those of the row.

mod common;

use std::hint::black_box;

use bitnet_cpu::probe::{Activate, EncodeKv, NormQuantize};
use bitnet_model::{Activation, KvType};
use criterion::{BenchmarkId, Criterion, Throughput};

use common::sets;

fn main() {
    common::run(|criterion| {
        for width in [768, 2560, 6912] {
            norm_quantize(criterion, width);
        }
        activate(criterion, 6912);
        encode_kv(criterion, 128);
    });
}

fn norm_quantize(criterion: &mut Criterion, width: usize) {
    for (name, norm) in [("quantize", false), ("norm-quantize", true)] {
        let mut group = criterion.benchmark_group(format!("{name}/{width}"));
        group.throughput(Throughput::Elements(width as u64));
        for set in sets() {
            let mut probe = NormQuantize::new(set, width, norm).expect("an available set");
            group.bench_function(set, |b| {
                b.iter(|| {
                    black_box(probe.run());
                });
            });
        }
        group.finish();
    }
}

fn activate(criterion: &mut Criterion, width: usize) {
    let mut group = criterion.benchmark_group(format!("activate/{width}"));
    group.throughput(Throughput::Elements(width as u64));
    for set in sets() {
        for (name, activation) in
            [("relu2", Activation::Relu2), ("silu", Activation::Silu), ("gelu", Activation::Gelu)]
        {
            let mut probe = Activate::new(set, activation, width).expect("an available set");
            group.bench_function(BenchmarkId::new(set, name), |b| {
                b.iter(|| {
                    black_box(probe.run());
                });
            });
        }
    }
    group.finish();
}

fn encode_kv(criterion: &mut Criterion, head_dim: usize) {
    let mut group = criterion.benchmark_group(format!("encode-kv/{head_dim}"));
    group.throughput(Throughput::Elements(head_dim as u64));
    for set in sets() {
        for kv_type in KvType::ALL {
            let mut probe = EncodeKv::new(set, kv_type, head_dim).expect("an available set");
            group.bench_function(BenchmarkId::new(set, kv_type), |b| {
                b.iter(|| {
                    black_box(probe.run());
                });
            });
        }
    }
    group.finish();
}
