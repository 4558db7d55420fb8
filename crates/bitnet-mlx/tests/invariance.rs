//! On the processor a row has the same bits whatever is computed with it: any cut of the prompt, any neighbours, any blocks,
//! passes of any size. On a GPU the rows agree within the tolerance of the conformance suite.
#![cfg(feature = "mlx")]
#![allow(clippy::unwrap_used)]

mod common;

use bitnet_mlx::{MlxExecutor, MlxOptions};
use bitnet_model::conformance::{Random, Sample, Tolerance, compare, prefill, samples};
use bitnet_model::{Batch, Executor, KvType, LogitRows, Sequence};

fn text(sample: &Sample, count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| (random.next_u64() % sample.spec.vocab_size as u64) as u32).collect()
}

/// Logits of the last token of a text, which is computed token by token beside others from a position on, some of which
/// are shorter.
fn beside(executor: &mut MlxExecutor, own: &[u32], others: &[Vec<u32>]) -> Vec<f32> {
    let (vocab, size) = (executor.spec().vocab_size, executor.info().block_size);
    let (blocks, all) = (own.len().div_ceil(size), others.len() + 1);
    executor.reserve_blocks(blocks * all).unwrap();
    let tables: Vec<Vec<u32>> =
        (0..all).map(|i| (0..blocks).map(|b| (b * all + i) as u32).collect()).collect();
    let mut last = Vec::new();
    for position in 0..own.len() {
        let texts = others.iter().map(Vec::as_slice).chain([own]).zip(&tables);
        let sequences: Vec<Sequence<'_>> = texts
            .filter(|(tokens, _)| position < tokens.len())
            .map(|(tokens, blocks)| Sequence {
                tokens: &tokens[position..=position],
                position,
                blocks,
                logits: LogitRows::Last,
            })
            .collect();
        last = vec![0.0; sequences.len() * vocab];
        executor.forward(&Batch { sequences: &sequences }, &mut last).unwrap();
    }
    last[last.len() - vocab..].to_vec()
}

fn check(sample: &Sample, kv_type: KvType) {
    let tolerance = if common::on_gpu() { Tolerance::Relative(4e-2) } else { Tolerance::Bits };
    let same = |case: &str, got: &[f32], want: &[f32]| {
        let name = format!("{}, {kv_type}, {case}", sample.name);
        compare(&name, tolerance, got, want, sample.spec.vocab_size).unwrap();
    };
    let options = MlxOptions { kv_type, ..common::options() };
    let mut executor = common::of_sample(sample, &options).unwrap();
    let own = text(sample, sample.longest.min(300), 1);
    let whole = prefill(&mut executor, &own, &[1024]).unwrap();
    for chunks in [&[1][..], &[2, 3, 7, 40], &[70, 130]] {
        same(&format!("chunks of {chunks:?}"), &prefill(&mut executor, &own, chunks).unwrap(), &whole);
    }
    let short = &own[..own.len().min(70)];
    let last = &whole[(short.len() - 1) * sample.spec.vocab_size..short.len() * sample.spec.vocab_size];
    for neighbours in [1, 10] {
        let others: Vec<Vec<u32>> =
            (0..neighbours).map(|i| text(sample, short.len() - i as usize, 50 + i)).collect();
        let got = beside(&mut executor, short, &others);
        same(&format!("{neighbours} neighbours"), &got, last);
    }
    let small = MlxOptions { max_batch_tokens: Some(23), ..options };
    let mut executor = common::of_sample(sample, &small).unwrap();
    assert_eq!(executor.info().max_batch_tokens, 23);
    same("small passes", &prefill(&mut executor, &own, &[1024]).unwrap(), &whole);
}

/// Every third sample, so that tests are short.
fn check_third(third: usize) {
    let samples = samples();
    for sample in samples.iter().skip(third).step_by(3) {
        check(sample, KvType::ALL[third]);
    }
}

#[test]
fn rows_depend_on_nothing_but_the_text_with_f32() {
    check_third(0);
}

#[test]
fn rows_depend_on_nothing_but_the_text_with_f16() {
    check_third(1);
}

#[test]
fn rows_depend_on_nothing_but_the_text_with_int8() {
    check_third(2);
}

/// Values that are weighed as integers, seen through windows.
#[test]
fn windows_over_int8_depend_on_nothing_but_the_text() {
    check(&samples()[9], KvType::Int8);
}
