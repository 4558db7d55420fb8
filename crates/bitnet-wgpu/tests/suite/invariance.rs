//! A row has the same bits whatever is computed with it: any cut of the prompt, any neighbours, any blocks; and whatever
//! the tables are cut into.

use bitnet_model::conformance::{self, Random, Sample, prefill};
use bitnet_model::{Batch, Executor, KvType, LogitRows, Sequence};
use bitnet_wgpu::{WgpuExecutor, WgpuOptions};

use crate::common;

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

fn check(sample: &Sample, length: usize, options: &WgpuOptions) {
    let mut executor = common::of_sample(sample, options).unwrap();
    let own = text(sample, length, 1);
    let whole = prefill(&mut executor, &own, &[1024]).unwrap();
    // Sizes that take every kernel of products: single rows, few, tiles of both sizes.
    for chunks in [&[1][..], &[2, 3, 7, 11, 30], &[70, 130]] {
        let cut = prefill(&mut executor, &own, chunks).unwrap();
        assert!(bits(&cut) == bits(&whole), "{}: chunks of {chunks:?}", sample.name);
    }
    let short = &own[..own.len().min(20)];
    let last = &whole[(short.len() - 1) * sample.spec.vocab_size..short.len() * sample.spec.vocab_size];
    for neighbours in [3, 10] {
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
    let of = |kv_type| WgpuOptions { kv_type, ..common::options() };
    check(&samples[0], 75, &of(KvType::F16));
    check(&samples[2], 40, &of(KvType::Int8));
    check(&samples[7], 50, &of(KvType::F32));
    let plain = WgpuOptions { no_subgroups: true, no_packed_dot: true, ..common::options() };
    check(&samples[1], 50, &plain);
}

/// Beyond one range of attention, and with windows over two.
#[test]
fn bits_of_long_texts_depend_on_nothing_but_the_text() {
    if !common::is_there() {
        return;
    }
    let samples = conformance::samples();
    check(&samples[4], 270, &common::options());
    check(&samples[9], 290, &WgpuOptions { kv_type: KvType::Int8, ..common::options() });
}
