//! The largest logits that the device finds are those of all logits, whatever they are.

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_model::conformance::{Random, Sample, samples};
use bitnet_model::{
    Batch, DenseTensor, ExecError, Executor, LogitRows, RowWant, Sequence, TokenSet, TopLogits, TopWant,
};
use bitnet_wgpu::{WgpuExecutor, WgpuOptions};

use crate::common;

/// Several chunks of the device's search, the last one not full.
const VOCAB: usize = 5003;
/// Rows of logits.
const ROWS: usize = 4;

/// A model whose output layer has these rows.
fn with_rows(dtype: DType, row: &mut dyn FnMut(usize, usize, &mut Random) -> Vec<f32>) -> Sample {
    let mut sample = samples().swap_remove(0);
    let mut random = Random::new(7);
    let hidden = sample.spec.hidden_size;
    let values: Vec<f32> = (0..VOCAB).flat_map(|i| row(i, hidden, &mut random)).collect();
    sample.spec.vocab_size = VOCAB;
    sample.weights.embedding =
        DenseTensor::new(VOCAB, hidden, dtype, ByteView::from_vec(dtype.encode(&values))).unwrap();
    sample
}

/// A model whose output layer has random rows of the sizes that `row` gives.
fn model(dtype: DType, mut row: impl FnMut(usize, &mut Random) -> f32) -> Sample {
    with_rows(dtype, &mut |i, hidden, random| {
        let size = row(i, random);
        (0..hidden).map(|_| size * random.next_f32()).collect()
    })
}

/// A model of whose rows so many are nearly (in part exactly) the same but for their sign, and larger than all others.
fn alike(dtype: DType, count: usize) -> Sample {
    let mut base = Vec::new();
    with_rows(dtype, &mut |i, hidden, random| {
        if base.is_empty() {
            base = (0..hidden).map(|_| 4.0 * random.next_f32()).collect();
        }
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        if i * 7 % VOCAB < count {
            base.iter().map(|x| sign * x * (1.0 + 2e-7 * (random.next_u64() % 4) as f32)).collect()
        } else {
            (0..hidden).map(|_| random.next_f32()).collect()
        }
    })
}

fn run<T>(f: impl FnOnce(&Batch<'_>) -> T) -> T {
    let tokens: Vec<u32> = (0..ROWS as u32).map(|i| (5 + i * 977) % VOCAB as u32).collect();
    let s = Sequence { tokens: &tokens, position: 0, blocks: &[0], logits: LogitRows::All };
    f(&Batch { sequences: &[s] })
}

/// The `k` largest, equal ones by their place; ascending tokens.
fn best(full: &[f32], k: usize, allowed: impl Fn(u32) -> bool) -> TopLogits {
    let mut ids: Vec<u32> = (0..full.len() as u32).filter(|&t| allowed(t)).collect();
    ids.sort_by(|&a, &b| full[b as usize].total_cmp(&full[a as usize]).then(a.cmp(&b)));
    ids.truncate(k.max(1));
    ids.sort_unstable();
    let logits = ids.iter().map(|&t| full[t as usize]).collect();
    TopLogits { ids, logits }
}

fn check(name: &str, executor: &mut WgpuExecutor) {
    let mut full = vec![0.0; ROWS * VOCAB];
    run(|batch| executor.forward(batch, &mut full)).unwrap();
    for k in [0, 40, 256] {
        let mut top = vec![TopLogits::default(); ROWS];
        run(|batch| executor.forward_top(batch, k, &mut top)).unwrap();
        for (row, (top, full)) in top.iter().zip(full.chunks_exact(VOCAB)).enumerate() {
            assert_eq!(*top, best(full, k, |_| true), "{name}: row {row}, {k}");
        }
    }
    // More than the device looks for: all are given.
    let mut top = vec![TopLogits::default(); ROWS];
    run(|batch| executor.forward_top(batch, 257, &mut top)).unwrap();
    assert!(top.iter().all(|top| top.ids.len() == VOCAB));

    let mut few = vec![0u32; VOCAB.div_ceil(32)];
    for token in [3, 2047, 2048, 5002] {
        few[token / 32] |= 1 << (token % 32);
    }
    let half = vec![0x5555_5555; VOCAB.div_ceil(32)];
    let sets = [TokenSet::new(&few), TokenSet::new(&half), TokenSet::new(&[])];
    let wants: Vec<RowWant<'_>> = (0..ROWS)
        .map(|row| match row {
            1 => RowWant::All,
            row => RowWant::Top(TopWant { k: 1 + 50 * row, allowed: Some(sets[row % 3]) }),
        })
        .collect();
    let (mut logits, mut top) = (vec![0.0; VOCAB], vec![TopLogits::default(); ROWS - 1]);
    run(|batch| executor.forward_select(batch, &wants, &mut logits, &mut top)).unwrap();
    assert_eq!(logits, full[VOCAB..2 * VOCAB]);
    let mut top = top.iter();
    for (row, full) in full.chunks_exact(VOCAB).enumerate().filter(|(row, _)| *row != 1) {
        let want = best(full, 1 + 50 * row, |t| (t as usize) < VOCAB && sets[row % 3].contains(t));
        assert_eq!(top.next(), Some(&want), "{name}: row {row}");
    }
}

#[test]
fn the_largest_logits_are_found_with_their_bits() {
    if !common::is_there() {
        return;
    }
    let executor = |sample: &Sample| {
        let mut executor = common::of_sample(sample, &common::options()).unwrap();
        executor.reserve_blocks(1).unwrap();
        executor
    };
    check("growing rows", &mut executor(&model(DType::F16, |i, _| i as f32 * 0.01)));
    check("rows of zeros but some", &mut executor(&model(DType::F32, |i, _| f32::from(i % 97 == 0))));
    check("next to nothing", &mut executor(&model(DType::F16, |i, _| if i % 2 == 0 { 1e-6 } else { 5e-5 })));
    check("nearly the same", &mut executor(&alike(DType::F32, 1500)));
    check("the same but for their sign", &mut executor(&alike(DType::BF16, VOCAB)));

    let mut broken = executor(&model(DType::F32, |i, _| if i == 4000 { f32::INFINITY } else { 1.0 }));
    let mut top = vec![TopLogits::default(); ROWS];
    let result = run(|batch| broken.forward_top(batch, 3, &mut top));
    assert!(matches!(result, Err(ExecError::NotFinite)), "{result:?}");
    let result = run(|batch| broken.forward(batch, &mut vec![0.0; ROWS * VOCAB]));
    assert!(matches!(result, Err(ExecError::NotFinite)), "{result:?}");
}

/// Labels of the kernels of a call that looks for the `k` largest logits.
fn labels(sample: &Sample, options: &WgpuOptions, k: usize) -> Option<Vec<&'static str>> {
    let mut executor = common::of_sample(sample, options).unwrap();
    executor.reserve_blocks(1).unwrap();
    executor.adapter().timestamps.then(|| {
        let mut top = vec![TopLogits::default(); ROWS];
        run(|batch| executor.forward_top(batch, k, &mut top)).unwrap();
        executor.take_times().into_iter().map(|(label, _)| label).collect()
    })
}

#[test]
fn the_table_is_read_in_full_only_where_its_image_does_not_tell_enough() {
    if !common::is_there() {
        return;
    }
    let profile = WgpuOptions { profile: true, ..common::options() };
    let plain = WgpuOptions {
        no_subgroups: true,
        no_packed_dot: true,
        max_binding: Some(1 << 18),
        ..profile.clone()
    };
    let usual = model(DType::BF16, |_, _| 1.0);
    for options in [&profile, &plain] {
        let Some(labels) = labels(&usual, options, 40) else { continue };
        assert!(labels.contains(&"output layer, scan") && !labels.contains(&"output layer"), "{labels:?}");
    }
    if let Some(labels) = labels(&alike(DType::F16, VOCAB), &profile, 1) {
        assert!(labels.contains(&"output layer, scan") && labels.contains(&"output layer"), "{labels:?}");
    }
    let mut executor = common::of_sample(&usual, &plain).unwrap();
    executor.reserve_blocks(1).unwrap();
    check("without what adapters may lack, in pieces", &mut executor);
    let traffic = executor.info().traffic;
    assert!(traffic.output_scan < traffic.output, "{traffic:?}");
}
