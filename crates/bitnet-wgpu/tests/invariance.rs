//! A row has the same bits whatever is computed with it: any cut of the prompt, any neighbours, any blocks; and whatever
//! the tables are cut into.
#![allow(clippy::unwrap_used)]

mod common;

use bitnet_model::conformance::{self, Random, Sample, prefill};
use bitnet_model::{Batch, Executor, KvType, LogitRows, Sequence};
use bitnet_wgpu::{WgpuExecutor, WgpuOptions};

fn text(sample: &Sample, count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| (random.next_u64() % sample.spec.vocab_size as u64) as u32).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Logits of the last token of a text, which is computed token by token beside so many others from a position on.
fn beside(executor: &mut WgpuExecutor, own: &[u32], others: &[Vec<u32>]) -> Vec<f32> {
    let (vocab, size) = (executor.spec().vocab_size, executor.info().block_size);
    let blocks = own.len().div_ceil(size);
    executor.reserve_blocks(blocks * (others.len() + 1)).unwrap();
    let tables: Vec<Vec<u32>> = (0..=others.len())
        .map(|i| (0..blocks).map(|b| (b * (others.len() + 1) + i) as u32).collect())
        .collect();
    let mut logits = vec![0.0; (others.len() + 1) * vocab];
    for position in 0..own.len() {
        let all = others.iter().map(Vec::as_slice).chain([own]);
        let sequences: Vec<Sequence<'_>> = all
            .zip(&tables)
            .map(|(tokens, blocks)| Sequence {
                tokens: &tokens[position..=position],
                position,
                blocks,
                logits: LogitRows::Last,
            })
            .collect();
        executor.forward(&Batch { sequences: &sequences }, &mut logits).unwrap();
    }
    logits[others.len() * vocab..].to_vec()
}

fn check(sample: &Sample, options: &WgpuOptions) {
    let mut executor = common::of_sample(sample, options).unwrap();
    let own = text(sample, sample.longest.min(300), 1);
    let whole = prefill(&mut executor, &own, &[1024]).unwrap();
    // Sizes that take every kernel of products: single rows, few, tiles of both sizes.
    for chunks in [&[1][..], &[2, 3, 7], &[5, 8, 11, 40], &[70, 130]] {
        let cut = prefill(&mut executor, &own, chunks).unwrap();
        assert!(bits(&cut) == bits(&whole), "{}: chunks of {chunks:?}", sample.name);
    }
    let short = &own[..own.len().min(40)];
    let last = &whole[(short.len() - 1) * sample.spec.vocab_size..short.len() * sample.spec.vocab_size];
    for neighbours in [0, 1, 10] {
        let others: Vec<Vec<u32>> = (0..neighbours).map(|i| text(sample, short.len(), 50 + i)).collect();
        let got = beside(&mut executor, short, &others);
        assert!(bits(&got) == bits(last), "{}: {neighbours} neighbours", sample.name);
    }
    // Passes of other sizes, and tables in many pieces: neither is seen.
    let widest = 4 * sample.spec.hidden_size.max(sample.spec.intermediate_size);
    let small =
        WgpuOptions { max_batch_tokens: Some(23), max_binding: Some(5 * widest as u64), ..options.clone() };
    let mut executor = common::of_sample(sample, &small).unwrap();
    assert_eq!(executor.info().max_batch_tokens, 23);
    let cut = prefill(&mut executor, &own, &[1024]).unwrap();
    assert!(bits(&cut) == bits(&whole), "{}: small passes and pieces", sample.name);
}

#[test]
fn bits_depend_on_nothing_but_the_text() {
    if !common::is_there() {
        return;
    }
    let samples = conformance::samples();
    for (i, sample) in samples.iter().enumerate() {
        let kv_type = KvType::ALL[i % 3];
        check(sample, &WgpuOptions { kv_type, ..common::options() });
    }
    let plain = WgpuOptions { no_subgroups: true, no_packed_dot: true, ..common::options() };
    check(&samples[0], &plain);
}
