//! The search for the best logits gives what the full output layer gives, bit for bit, whatever the weights; and int8 rows
//! alone give logits close to them.
#![allow(clippy::unwrap_used)]

use bitnet_core::bytes::ByteView;
use bitnet_core::{BlockType, CoreError, DType};
use bitnet_cpu::{CpuExecutor, CpuOptions, OutputStorage, kernel_sets};
use bitnet_model::conformance::{Random, Sample, samples};
use bitnet_model::{
    Batch, DenseTensor, ExecError, Executor, LogitRows, RowWant, Sequence, TokenSet, TopLogits, TopWant,
};

const VOCAB: usize = 3001;
const HIDDEN: usize = 128;

/// A model whose output layer has rows made by `row`.
fn model(dtype: DType, mut row: impl FnMut(usize, &mut Random) -> Vec<f32>) -> Sample {
    let mut sample = samples().swap_remove(0);
    let mut random = Random::new(7);
    assert_eq!(sample.spec.hidden_size, HIDDEN);
    let values: Vec<f32> = (0..VOCAB).flat_map(|i| row(i, &mut random)).collect();
    sample.spec.vocab_size = VOCAB;
    let table = DenseTensor::new(VOCAB, HIDDEN, dtype, ByteView::from_vec(dtype.encode(&values))).unwrap();
    sample.weights.embedding = table;
    sample
}

/// The same with an output layer in blocks.
fn blocks_model(blocks: BlockType) -> Sample {
    let mut sample = model(DType::F32, |_, r| random_row(r));
    let mut values = vec![0.0; VOCAB * HIDDEN];
    DType::F32.decode(sample.weights.embedding.data().as_slice(), &mut values);
    let mut bytes = Vec::new();
    assert!(blocks.encode(&values, &mut bytes));
    sample.weights.embedding = DenseTensor::new(VOCAB, HIDDEN, blocks, ByteView::from_vec(bytes)).unwrap();
    sample
}

fn random_row(random: &mut Random) -> Vec<f32> {
    (0..HIDDEN).map(|_| random.next_f32()).collect()
}

fn executor(sample: &Sample, kernels: &str, threads: usize, output: OutputStorage) -> CpuExecutor {
    let options = CpuOptions {
        threads: Some(threads),
        kernels: Some(kernels.to_owned()),
        output,
        ..CpuOptions::default()
    };
    let mut executor =
        CpuExecutor::new(sample.spec.clone(), &sample.weights, &options, &mut |_, _| {}).unwrap();
    executor.reserve_blocks(2).unwrap();
    executor
}

/// A text of so many tokens, each of which gets logits.
fn tokens(rows: usize) -> Vec<u32> {
    (0..rows).map(|i| (5 + i * 977) as u32 % VOCAB as u32).collect()
}

fn all_logits(executor: &mut CpuExecutor, rows: usize) -> Result<Vec<f32>, ExecError> {
    let tokens = tokens(rows);
    let s = Sequence { tokens: &tokens, position: 0, blocks: &[0, 1], logits: LogitRows::All };
    let mut logits = vec![0.0; rows * VOCAB];
    executor.forward(&Batch { sequences: &[s] }, &mut logits).map(|()| logits)
}

fn top_logits(executor: &mut CpuExecutor, rows: usize, k: usize) -> Result<Vec<TopLogits>, ExecError> {
    let tokens = tokens(rows);
    let s = Sequence { tokens: &tokens, position: 0, blocks: &[0, 1], logits: LogitRows::All };
    let mut top = vec![TopLogits::default(); rows];
    executor.forward_top(&Batch { sequences: &[s] }, k, &mut top).map(|()| top)
}

/// Checks that `top` holds the `k` best of the logits `want` of each row and what equals the last of them, with the same
/// bits, and nothing else.
fn check(name: &str, top: &[TopLogits], want: &[f32], k: usize) {
    for (row, (top, want)) in top.iter().zip(want.chunks_exact(VOCAB)).enumerate() {
        assert!(top.ids.is_sorted_by(|a, b| a < b), "{name}: ids ascend");
        assert_eq!(top.ids.len(), top.logits.len());
        for (&id, logit) in top.ids.iter().zip(&top.logits) {
            assert_eq!(logit.to_bits(), want[id as usize].to_bits(), "{name}: row {row}, token {id}");
        }
        let mut order: Vec<u32> = (0..VOCAB as u32).collect();
        order.sort_by(|&a, &b| want[b as usize].total_cmp(&want[a as usize]).then(a.cmp(&b)));
        let last = want[order[k.clamp(1, VOCAB) - 1] as usize];
        for (id, &logit) in want.iter().enumerate() {
            let found = top.ids.binary_search(&(id as u32)).is_ok();
            assert_eq!(found, logit >= last, "{name}: k {k}, row {row}, token {id}: {logit}, last is {last}");
        }
    }
}

/// Runs both ways, with every kernel set and several numbers of threads, and compares.
fn check_everywhere(name: &str, sample: &Sample, rows: usize, ks: &[usize]) {
    let want = all_logits(&mut executor(sample, "auto", 2, OutputStorage::Full), rows).unwrap();
    for set in kernel_sets().into_iter().filter(|s| s.available) {
        for threads in [1, 2, 3] {
            let name = format!("{name}, {}, {threads} threads", set.name);
            let mut fast = executor(sample, set.name, threads, OutputStorage::Scan);
            assert_eq!(all_logits(&mut fast, rows).unwrap(), want, "{name}: all logits");
            for &k in ks {
                check(&name, &top_logits(&mut fast, rows, k).unwrap(), &want, k);
            }
        }
    }
}

/// Sets of tokens of all sizes: from none and a few, which are computed at once, to all, with bits behind the vocabulary.
fn token_sets() -> Vec<Vec<u32>> {
    let mut random = Random::new(5);
    let words = VOCAB.div_ceil(32);
    let mut of = |percent: u64| -> Vec<u32> {
        let mut word = |_| (0..32).fold(0, |w, bit| w | u32::from(random.next_u64() % 100 < percent) << bit);
        (0..words + 2).map(&mut word).collect()
    };
    let (few, some, half, most) = (of(2), of(30), of(50), of(98));
    let mut last = vec![0; words];
    last[words - 1] = u32::MAX;
    let every_third: Vec<u32> = (0..words).map(|i| if i % 3 == 0 { u32::MAX } else { 0 }).collect();
    vec![vec![], vec![0; words], vec![0, 4], last, few, some, half, most, every_third, vec![u32::MAX; words]]
}

/// Runs a batch whose rows want all sorts of things and checks each against all logits.
fn check_select(name: &str, executor: &mut CpuExecutor, rows: usize, full: &[f32], ks: &[usize]) {
    let (sets, text) = (token_sets(), tokens(rows));
    let s = Sequence { tokens: &text, position: 0, blocks: &[0, 1], logits: LogitRows::All };
    let batch = Batch { sequences: &[s] };
    // Every set meets every `k`, beside rows without a set, and some that want all.
    for start in 0..sets.len() {
        let want = |row: usize| {
            let k = ks[(row + start / 2) % ks.len()];
            match (row + start) % (sets.len() + 2) {
                0 if start % 3 > 0 => RowWant::All,
                1 => RowWant::Top(TopWant { k, allowed: None }),
                i => RowWant::Top(TopWant { k, allowed: Some(TokenSet::new(&sets[i.saturating_sub(2)])) }),
            }
        };
        let wants: Vec<RowWant<'_>> = (0..rows).map(want).collect();
        let tops = wants.iter().filter(|want| want.top().is_some()).count();
        let mut logits = vec![0.0; (rows - tops) * VOCAB];
        let mut top = vec![TopLogits::default(); tops];
        executor.forward_select(&batch, &wants, &mut logits, &mut top).unwrap();
        let (mut all, mut top) = (logits.chunks_exact(VOCAB), top.iter());
        for (row, (want, full)) in wants.iter().zip(full.chunks_exact(VOCAB)).enumerate() {
            let name = format!("{name}, row {row} of {rows}, sets from {start}");
            let Some(want) = want.top() else {
                assert!(all.next().unwrap() == full, "{name}: all logits");
                continue;
            };
            let (top, k) = (top.next().unwrap(), want.k.clamp(1, VOCAB));
            let mut allowed: Vec<u32> = (0..VOCAB as u32).filter(|&t| want.allows(t)).collect();
            let bits = |ids: &[u32]| ids.iter().map(|&t| full[t as usize].to_bits()).collect::<Vec<_>>();
            assert_eq!(top.logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>(), bits(&top.ids), "{name}");
            let mut best: Vec<f32> = allowed.iter().map(|&t| full[t as usize]).collect();
            best.sort_by(|a, b| b.total_cmp(a));
            if let Some(&last) = best.get(k - 1) {
                allowed.retain(|&t| full[t as usize] >= last);
            }
            assert_eq!(top.ids, allowed, "{name}: the {k} best");
        }
    }
}

#[test]
fn rows_of_one_batch_want_different_things() {
    let base = random_row(&mut Random::new(1));
    let ties = |i: usize| {
        let mut row = base.clone();
        row[i % HIDDEN] += 1e-5 * ((i * 31 % 17) as f32 - 8.0);
        row
    };
    let cases = [
        ("random", model(DType::BF16, |_, r| random_row(r))),
        ("near ties below the int8 step", model(DType::F32, |i, _| ties(i))),
        ("some rows equal", model(DType::F32, |i, r| if i % 2 == 0 { base.clone() } else { random_row(r) })),
    ];
    for (name, sample) in &cases {
        for rows in [1, 2, 13] {
            let want = all_logits(&mut executor(sample, "auto", 2, OutputStorage::Full), rows).unwrap();
            for set in kernel_sets().into_iter().filter(|s| s.available) {
                for threads in [1, 3] {
                    let name = format!("{name}, {}, {threads} threads", set.name);
                    let mut fast = executor(sample, set.name, threads, OutputStorage::Scan);
                    check_select(&name, &mut fast, rows, &want, &[1, 40, usize::MAX, 0, 700]);
                }
            }
        }
    }
}

/// The other ways to keep the output layer give the logits of `forward` too, of all tokens that count.
#[test]
fn rows_choose_from_every_output_layer() {
    let sample = model(DType::BF16, |_, r| random_row(r));
    for output in [OutputStorage::Full, OutputStorage::Int8] {
        let mut executor = executor(&sample, "auto", 2, output);
        let want = all_logits(&mut executor, 5).unwrap();
        check_select(&format!("{output:?}"), &mut executor, 5, &want, &[usize::MAX]);
    }
}

#[test]
fn tokens_that_do_not_count_are_not_computed() {
    let spoil = |i: usize, r: &mut Random| {
        let mut row = random_row(r);
        row[77] = if i == 2000 { f32::NAN } else { row[77] };
        row
    };
    let mut executor = executor(&model(DType::F32, spoil), "auto", 2, OutputStorage::Scan);
    let s = Sequence { tokens: &[5], position: 0, blocks: &[0], logits: LogitRows::Last };
    let batch = Batch { sequences: &[s] };
    for first in [62, 63] {
        // Once few tokens, once many.
        for words in [first + 1, first + 30] {
            let set: Vec<u32> = (0..words).map(|i| if i >= first { u32::MAX } else { 0 }).collect();
            let want = [RowWant::Top(TopWant { k: 1, allowed: Some(TokenSet::new(&set)) })];
            let result = executor.forward_select(&batch, &want, &mut [], &mut [TopLogits::default()]);
            // Token 2000 is in word 62.
            assert_eq!(matches!(result, Err(ExecError::NotFinite)), first == 62, "{result:?}");
        }
    }
}

#[test]
fn random_rows_of_every_type() {
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        let sample = model(dtype, |_, r| random_row(r));
        check_everywhere("random", &sample, 4, &[0, 1, 2, 40, 1000, VOCAB, VOCAB + 10, usize::MAX]);
    }
}

#[test]
fn rows_in_blocks() {
    for blocks in [BlockType::Q8_0, BlockType::Q4_0] {
        let mut sample = blocks_model(blocks);
        check_everywhere(blocks.name(), &sample, 4, &[1, 40, VOCAB]);
        let all = |sample: &Sample, output| all_logits(&mut executor(sample, "auto", 2, output), 4).unwrap();
        let want = all(&sample, OutputStorage::Full);
        // As they lie in a mapped file, and as the values they stand for.
        let table = sample.weights.embedding.clone();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), table.data().as_slice()).unwrap();
        let mapped = ByteView::map_file(file.path()).unwrap();
        sample.weights.embedding = DenseTensor::new(VOCAB, HIDDEN, blocks, mapped).unwrap();
        for output in [OutputStorage::Full, OutputStorage::Scan] {
            assert_eq!(all(&sample, output), want, "{blocks} {output:?}");
        }
        let mut values = vec![0.0; VOCAB * HIDDEN];
        blocks.decode(table.data().as_slice(), &mut values);
        let plain = ByteView::from_vec(DType::F32.encode(&values));
        sample.weights.embedding = DenseTensor::new(VOCAB, HIDDEN, DType::F32, plain).unwrap();
        assert_eq!(all(&sample, OutputStorage::Scan), want, "{blocks} as f32");
    }
}

/// Blocks of hidden rows are full, partly full and single.
#[test]
fn batches_of_one_to_thirty_three_rows() {
    let sample = model(DType::BF16, |_, r| random_row(r));
    let want = all_logits(&mut executor(&sample, "auto", 2, OutputStorage::Full), 33).unwrap();
    for set in kernel_sets().into_iter().filter(|s| s.available) {
        let mut fast = executor(&sample, set.name, 2, OutputStorage::Scan);
        // Down and up again: memory of a larger batch is used again for a smaller one.
        for rows in (1..=33).chain([8, 1, 17]) {
            let top = top_logits(&mut fast, rows, 5).unwrap();
            check(&format!("{} with {rows} rows", set.name), &top, &want[..rows * VOCAB], 5);
        }
    }
}

#[test]
fn adversarial_rows() {
    let base = random_row(&mut Random::new(1));
    let near = |i: usize| base.iter().map(|w| w * (1.0 + 1e-7 * (i % 7) as f32)).collect();
    // Differences far below the int8 step, in a few columns only.
    let ties = |i: usize| {
        let mut row = base.clone();
        row[i % HIDDEN] += 1e-5 * ((i * 31 % 17) as f32 - 8.0);
        row
    };
    let outlier = |i: usize, r: &mut Random| {
        let mut row = random_row(r);
        row[i % HIDDEN] = 1000.0;
        row
    };
    let magnitude = |i: usize, r: &mut Random| -> Vec<f32> {
        random_row(r).iter().map(|w| w * 10f32.powi(i as i32 % 60 - 40)).collect()
    };
    let norms = |i: usize, r: &mut Random| -> Vec<f32> {
        let factor = [1e-6, 1.0, 1e6, 3e-2][i % 4];
        random_row(r).iter().map(|w| w * factor).collect()
    };
    // All logits but a few are negative, or all are.
    let negative = |i: usize| -> Vec<f32> { base.iter().map(|w| -w * (1 + i % 100) as f32).collect() };
    let cases: Vec<(&str, Sample)> = vec![
        ("all rows equal", model(DType::F32, |_, _| base.clone())),
        ("rows that differ in the last bits", model(DType::F32, |i, _| near(i))),
        ("near ties below the int8 step", model(DType::F32, |i, _| ties(i))),
        ("zero rows", model(DType::F32, |i, r| if i % 3 == 0 { random_row(r) } else { vec![0.0; HIDDEN] })),
        ("nothing but zeros", model(DType::F32, |_, _| vec![0.0; HIDDEN])),
        ("one huge weight a row", model(DType::F32, outlier)),
        ("rows of all magnitudes", model(DType::F32, magnitude)),
        ("norms that differ hugely", model(DType::BF16, norms)),
        ("multiples of one row", model(DType::F32, |i, _| negative(i))),
        ("some rows equal", model(DType::BF16, |i, r| if i % 2 == 0 { base.clone() } else { random_row(r) })),
    ];
    for (name, sample) in &cases {
        check_everywhere(name, sample, 3, &[1, 40, 1600]);
    }
}

#[test]
fn rows_that_are_not_numbers_are_noticed() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let spoil = |i: usize, r: &mut Random| {
            let mut row = random_row(r);
            row[77] = if i == 2000 { bad } else { row[77] };
            row
        };
        let sample = model(DType::F32, spoil);
        for (output, rows) in [
            (OutputStorage::Scan, 1),
            (OutputStorage::Scan, 9),
            (OutputStorage::Int8, 1),
            (OutputStorage::Full, 2),
        ] {
            let mut executor = executor(&sample, "auto", 2, output);
            assert!(
                matches!(top_logits(&mut executor, rows, 1), Err(ExecError::NotFinite)),
                "{bad} {output:?}"
            );
            assert!(matches!(all_logits(&mut executor, rows), Err(ExecError::NotFinite)), "{bad} {output:?}");
        }
    }
    let mut fast = executor(&model(DType::F32, |_, r| random_row(r)), "auto", 2, OutputStorage::Scan);
    let s = Sequence { tokens: &[5], position: 0, blocks: &[0], logits: LogitRows::Last };
    let result = fast.forward_top(&Batch { sequences: &[s] }, 1, &mut []);
    assert!(matches!(result, Err(ExecError::OutputSize { .. })));
}

#[test]
fn int8_rows_alone_are_close_and_the_same_everywhere() {
    let sample = model(DType::BF16, |_, r| random_row(r));
    let rows = 11;
    let exact = all_logits(&mut executor(&sample, "auto", 2, OutputStorage::Full), rows).unwrap();
    let want = all_logits(&mut executor(&sample, "scalar", 1, OutputStorage::Int8), rows).unwrap();
    let size = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let difference: Vec<f32> = exact.iter().zip(&want).map(|(a, b)| a - b).collect();
    let relative = size(&difference) / size(&exact);
    assert!(relative > 0.0 && relative < 0.005, "relative error {relative}");
    for set in kernel_sets().into_iter().filter(|s| s.available) {
        for threads in [1, 3] {
            let mut executor = executor(&sample, set.name, threads, OutputStorage::Int8);
            assert_eq!(all_logits(&mut executor, rows).unwrap(), want, "{}, {threads} threads", set.name);
            for k in [1, 40, VOCAB] {
                check(set.name, &top_logits(&mut executor, rows, k).unwrap(), &want, k);
            }
        }
    }
}

/// Rows of a mapped file are read past the mapping: same bits, and a failure to read is an error.
#[test]
fn tables_in_files() {
    let mut sample = model(DType::F16, |_, r| random_row(r));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table");
    let in_memory = sample.weights.embedding.data().clone();
    std::fs::write(&path, [&[1, 2, 3], in_memory.as_slice()].concat()).unwrap();
    let view = ByteView::map_file(&path).unwrap().slice(3, 3 + in_memory.len() as u64, "table").unwrap();
    let want = all_logits(&mut executor(&sample, "auto", 2, OutputStorage::Full), 5).unwrap();
    sample.weights.embedding = DenseTensor::new(VOCAB, HIDDEN, DType::F16, view).unwrap();
    check_everywhere("in a file", &sample, 5, &[1, 40, VOCAB]);

    let mut scan = executor(&sample, "auto", 2, OutputStorage::Scan);
    let mut full = executor(&sample, "auto", 2, OutputStorage::Full);
    assert_eq!(all_logits(&mut full, 5).unwrap(), want);
    let (scan_info, full_info) = (scan.info(), full.info());
    assert_eq!(scan_info.file_bytes.as_bytes(), in_memory.len() as u64);
    assert_eq!(full_info.file_bytes.as_bytes(), 0);
    assert!(scan_info.weight_bytes < full_info.weight_bytes);

    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(100).unwrap();
    let unreadable = |result| matches!(result, Err(ExecError::Core(CoreError::Io { .. })));
    assert!(unreadable(top_logits(&mut scan, 5, 1).map(|_| ())));
    assert!(unreadable(all_logits(&mut scan, 5).map(|_| ())));
    std::fs::write(&path, [&[1, 2, 3], in_memory.as_slice()].concat()).unwrap();
    check("readable again", &top_logits(&mut scan, 5, 1).unwrap(), &want, 1);
}
