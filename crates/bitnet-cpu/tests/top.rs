//! The search for the best logits gives what the full output layer gives, bit for bit, whatever the weights.
#![allow(clippy::unwrap_used)]

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_cpu::{CpuExecutor, CpuOptions, OutputStorage, kernel_sets};
use bitnet_model::conformance::{Random, Sample, samples};
use bitnet_model::{Batch, DenseTensor, ExecError, Executor, LogitRows, Sequence, TopLogits};

const VOCAB: usize = 3001;

/// A model whose output layer has rows made by `row`.
fn model(dtype: DType, mut row: impl FnMut(usize, &mut Random) -> Vec<f32>) -> Sample {
    let mut sample = samples().swap_remove(0);
    let mut random = Random::new(7);
    let hidden = sample.spec.hidden_size;
    let values: Vec<f32> = (0..VOCAB).flat_map(|i| row(i, &mut random)).collect();
    sample.spec.vocab_size = VOCAB;
    let table = DenseTensor::new(VOCAB, hidden, dtype, ByteView::from_vec(dtype.encode(&values))).unwrap();
    sample.weights.embedding = table;
    sample
}

fn random_row(random: &mut Random) -> Vec<f32> {
    (0..128).map(|_| random.next_f32()).collect()
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

/// Runs both ways and compares; returns how many rows the searches computed in full, at most.
fn check(name: &str, sample: &Sample, kernels: &str, threads: usize) -> usize {
    let mut full = executor(sample, kernels, threads, OutputStorage::File);
    let mut fast = executor(sample, kernels, threads, OutputStorage::Int8);
    let tokens = [5u32, 3000, 77, 1234];
    let mut most = 0;
    for k in [1, 2, 40, 1000, VOCAB, VOCAB + 10] {
        let s = |logits| [Sequence { tokens: &tokens, position: 0, blocks: &[0, 1], logits }];
        let sequences = s(LogitRows::All);
        let batch = Batch { sequences: &sequences };
        let mut want = vec![0.0; 4 * VOCAB];
        full.forward(&batch, &mut want).unwrap();
        let mut top = vec![TopLogits::default(); 4];
        fast.forward_top(&batch, k, &mut top).unwrap();
        for (row, (top, want)) in top.iter().zip(want.chunks_exact(VOCAB)).enumerate() {
            assert!(top.ids.is_sorted_by(|a, b| a < b), "{name}: ids ascend");
            for (&id, logit) in top.ids.iter().zip(&top.logits) {
                assert_eq!(logit.to_bits(), want[id as usize].to_bits(), "{name}: row {row}, token {id}");
            }
            let mut order: Vec<u32> = (0..VOCAB as u32).collect();
            order.sort_by(|&a, &b| want[b as usize].total_cmp(&want[a as usize]).then(a.cmp(&b)));
            for id in &order[..k.min(VOCAB)] {
                assert!(
                    top.ids.binary_search(id).is_ok(),
                    "{name}: {kernels}, k {k}, row {row} lacks token {id}"
                );
            }
            if k == 1 {
                most = most.max(top.ids.len());
            }
        }
    }
    most
}

#[test]
fn random_rows_for_every_kernel_set_and_type() {
    for set in kernel_sets().into_iter().filter(|s| s.available) {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            let computed = check("random", &model(dtype, |_, r| random_row(r)), set.name, 3);
            assert!(
                computed < VOCAB / 4,
                "{}: {computed} rows of {VOCAB} computed for the best one",
                set.name
            );
        }
    }
}

#[test]
fn adversarial_rows() {
    let base = random_row(&mut Random::new(1));
    let near = |i: usize| base.iter().map(|w| w * (1.0 + 1e-7 * (i % 7) as f32)).collect();
    let cases: Vec<(&str, Sample)> = vec![
        ("all rows equal", model(DType::F32, |_, _| base.clone())),
        ("rows that differ in the last bits", model(DType::F32, |i, _| near(i))),
        ("zero rows", model(DType::F32, |i, r| if i % 3 == 0 { random_row(r) } else { vec![0.0; 128] })),
        ("one huge weight a row", {
            model(DType::F32, |i, r| {
                let mut row = random_row(r);
                row[i % 128] = 1000.0;
                row
            })
        }),
        ("rows of all magnitudes", {
            model(DType::F32, |i, r| {
                random_row(r).iter().map(|w| w * 10f32.powi(i as i32 % 60 - 40)).collect()
            })
        }),
    ];
    for (name, sample) in &cases {
        check(name, sample, "scalar", 1);
        check(name, sample, "auto", 2);
    }
}

#[test]
fn rows_that_are_not_numbers_are_noticed() {
    let sample = model(DType::F32, |i, r| if i == 2000 { vec![f32::NAN; 128] } else { random_row(r) });
    let mut fast = executor(&sample, "auto", 2, OutputStorage::Int8);
    let s = Sequence { tokens: &[5], position: 0, blocks: &[0], logits: LogitRows::Last };
    let mut top = vec![TopLogits::default()];
    let result = fast.forward_top(&Batch { sequences: &[s] }, 1, &mut top);
    assert!(matches!(result, Err(ExecError::NotFinite)));
    assert!(matches!(
        fast.forward_top(&Batch { sequences: &[s] }, 1, &mut []),
        Err(ExecError::OutputSize { .. })
    ));
}
