//! The conformance suite on an adapter, each model with other types of keys and values, with and without what adapters may
//! lack; and how close the logits are.
//!
//! An activation that lies on a rounding border may fall to the other side than the oracle's, since norms are summed in
//! another order. Such a tie moves the logits of its row, and of those that attend to it, by up to 2 % of their norm in models
//! as small as these, whatever computes them. So the suite has a wide tolerance, and another test asks that most rows
//! agree to float noise.

use bitnet_model::KvType;
use bitnet_model::conformance::{self, Random, Tolerance, prefill, relative_error};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_wgpu::WgpuOptions;

use crate::common;

/// Relative 2-norm within which every row of logits must lie, rounding ties included.
const TOLERANCE: Tolerance = Tolerance::Relative(4e-2);
/// The same without ties.
const NOISE: f32 = 1e-5;

/// The samples whose texts go over ranges of attention here, one of them with windows. Software takes its time for each token.
const LONG: usize = 4;
const WINDOWS: usize = 10;

/// The sample with the longest rows.
const WIDE: usize = 3;

/// Options that differ in all that kernels have variants for.
fn variants() -> Vec<WgpuOptions> {
    let of = |kv_type, no_subgroups, no_packed_dot, max_binding| WgpuOptions {
        kv_type,
        no_subgroups,
        no_packed_dot,
        max_binding,
        ..common::options()
    };
    vec![
        of(KvType::F16, false, false, None),
        of(KvType::Int8, true, false, None),
        of(KvType::F32, true, true, Some(1 << 14)),
        of(KvType::F16, true, true, None),
        of(KvType::Int8, false, true, Some(1 << 14)),
        of(KvType::F32, false, false, None),
    ]
}

/// Runs the suite with some samples, each with a variant of its own.
fn conform(samples: &[usize]) {
    if !common::is_there() {
        return;
    }
    let (mut all, variants) = (conformance::samples(), variants());
    for &sample in samples {
        let options = &variants[sample % variants.len()];
        let longest = &mut all[sample].longest;
        *longest = (*longest).min(match sample {
            LONG => 290,
            WINDOWS => 560,
            WIDE => 35,
            _ => 75,
        });
        conformance::run_sample(&all[sample], TOLERANCE, options.kv_type, &mut |sample| {
            Ok(Box::new(common::of_sample(sample, options)?))
        })
        .unwrap_or_else(|e| panic!("{options:?}: {e}"));
    }
}

#[test]
fn models_of_usual_shapes_conform() {
    conform(&[0, 1, 6]);
}

#[test]
fn models_with_wide_heads_conform() {
    conform(&[2]);
}

#[test]
fn models_with_long_rows_conform() {
    conform(&[3]);
}

#[test]
fn models_with_long_texts_conform() {
    conform(&[4, 5]);
}

#[test]
fn models_with_extras_conform() {
    conform(&[7, 8]);
}

#[test]
fn models_with_windows_and_scaled_rotation_conform() {
    conform(&[9, 10]);
}

#[test]
fn every_type_and_variant_agrees_to_float_noise_but_for_ties() {
    if !common::is_there() {
        return;
    }
    let (mut close, mut rows) = (0, 0);
    for (number, sample) in conformance::samples().iter().enumerate().filter(|(i, _)| *i != 3) {
        let mut random = Random::new(3);
        let tokens: Vec<u32> =
            (0..30).map(|_| (random.next_u64() % sample.spec.vocab_size as u64) as u32).collect();
        for options in variants().iter().skip(number % 3).step_by(3) {
            let mut oracle =
                ReferenceExecutor::new(sample.spec.clone(), &sample.weights, options.kv_type).unwrap();
            let want = prefill(&mut oracle, &tokens, &[30]).unwrap();
            let mut executor = common::of_sample(sample, options).unwrap();
            let got = prefill(&mut executor, &tokens, &[25, 1]).unwrap();
            let vocab = sample.spec.vocab_size;
            let errors = got.chunks(vocab).zip(want.chunks(vocab)).map(|(a, b)| relative_error(a, b));
            let errors: Vec<f32> = errors.collect();
            assert!(errors.iter().all(|e| *e < 4e-2), "{}, {options:?}: {errors:?}", sample.name);
            close += errors.iter().filter(|e| **e < NOISE).count();
            rows += errors.len();
        }
    }
    assert!(close * 10 >= rows * 8, "{close} of {rows} rows agree to float noise");
}
