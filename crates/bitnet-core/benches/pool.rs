//! The thread pool: one barrier, and one job that does nothing: `cargo bench -p bitnet-core`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bitnet_core::cpu::CpuFeatures;
use bitnet_core::pool::ThreadPool;
use criterion::{BenchmarkId, Criterion};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let cores = CpuFeatures::detect().cores;
    let mut threads = vec![2, cores];
    threads.sort_unstable();
    threads.dedup();
    for threads in threads {
        let mut pool = ThreadPool::new(threads).expect("threads");
        let mut group = criterion.benchmark_group("pool");
        group.bench_function(BenchmarkId::new("barrier", format!("{threads} threads")), |b| {
            b.iter_custom(|count| {
                let mut time = Duration::ZERO;
                let slot = std::sync::Mutex::new(&mut time);
                pool.run(|team| {
                    team.barrier();
                    let start = Instant::now();
                    for _ in 0..count {
                        team.barrier();
                    }
                    if team.index() == 0 {
                        **slot.lock().expect("no panic") = start.elapsed();
                    }
                });
                time
            });
        });
        group.bench_function(BenchmarkId::new("run", format!("{threads} threads")), |b| {
            b.iter(|| {
                pool.run(|team| {
                    black_box(team.index());
                });
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
