//! No bit depends on neighbours or on how a text is cut; steady decoding reuses its memory and its graphs.

use bitnet_model::conformance::{Random, prefill, samples};
use bitnet_model::{Batch, Executor, KvType, LogitRows, RowWant, Sequence, TopLogits, TopWant};

use crate::executor;

/// Tokens of the texts that share batches: a few, and more than any kernel for few tokens takes.
const LENGTHS: [usize; 3] = [70, 3, 12];

fn text(seed: u64, len: usize, vocab: usize) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..len).map(|_| (random.next_u64() % vocab as u64) as u32).collect()
}

#[test]
fn no_bit_depends_on_neighbours() {
    for kernels in ["sm_75", "sm_80"] {
        let sample = &samples()[0];
        let vocab = sample.spec.vocab_size;
        let mut executor = executor(&sample.spec, &sample.weights, KvType::F16, kernels).unwrap();
        let texts: Vec<Vec<u32>> = LENGTHS.iter().map(|&len| text(len as u64, len, vocab)).collect();
        let alone: Vec<Vec<f32>> =
            texts.iter().map(|text| prefill(&mut executor, text, &[1]).unwrap()).collect();
        executor.reserve_blocks(9).unwrap();
        let tables = [[0, 1, 2], [3, 4, 5], [6, 7, 8]];
        let sequences: Vec<Sequence<'_>> = texts
            .iter()
            .zip(&tables)
            .map(|(tokens, blocks)| Sequence { tokens, position: 0, blocks, logits: LogitRows::All })
            .collect();
        let mut together = vec![0.0; LENGTHS.iter().sum::<usize>() * vocab];
        executor.forward(&Batch { sequences: &sequences }, &mut together).unwrap();
        let alone: Vec<f32> = alone.concat();
        assert!(alone.iter().zip(&together).all(|(a, b)| a.to_bits() == b.to_bits()), "{kernels}");
    }
}

#[test]
fn the_largest_logits_have_the_same_bits_however_many_are_wanted() {
    let mut sample = samples().swap_remove(0);
    // Several chunks of logits, the last one short.
    sample.spec.vocab_size = 1500;
    let mut random = Random::new(5);
    sample.weights =
        bitnet_model::conformance::random_weights(&sample.spec, bitnet_core::DType::BF16, &mut random);
    let mut executor = executor(&sample.spec, &sample.weights, KvType::F16, "sm_80").unwrap();
    let vocab = sample.spec.vocab_size;
    let tokens = text(3, 66, vocab);
    executor.reserve_blocks(3).unwrap();
    let s = Sequence { tokens: &tokens, position: 0, blocks: &[0, 1, 2], logits: LogitRows::All };
    let batch = Batch { sequences: &[s] };
    let mut full = vec![0.0; tokens.len() * vocab];
    executor.forward(&batch, &mut full).unwrap();
    for k in [1, 3, 40, 700, usize::MAX] {
        let mut top = vec![TopLogits::default(); tokens.len()];
        executor.forward_top(&batch, k, &mut top).unwrap();
        for (top, full) in top.iter().zip(full.chunks_exact(vocab)) {
            let mut best: Vec<u32> = (0..vocab as u32).collect();
            best.sort_by(|&a, &b| full[b as usize].total_cmp(&full[a as usize]));
            assert!(best[..k.min(vocab)].iter().all(|id| top.ids.binary_search(id).is_ok()), "{k}");
            let same = |(&id, logit): (&u32, &f32)| full[id as usize].to_bits() == logit.to_bits();
            assert!(top.ids.iter().zip(&top.logits).all(same) && top.ids.is_sorted());
            assert!(k > 3 || top.ids.len() < 100, "{k}: {} are given", top.ids.len());
        }
    }
    let want = RowWant::Top(TopWant { k: 2, allowed: Some(bitnet_model::TokenSet::new(&[0, 0, 0b110])) });
    let mut top = vec![TopLogits::default(); tokens.len()];
    executor.forward_select(&batch, &vec![want; tokens.len()], &mut [], &mut top).unwrap();
    assert!(top.iter().all(|top| top.ids == [65, 66]));
}

#[test]
fn steady_decoding_reuses_memory_and_graphs() {
    let sample = &samples()[0];
    let mut executor = executor(&sample.spec, &sample.weights, KvType::F16, "sm_80").unwrap();
    executor.reserve_blocks(4).unwrap();
    let before = executor.statistics();
    let mut top = [TopLogits::default()];
    for position in 0..60 {
        let s = Sequence { tokens: &[7], position, blocks: &[0, 1], logits: LogitRows::Last };
        executor.forward_top(&Batch { sequences: &[s] }, 1, &mut top).unwrap();
    }
    let after = executor.statistics();
    let taken = after.pool.allocations - before.pool.allocations;
    let hits = after.pool.hits - before.pool.hits;
    assert!(hits * 10 >= taken * 9, "{hits} of {taken}");
    assert!(after.pool.fragmentation() < 0.2, "{}", after.pool);
    assert_eq!(after.graphs, [1, 58], "the second step is recorded, all later ones are played");
    assert!(after.transfers.uploaded > before.transfers.uploaded);
    assert!(before.transfers.load_bandwidth.is_some_and(|rate| rate > 0.0));
}

#[test]
fn bandwidth_is_measured_on_request() {
    let sample = &samples()[0];
    let mut executor = executor(&sample.spec, &sample.weights, KvType::F16, "sm_80").unwrap();
    executor.reserve_blocks(1).unwrap();
    let rate = executor.measure_bandwidth().unwrap();
    assert_eq!(executor.statistics().pool.bandwidth, Some(rate));
    let s = Sequence { tokens: &[7], position: 3, blocks: &[0], logits: LogitRows::Last };
    let parts = executor.time_parts(&Batch { sequences: &[s] }).unwrap();
    assert_eq!(parts.len(), 7);
    assert!(rate > 1e8 && parts.iter().all(|(_, seconds)| *seconds > 0.0), "{parts:?}");
}
