mod common;
use bitnet_model::conformance::{self, *};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::*;
use std::time::Instant;
#[test]
fn probe() {
    let only: Option<usize> = std::env::var("S").ok().map(|s| s.parse().unwrap());
    let kv: KvType = std::env::var("KV").unwrap_or("f16".into()).parse().unwrap();
    for (i, sample) in conformance::samples().iter().enumerate() {
        if only.is_some_and(|o| o != i) {
            continue;
        }
        let t = Instant::now();
        let mut ex = common::of_sample(
            sample,
            &bitnet_wgpu::WgpuOptions {
                kv_type: kv,
                profile: std::env::var("P").is_ok(),
                ..common::options()
            },
        )
        .unwrap();
        let load = t.elapsed();
        let tokens: Vec<u32> = (0..75u32).map(|t| t * 31 % sample.spec.vocab_size as u32).collect();
        let t = Instant::now();
        let got = prefill(&mut ex, &tokens, &[1024]).unwrap();
        let first = t.elapsed();
        let t = Instant::now();
        prefill(&mut ex, &tokens, &[1024]).unwrap();
        let again = t.elapsed();
        if std::env::var("P").is_ok() {
            for (l, t) in ex.take_times() {
                eprintln!("   PREFILL(2) {l} {:?} {}", t.total, t.count);
            }
        }
        prefill(&mut ex, &tokens[..2], &[1]).unwrap();
        ex.take_times();
        let t = Instant::now();
        prefill(&mut ex, &tokens[..34], &[1]).unwrap();
        let single = t.elapsed() / 34;
        for (l, t) in ex.take_times() {
            eprintln!("   {l} {:?}", t.total / 34);
        }
        let mut oracle = ReferenceExecutor::new(sample.spec.clone(), &sample.weights, kv).unwrap();
        let want = prefill(&mut oracle, &tokens, &[75]).unwrap();
        let mut errs: Vec<f32> = got
            .chunks(sample.spec.vocab_size)
            .zip(want.chunks(sample.spec.vocab_size))
            .map(|(a, b)| relative_error(a, b))
            .collect();
        let firstbad = errs.iter().position(|e| *e > 1e-5);
        errs.sort_by(f32::total_cmp);
        eprintln!(
            "{i} {}: load {load:?} first {first:?} again {again:?} single {single:?} err median {:e} max {:e} firstbad {firstbad:?} bad {}",
            sample.name,
            errs[37],
            errs[74],
            errs.iter().filter(|e| **e > 1e-5).count()
        );
    }
}
