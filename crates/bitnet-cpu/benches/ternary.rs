//! Ternary products on one thread: elements are multiply-adds, bytes those of the packed weights.

mod common;

use std::hint::black_box;

use bitnet_cpu::BitLinear;
use bitnet_cpu::probe::TernaryProduct;
use criterion::{BenchmarkId, Criterion, Throughput};

use common::{FORMS, fast_sets, random_matrix, sets, testing};

fn main() {
    common::run(|criterion| {
        let shapes: &[(usize, usize)] = if testing() { &[(64, 96)] } else { &[(768, 768), (6912, 2560)] };
        for &(rows, cols) in shapes {
            layer(criterion, rows, cols);
            for count in [1, 6, 8, 48, 192] {
                product(criterion, rows, cols, count);
            }
        }
    });
}

/// One row through a whole layer, quantisation included.
fn layer(criterion: &mut Criterion, rows: usize, cols: usize) {
    let matrix = random_matrix(rows, cols);
    let x: Vec<f32> = (0..cols).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut group = criterion.benchmark_group(format!("bitlinear/{rows}x{cols}"));
    for set in sets() {
        for form in FORMS {
            let mut layer = BitLinear::with_form(&matrix, Some(set), form).expect("an available set");
            group.throughput(Throughput::ElementsAndBytes {
                elements: (rows * cols) as u64,
                bytes: layer.weight_bytes() as u64,
            });
            group.bench_function(BenchmarkId::new(set, form.name()), |b| {
                b.iter(|| {
                    black_box(layer.forward(black_box(&x)));
                });
            });
        }
    }
    group.finish();
}

/// `count` quantised rows at a time.
fn product(criterion: &mut Criterion, rows: usize, cols: usize, count: usize) {
    let matrix = random_matrix(rows, cols);
    let plural = if count == 1 { "row" } else { "rows" };
    let mut group = criterion.benchmark_group(format!("product/{rows}x{cols} {count} {plural}"));
    let macs = rows * cols * count;
    for set in if macs > 10_000_000 { fast_sets() } else { sets() } {
        for form in FORMS {
            let mut probe = TernaryProduct::new(&matrix, set, form, count).expect("an available set");
            let (elements, bytes) = (macs as u64, probe.weight_bytes() as u64);
            group.throughput(match count {
                1 => Throughput::ElementsAndBytes { elements, bytes },
                _ => Throughput::Elements(elements),
            });
            group.bench_function(BenchmarkId::new(set, form.name()), |b| {
                b.iter(|| {
                    black_box(probe.run());
                });
            });
        }
    }
    group.finish();
}
