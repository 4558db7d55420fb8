//! Sampling against direct, slow definitions.

use std::collections::BTreeSet;

use bitnet_core::lanes;
use bitnet_model::TopLogits;
use bitnet_model::load::GenerationDefaults;
use proptest::prelude::*;

use super::*;

mod definitions;

const PLAIN: SamplingParams = SamplingParams::NEUTRAL;

/// Everything that is ever drawn in many draws.
fn support(params: SamplingParams, logits: &[f32], history: &[u32]) -> BTreeSet<u32> {
    let mut sampler = Sampler::new(params, 1);
    (0..3000).map(|_| sampler.sample(&mut logits.to_vec(), history).unwrap()).collect()
}

/// Tokens by falling logit, equals by rising id.
fn ranked(logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    ids
}

fn probabilities(logits: &[f32], temperature: f32) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

/// The tokens that survive, by the definitions: sort everything, cut, renormalise, cut.
fn survivors(logits: &[f32], params: &SamplingParams) -> BTreeSet<u32> {
    let p = probabilities(logits, params.temperature);
    let mut left = ranked(logits);
    left.truncate(if params.top_k == 0 { left.len() } else { params.top_k });
    let total: f64 = left.iter().map(|&id| p[id as usize]).sum();
    let mut before = 0.0;
    let mut kept = BTreeSet::new();
    for (rank, &id) in left.iter().enumerate() {
        if rank == 0 || before < f64::from(params.top_p) {
            kept.insert(id);
        }
        before += p[id as usize] / total;
    }
    let floor = f64::from(params.min_p) * p[left[0] as usize];
    kept.retain(|&id| p[id as usize] >= floor);
    kept
}

/// Distinct logits, spread so that no cut falls within rounding of a border.
fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    (2usize..40)
        .prop_flat_map(|n| Just((0..n).map(|i| i as f32 * 0.11 - 2.0).collect::<Vec<_>>()).prop_shuffle())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn every_cut_keeps_what_its_definition_keeps(
        logits in any_logits(), top_k in 0usize..45, top_p in 0.0f32..=1.0, min_p in 0.0f32..0.9, t in 0.3f32..2.0,
    ) {
        let params = SamplingParams { top_k, top_p, min_p, temperature: t, ..PLAIN };
        let want = survivors(&logits, &params);
        // A border within rounding of a token may fall either way; such cases are the other tests' business.
        let nudged = |by: f32| {
            let shift = |v: f32| (v * (1.0 + by)).clamp(0.0, 1.0);
            survivors(&logits, &SamplingParams { top_p: shift(top_p), min_p: shift(min_p), ..params })
        };
        prop_assume!(nudged(1e-4) == want && nudged(-1e-4) == want);
        let got = support(params, &logits, &[]);
        prop_assert!(got.is_subset(&want), "{got:?} {want:?}");
        // What is likely enough must have come up in 3000 draws.
        let p = probabilities(&logits, t);
        let total: f64 = want.iter().map(|&id| p[id as usize]).sum();
        for id in want {
            prop_assert!(got.contains(&id) || p[id as usize] / total < 0.01, "{id} never came up");
        }
    }

    #[test]
    fn partial_selection_is_a_sort(values in prop::collection::vec(-9i8..9, 1..700), k in 1usize..200) {
        let logits: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
        let mut got = Vec::new();
        candidates::top_k(&logits, k, &mut got);
        let mut want = ranked(&logits);
        want.truncate(k);
        prop_assert_eq!(got.iter().map(|c| c.place as u32).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_long_tail_is_cut_like_a_short_one(values in prop::collection::vec(0i16..400, 600..3000), top_p in 0.5f32..0.999) {
        let logits: Vec<f32> = values.iter().map(|&v| f32::from(v) / 200.0).collect();
        let params = SamplingParams { top_p, ..PLAIN };
        let want = survivors(&logits, &params);
        let mut sampler = Sampler::new(params, 3);
        for _ in 0..20 {
            let id = sampler.sample(&mut logits.clone(), &[]).unwrap();
            // One token more or less at the border is rounding.
            let worst = want.iter().map(|&id| logits[id as usize]).fold(f32::INFINITY, f32::min);
            prop_assert!(want.contains(&id) || logits[id as usize] >= worst - 0.01);
        }
    }

    #[test]
    fn decisive_logits_give_the_token_that_all_give(
        values in prop::collection::vec(-30i8..30, 64..300), history in prop::collection::vec(0u32..300, 0..20),
        top_k in 0usize..20, temperature in prop::sample::select(vec![0.0f32, 0.7, 1.5]),
        repeat_penalty in prop::sample::select(vec![0.8f32, 1.0, 1.3]), top_p in 0.5f32..=1.0, more in 0usize..5,
    ) {
        // Distinct logits: which of equals at the border belong to the best is not told.
        let logits: Vec<f32> = values.iter().enumerate().map(|(i, &v)| f32::from(v) / 4.0 + i as f32 * 1e-4).collect();
        let params = SamplingParams { top_k, temperature, repeat_penalty, top_p, ..PLAIN };
        let (mut all, mut few) = (Sampler::new(params, 5), Sampler::new(params, 5));
        let Some(k) = few.decisive(&history, logits.len()) else {
            prop_assert!(repeat_penalty < 1.0 || top_k == 0 || top_k + history.len() >= logits.len() / 2);
            return Ok(());
        };
        for _ in 0..8 {
            let mut ids = ranked(&logits);
            ids.truncate(k + more);
            ids.sort_unstable();
            let mut top = TopLogits { logits: ids.iter().map(|&id| logits[id as usize]).collect(), ids };
            let want = all.sample(&mut logits.clone(), &history).unwrap();
            if let Some(draw) = few.ahead() {
                prop_assert_eq!(draw.token(&top), Some(want));
                top = TopLogits { ids: vec![want], logits: vec![logits[want as usize]] };
            }
            prop_assert_eq!(few.sample_top(&mut top, &history).unwrap(), want);
        }
    }

    #[test]
    fn penalty_matches_its_definition(
        logits in any_logits(), history in prop::collection::vec(0u32..50, 0..30), last in prop::option::of(0usize..40),
        penalty in 0.5f32..2.0,
    ) {
        let repeat_last_n = last.map_or(PenaltyWindow::All, PenaltyWindow::Last);
        let params = SamplingParams { repeat_penalty: penalty, repeat_last_n, temperature: 0.0, ..PLAIN };
        let window = last.map_or(&history[..], |n| &history[history.len() - n.min(history.len())..]);
        let mut want = logits.clone();
        for (id, logit) in want.iter_mut().enumerate() {
            if window.contains(&(id as u32)) {
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
        let mut sampler = Sampler::new(params, 0);
        for _ in 0..2 {
            let mut got = logits.clone();
            prop_assert_eq!(sampler.sample(&mut got, &history).unwrap(), ranked(&want)[0]);
            prop_assert_eq!(&got, &want);
        }
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [0.0, 2f32.ln(), 4f32.ln(), f32::NEG_INFINITY];
    for params in [PLAIN, SamplingParams { top_k: 4, ..PLAIN }] {
        let mut sampler = Sampler::new(params, 9);
        let mut counts = [0u32; 4];
        for _ in 0..70_000 {
            counts[sampler.sample(&mut logits.to_vec(), &[]).unwrap() as usize] += 1;
        }
        assert_eq!(counts[3], 0, "impossible tokens never come up");
        for (count, share) in counts.iter().zip([1.0, 2.0, 4.0]) {
            let want = 10_000.0 * share;
            assert!((f64::from(*count) - want).abs() < 0.03 * want, "{counts:?}");
        }
    }
}

#[test]
fn equals_go_to_the_lowest_id() {
    let mut greedy = Sampler::new(SamplingParams { temperature: 0.0, ..PLAIN }, 0);
    assert_eq!(greedy.sample(&mut [1.0, 3.0, 3.0, 3.0], &[]), Ok(1));
    assert_eq!(support(SamplingParams { top_k: 2, ..PLAIN }, &[3.0; 9], &[]), BTreeSet::from([0, 1]));
}

#[test]
fn extreme_parameters_keep_the_best_token() {
    let logits = [1.0, 5.0, 2.0, 4.9];
    let best = BTreeSet::from([1]);
    for params in [
        SamplingParams { top_p: 0.0, ..PLAIN },
        SamplingParams { top_k: 1, ..PLAIN },
        SamplingParams { min_p: 1.0, ..PLAIN },
        SamplingParams { temperature: 1e-30, ..PLAIN },
    ] {
        assert_eq!(support(params, &logits, &[]), best, "{params:?}");
    }
    let hot = SamplingParams { temperature: 1e30, ..PLAIN };
    assert_eq!(support(hot, &logits, &[]).len(), 4);
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    let mut sampler = Sampler::new(PLAIN, 0);
    assert!(matches!(
        sampler.sample(&mut [0.0, f32::NAN], &[]),
        Err(SamplingError::NotFinite { token: 1, .. })
    ));
    let infinite = sampler.sample(&mut [f32::INFINITY, 0.0], &[]);
    assert_eq!(infinite, Err(SamplingError::NotFinite { token: 0, value: f32::INFINITY }));
    let nothing = SamplingError::NothingPossible { count: 3 };
    assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY; 3], &[]), Err(nothing));
    assert!(sampler.sample(&mut [], &[]).is_err());
}

#[test]
fn a_seed_draws_the_same_tokens_forever() {
    let logits: Vec<f32> = (0..1000u32).map(|i| lanes::exp((i * 7919 % 1000) as f32 / 500.0)).collect();
    let params = SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, ..PLAIN };
    let draw = |seed| {
        let mut sampler = Sampler::new(params, seed);
        (0..8).map(|_| sampler.sample(&mut logits.clone(), &[]).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn requests_override_models_which_override_the_engine() {
    let model =
        GenerationDefaults { temperature: Some(0.7), top_k: Some(11), ..GenerationDefaults::default() };
    let own = SamplingOverrides { top_k: Some(5), seed: Some(3), ..SamplingOverrides::default() };
    let params = SamplingParams::resolve(&own, &model).unwrap();
    assert_eq!((params.temperature, params.top_k, params.top_p, params.seed), (0.7, 5, 0.95, Some(3)));
    let model = GenerationDefaults { do_sample: Some(false), ..model };
    assert_eq!(SamplingParams::resolve(&own, &model).unwrap().temperature, 0.0);
    let own = SamplingOverrides { temperature: Some(0.5), ..own };
    assert_eq!(SamplingParams::resolve(&own, &model).unwrap().temperature, 0.5);
}

#[test]
fn values_out_of_range_are_named() {
    let cases = [
        ("temperature", SamplingOverrides { temperature: Some(-1.0), ..Default::default() }),
        ("temperature", SamplingOverrides { temperature: Some(f32::NAN), ..Default::default() }),
        ("temperature", SamplingOverrides { temperature: Some(f32::INFINITY), ..Default::default() }),
        ("top_p", SamplingOverrides { top_p: Some(1.01), ..Default::default() }),
        ("top_p", SamplingOverrides { top_p: Some(f32::NAN), ..Default::default() }),
        ("min_p", SamplingOverrides { min_p: Some(-0.1), ..Default::default() }),
        ("repeat_penalty", SamplingOverrides { repeat_penalty: Some(0.0), ..Default::default() }),
        ("repeat_penalty", SamplingOverrides { repeat_penalty: Some(f32::NAN), ..Default::default() }),
    ];
    for (name, own) in cases {
        let error = SamplingParams::resolve(&own, &GenerationDefaults::default()).unwrap_err();
        assert_eq!(error.name, name, "{error}");
    }
}
