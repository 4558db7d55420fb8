//! Each step against its definition, written out naively in float64 over the whole vocabulary.
//!
//! A definition gives a distribution: a probability for each token, 0 where it cannot be drawn. The sampler is asked for
//! many tokens; what it draws must be possible, and come up about as often as it should.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitnet_text::{EncodeOptions, Tokenizer};

use super::*;

/// Tokens with their logits: the state of a naive sampler.
type Left = BTreeMap<usize, f64>;

fn probabilities_of(left: &Left, temperature: f64) -> BTreeMap<usize, f64> {
    let best = left.values().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Left = left.iter().map(|(&id, l)| (id, ((l - best) / temperature).exp())).collect();
    let z: f64 = weights.values().sum();
    weights.into_iter().map(|(id, w)| (id, w / z)).collect()
}

fn sorted(scores: &BTreeMap<usize, f64>) -> Vec<usize> {
    let mut ids: Vec<usize> = scores.keys().copied().collect();
    ids.sort_by(|a, b| scores[b].total_cmp(&scores[a]).then(a.cmp(b)));
    ids
}

/// The first of `ids` that reach `p` together.
fn prefix(ids: &[usize], probabilities: &BTreeMap<usize, f64>, p: f64) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut sum = 0.0;
    for &id in ids {
        kept.push(id);
        sum += probabilities[&id];
        if sum >= p {
            break;
        }
    }
    kept
}

fn seen(history: &[u32], id: usize, window: PenaltyWindow) -> usize {
    let from = match window {
        PenaltyWindow::All => 0,
        PenaltyWindow::Last(n) => history.len().saturating_sub(n),
    };
    history[from..].iter().filter(|&&t| t as usize == id).count()
}

/// For each token the longest end of the window that, followed by the token, occurs earlier in it: all lengths and all
/// places are tried.
fn repetitions(window: &[u32], breakers: &[u32]) -> BTreeMap<usize, usize> {
    let mut longest = BTreeMap::new();
    for next in 1..window.len() {
        for length in 1..=next {
            let end = &window[window.len() - length..];
            let repeated = &window[next - length..next] == end && !end.iter().any(|t| breakers.contains(t));
            if repeated && !breakers.contains(&window[next]) {
                let entry = longest.entry(window[next] as usize).or_insert(0);
                *entry = length.max(*entry);
            }
        }
    }
    longest
}

/// Penalties and DRY.
fn adjust(step: Step, left: &mut Left, history: &[u32], p: &SamplingParams) {
    if step == Step::Penalties {
        for (&id, l) in left {
            let count = seen(history, id, p.repeat_last_n);
            if count > 0 {
                let r = f64::from(p.repeat_penalty);
                *l = if *l < 0.0 { *l * r } else { *l / r };
                *l -= count as f64 * f64::from(p.frequency_penalty) + f64::from(p.presence_penalty);
            }
        }
        return;
    }
    let from = match p.dry_penalty_last_n {
        PenaltyWindow::All => 0,
        PenaltyWindow::Last(n) => history.len().saturating_sub(n),
    };
    for (id, length) in repetitions(&history[from..], &[]) {
        if let Some(l) = left.get_mut(&id).filter(|_| length >= p.dry_allowed_length) {
            let growth = f64::from(p.dry_base).powi((length - p.dry_allowed_length) as i32);
            *l -= f64::from(p.dry_multiplier) * growth;
        }
    }
}

fn entropy(probability: &BTreeMap<usize, f64>) -> f64 {
    -probability.values().map(|p| if *p > 0.0 { p * p.ln() } else { 0.0 }).sum::<f64>()
}

/// The temperature, fixed or dynamic.
fn temperature_of(probability: &BTreeMap<usize, f64>, p: &SamplingParams) -> f64 {
    let (middle, range) = (f64::from(p.temperature), f64::from(p.dynatemp_range));
    if range == 0.0 {
        return middle;
    }
    let n = probability.len();
    let share = if n > 1 { entropy(probability) / (n as f64).ln() } else { 0.0 };
    let low = (middle - range).max(0.0);
    low + (middle + range - low) * share.powf(f64::from(p.dynatemp_exponent))
}

/// The tokens that a cut keeps; `None` if it is off.
fn kept_by(
    step: Step,
    left: &Left,
    probability: &BTreeMap<usize, f64>,
    p: &SamplingParams,
) -> Option<Vec<usize>> {
    Some(match step {
        Step::TopNSigma if p.top_n_sigma > 0.0 => {
            let n = left.len() as f64;
            let mean = left.values().sum::<f64>() / n;
            let sigma = (left.values().map(|l| (l - mean).powi(2)).sum::<f64>() / n).sqrt();
            let best = left.values().copied().fold(f64::NEG_INFINITY, f64::max);
            left.keys().copied().filter(|id| left[id] >= best - f64::from(p.top_n_sigma) * sigma).collect()
        }
        Step::TopK if p.top_k > 0 => sorted(left).into_iter().take(p.top_k).collect(),
        Step::TypicalP if p.typical_p < 1.0 => {
            let entropy = entropy(probability);
            let near = probability.iter().map(|(&id, p)| (id, -(-p.ln() - entropy).abs())).collect();
            prefix(&sorted(&near), probability, f64::from(p.typical_p))
        }
        Step::TopP if p.top_p < 1.0 => prefix(&sorted(left), probability, f64::from(p.top_p)),
        Step::MinP if p.min_p > 0.0 => {
            let best = probability.values().copied().fold(0.0, f64::max);
            left.keys().copied().filter(|id| probability[id] >= f64::from(p.min_p) * best).collect()
        }
        Step::Xtc if p.xtc_probability > 0.0 => {
            let ids = sorted(left);
            let top = ids.iter().filter(|id| probability[id] >= f64::from(p.xtc_threshold)).count();
            ids[top.saturating_sub(1)..].to_vec()
        }
        _ => return None,
    })
}

/// The distributions that a step order gives; there are two where XTC acts, with their chances.
fn distributions(logits: &[f32], history: &[u32], p: &SamplingParams) -> Vec<(f64, BTreeMap<usize, f64>)> {
    let all = logits.iter().enumerate().filter(|(_, l)| l.is_finite());
    let mut left: Left = all.map(|(id, &l)| (id, f64::from(l))).collect();
    let mut temperature = 1.0;
    let mut without_xtc: Option<Left> = None;
    for &step in p.samplers.steps() {
        let probability = probabilities_of(&left, temperature);
        match step {
            Step::Penalties | Step::Dry => adjust(step, &mut left, history, p),
            Step::Temperature => temperature = temperature_of(&probability, p),
            _ => {
                if let Some(keep) = kept_by(step, &left, &probability, p) {
                    if step == Step::Xtc {
                        without_xtc = Some(left.clone());
                    }
                    left.retain(|id, _| keep.contains(id));
                }
            }
        }
    }
    // Tests with XTC have nothing but a fixed temperature behind it, so the two ways part at the end only.
    let chance = without_xtc.as_ref().map_or(1.0, |_| f64::from(p.xtc_probability));
    let mut out = vec![(chance, probabilities_of(&left, temperature))];
    if let Some(left) = without_xtc {
        out.push((1.0 - chance, probabilities_of(&left, temperature)));
    }
    out
}

/// How often a token is to be expected.
fn expected(logits: &[f32], history: &[u32], p: &SamplingParams) -> Vec<f64> {
    let mut sum = vec![0.0; logits.len()];
    for (chance, distribution) in distributions(logits, history, p) {
        for (id, probability) in distribution {
            sum[id] += chance * probability;
        }
    }
    sum
}

const DRAWS: usize = 3000;

/// Compares draws with a distribution: within six standard deviations, and nothing impossible.
fn agrees(sampler: &mut Sampler, logits: &[f32], history: &[u32], want: &[f64]) -> Result<(), TestCaseError> {
    let mut counts = vec![0usize; logits.len()];
    for _ in 0..DRAWS {
        counts[sampler.sample(&mut logits.to_vec(), history).unwrap() as usize] += 1;
    }
    for (id, (&count, &p)) in counts.iter().zip(want).enumerate() {
        let mean = p * DRAWS as f64;
        let slack = 6.0 * (mean * (1.0 - p)).max(0.0).sqrt() + if p > 0.0 { 3.0 } else { 0.0 };
        prop_assert!((count as f64 - mean).abs() <= slack, "token {id}: {count} draws, {mean:.1} expected");
    }
    Ok(())
}

/// Whether a cut lies within rounding of a token: such cases say nothing.
fn on_a_border(logits: &[f32], history: &[u32], p: &SamplingParams) -> bool {
    let support = |by: f32| {
        let unit = |v: f32| if v == 0.0 || v == 1.0 { v } else { (v * (1.0 + by)).clamp(0.0, 1.0) };
        let moved = SamplingParams {
            top_n_sigma: p.top_n_sigma * (1.0 + by),
            typical_p: unit(p.typical_p),
            top_p: unit(p.top_p),
            min_p: unit(p.min_p),
            xtc_threshold: unit(p.xtc_threshold),
            ..*p
        };
        let sets = distributions(logits, history, &moved);
        sets.into_iter().map(|(_, d)| d.into_keys().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    support(1e-4) != support(-1e-4)
}

fn check_step(p: SamplingParams, logits: &[f32], history: &[u32], seed: u64) -> Result<(), TestCaseError> {
    prop_assume!(!on_a_border(logits, history, &p));
    p.validate().unwrap();
    agrees(&mut Sampler::new(p, seed), logits, history, &expected(logits, history, &p))
}

fn some_history() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0u32..6, 0..40)
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn dynamic_temperature(logits in any_logits(), t in 0.2f32..2.0, range in 0.1f32..2.0, exponent in 0.3f32..3.0, seed: u64) {
        let p = SamplingParams { temperature: t, dynatemp_range: range, dynatemp_exponent: exponent, ..PLAIN };
        check_step(p, &logits, &[], seed)?;
    }

    #[test]
    fn top_n_sigma(logits in any_logits(), n in 0.05f32..4.0, seed: u64) {
        check_step(SamplingParams { top_n_sigma: n, ..PLAIN }, &logits, &[], seed)?;
    }

    #[test]
    fn typical(logits in any_logits(), typical_p in 0.0f32..1.0, t in 0.4f32..2.0, seed: u64) {
        check_step(SamplingParams { typical_p, temperature: t, ..PLAIN }, &logits, &[], seed)?;
    }

    #[test]
    fn xtc(logits in any_logits(), probability in 0.0f32..=1.0, threshold in 0.01f32..0.5, seed: u64) {
        let p = SamplingParams { xtc_probability: probability, xtc_threshold: threshold, temperature: 0.7, ..PLAIN };
        check_step(p, &logits, &[], seed)?;
        check_step(SamplingParams { samplers: SamplerOrder::LLAMA, ..p }, &logits, &[], seed)?;
    }

    #[test]
    fn penalties(
        logits in any_logits(), history in some_history(), repeat in 0.5f32..2.0, presence in -1.0f32..2.0,
        frequency in -0.2f32..0.5, last in prop::option::of(0usize..50), seed: u64,
    ) {
        let p = SamplingParams {
            repeat_penalty: repeat, presence_penalty: presence, frequency_penalty: frequency,
            repeat_last_n: last.map_or(PenaltyWindow::All, PenaltyWindow::Last), ..PLAIN
        };
        check_step(p, &logits, &history, seed)?;
    }

    #[test]
    fn dry(
        logits in any_logits(), history in prop::collection::vec(0u32..3, 0..60), multiplier in 0.0f32..2.0,
        base in 1.0f32..2.0, allowed in 1usize..5, last in prop::option::of(0usize..50), seed: u64,
    ) {
        let p = SamplingParams {
            dry_multiplier: multiplier, dry_base: base, dry_allowed_length: allowed,
            dry_penalty_last_n: last.map_or(PenaltyWindow::All, PenaltyWindow::Last), ..PLAIN
        };
        check_step(p, &logits, &history, seed)?;
    }

    #[test]
    fn any_order_of_the_steps(
        logits in any_logits(), history in some_history(), steps in Just(Step::ALL.to_vec()).prop_shuffle(), len in 0usize..=9,
        (k, typical_p, top_p, min_p, n) in (0usize..30, 0.3f32..=1.0, 0.3f32..=1.0, 0.0f32..0.4, 0.0f32..4.0),
        (t, range, repeat, multiplier) in (0.4f32..1.6, prop::sample::select(vec![0.0f32, 0.4]), 0.8f32..1.5, 0.0f32..0.5),
        seed: u64,
    ) {
        let p = SamplingParams {
            samplers: SamplerOrder::new(steps.into_iter().take(len)).unwrap(), top_k: k, typical_p, top_p, min_p, top_n_sigma: n,
            temperature: t, dynatemp_range: range, repeat_penalty: repeat, presence_penalty: 0.1, dry_multiplier: multiplier, ..PLAIN
        };
        check_step(p, &logits, &history, seed)?;
    }

    #[test]
    fn bias(logits in any_logits(), bias in prop::collection::vec((0u32..45, -3.0f32..3.0), 0..8), banned in 0u32..45, seed: u64) {
        let mut changed = logits.clone();
        for (id, logit) in changed.iter_mut().enumerate() {
            *logit += bias.iter().filter(|b| b.0 as usize == id).map(|b| b.1).sum::<f32>();
            if id == banned as usize {
                *logit = f32::NEG_INFINITY;
            }
        }
        let mut sampler = Sampler::new(PLAIN, seed).with_bias(bias).with_bias([(banned, f32::NEG_INFINITY)]);
        agrees(&mut sampler, &logits, &[], &expected(&changed, &[], &PLAIN))?;
    }

    #[test]
    fn mirostat_keeps_what_its_definition_keeps(logits in any_logits(), tau in 0.5f32..6.0, eta in 0.0f32..=1.0, t in 0.5f32..1.5, seed: u64) {
        for version in [Mirostat::V1, Mirostat::V2] {
            let p = SamplingParams { mirostat: version, mirostat_tau: tau, mirostat_eta: eta, temperature: t, top_k: 1, ..PLAIN };
            let mut sampler = Sampler::new(p, seed);
            let mut bound = 2.0 * f64::from(tau);
            let q = probabilities(&logits, t);
            let ids = ranked(&logits);
            for _ in 0..60 {
                let allowed = match version {
                    Mirostat::V2 => q.iter().filter(|p| -p.log2() <= bound).count().max(1),
                    _ => zipf(&ids.iter().map(|&id| q[id as usize]).collect::<Vec<_>>(), bound),
                };
                let id = sampler.sample(&mut logits.clone(), &[]).unwrap();
                let rank = ids.iter().position(|&other| other == id).unwrap();
                // One token more or less is rounding at the border.
                prop_assert!(rank <= allowed, "{version:?}: rank {rank}, {allowed} allowed");
                bound -= f64::from(eta) * (-q[id as usize].log2() - f64::from(tau));
                prop_assert!((sampler.state() - bound).abs() < 1e-3 * (1.0 + bound.abs()), "{} {bound}", sampler.state());
            }
        }
    }

    #[test]
    fn few_logits_give_the_token_that_all_give_with_every_step(
        values in prop::collection::vec(-30i8..30, 200..400), history in prop::collection::vec(0u32..30, 0..30), seed: u64,
        steps in Just(Step::ALL.to_vec()).prop_shuffle(), top_k in 1usize..20, temperature in prop::sample::select(vec![0.0f32, 0.7]),
        (presence, dynatemp, sigma, xtc) in prop::sample::select(vec![(0.4f32, 0.0f32, 0.0f32, 0.5f32), (0.0, 0.3, 2.0, 0.0), (-0.1, 0.0, 0.0, 0.0)]),
        bias in prop::collection::vec((0u32..200, -4.0f32..0.0), 0..5),
    ) {
        let logits: Vec<f32> = values.iter().enumerate().map(|(i, &v)| f32::from(v) / 4.0 + i as f32 * 1e-4).collect();
        let p = SamplingParams {
            top_k, temperature, presence_penalty: presence, frequency_penalty: 0.05, dry_multiplier: 0.8, dynatemp_range: dynatemp, top_n_sigma: sigma,
            xtc_probability: xtc, top_p: 0.9, typical_p: 0.9, samplers: SamplerOrder::new(steps).unwrap(), ..PLAIN
        };
        let make = || Sampler::new(p, seed).with_bias(bias.clone());
        let (mut all, mut few) = (make(), make());
        let Some(k) = few.decisive(&history, logits.len()) else { return Ok(()) };
        for _ in 0..8 {
            let mut ids = ranked(&logits);
            ids.truncate(k);
            ids.sort_unstable();
            let mut top = TopLogits { logits: ids.iter().map(|&id| logits[id as usize]).collect(), ids };
            if let Some(draw) = few.ahead() {
                let token = draw.token(&top).unwrap();
                top = TopLogits { ids: vec![token], logits: vec![logits[token as usize]] };
            }
            prop_assert_eq!(few.sample_top(&mut top, &history).unwrap(), all.sample(&mut logits.clone(), &history).unwrap());
        }
    }
}

/// The paper's estimate of how many tokens a cross entropy of `bound` bits takes; `p` falls.
fn zipf(p: &[f64], bound: f64) -> usize {
    let pairs = p.len().min(100) - 1;
    let t = |i: usize| ((i + 2) as f64 / (i + 1) as f64).ln();
    let above: f64 = (0..pairs).map(|i| t(i) * (p[i] / p[i + 1]).ln()).sum();
    let below: f64 = (0..pairs).map(|i| t(i) * t(i)).sum();
    let s = above / below;
    let e = s - 1.0;
    let k = (e * bound.exp2() / (1.0 - (p.len() as f64).powf(-e))).powf(1.0 / s);
    k.round().clamp(1.0, p.len() as f64) as usize
}

#[test]
fn mirostat_reaches_its_surprise() {
    let logits: Vec<f32> = (0..4000u32).map(|i| -1.1 * ((1 + i * 7 % 4000) as f32).ln()).collect();
    let p = probabilities(&logits, 1.0);
    for (version, tau) in [(Mirostat::V1, 3.0), (Mirostat::V2, 3.0), (Mirostat::V1, 5.0), (Mirostat::V2, 5.0)]
    {
        let params = SamplingParams { mirostat: version, mirostat_tau: tau, ..PLAIN };
        let mut sampler = Sampler::new(params, 11);
        let bits = |_| -p[sampler.sample(&mut logits.clone(), &[]).unwrap() as usize].log2();
        let mean = (0..1500).map(bits).sum::<f64>() / 1500.0;
        assert!((mean - f64::from(tau)).abs() < 0.3, "{version:?}: {mean} bits instead of {tau}");
    }
}

#[test]
fn edge_cases_give_a_possible_token_and_the_same_one_for_a_seed() {
    let rows: [Vec<f32>; 6] = [
        vec![2.5; 40],
        vec![7.0],
        vec![f32::NEG_INFINITY, -3.0, f32::NEG_INFINITY, -3.0],
        vec![f32::NEG_INFINITY, 0.0],
        vec![f32::MAX, f32::MIN, 0.0, 1e30],
        (0..500).map(|i| (i % 7) as f32).collect(),
    ];
    let every = |v: f32| SamplingParams {
        top_p: v,
        typical_p: v,
        min_p: v,
        xtc_probability: v,
        xtc_threshold: v * 0.5,
        top_n_sigma: v,
        top_k: 3,
        dynatemp_range: v,
        repeat_penalty: 1.5,
        presence_penalty: v,
        frequency_penalty: v,
        dry_multiplier: v,
        ..PLAIN
    };
    let mut sets = vec![PLAIN, every(0.0), every(1.0), every(1e-30), SamplingParams { top_k: 1000, ..PLAIN }];
    for p in [every(0.0), every(1.0)] {
        sets.extend([
            SamplingParams { samplers: SamplerOrder::LLAMA, ..p },
            SamplingParams { samplers: "".parse().unwrap(), ..p },
            SamplingParams { temperature: 0.0, ..p },
            SamplingParams { temperature: 1e-30, ..p },
            SamplingParams { temperature: 1e30, top_k: 0, ..p },
            SamplingParams { mirostat: Mirostat::V1, ..p },
            SamplingParams { mirostat: Mirostat::V2, mirostat_tau: 0.0, mirostat_eta: 1.0, ..p },
            SamplingParams { repeat_penalty: 1e-30, ..p },
            SamplingParams { dry_multiplier: 1e6, dry_base: 1e30, dry_allowed_length: 1, ..p },
        ]);
    }
    let history = [0, 1, 0, 1, 0, 1, 900_000];
    for p in &sets {
        p.validate().unwrap();
        for row in &rows {
            let draw = || {
                let mut sampler = Sampler::new(*p, 3);
                (0..20).map(|_| sampler.sample(&mut row.clone(), &history).unwrap()).collect::<Vec<_>>()
            };
            let drawn = draw();
            assert_eq!(drawn, draw(), "{p:?}");
            assert!(drawn.iter().all(|&id| row[id as usize] > f32::NEG_INFINITY), "{p:?} {row:?}: {drawn:?}");
        }
        let nothing = Sampler::new(*p, 3).sample(&mut [f32::NEG_INFINITY; 4], &history);
        assert_eq!(nothing, Err(SamplingError::NothingPossible { count: 4 }), "{p:?}");
    }
}

#[test]
fn excluded_tokens_come_back_when_they_are_allowed() {
    let mut sampler = Sampler::new(SamplingParams { temperature: 0.0, ..PLAIN }, 0);
    sampler.exclude([2].into_iter());
    assert_eq!(sampler.sample(&mut [0.0, 1.0, 2.0], &[]), Ok(1));
    sampler.exclude(std::iter::empty());
    assert_eq!(sampler.sample(&mut [0.0, 1.0, 2.0], &[]), Ok(2));
}

fn tokenizer() -> Arc<Tokenizer> {
    let files = bitnet_tiny::files();
    let json = files.iter().find(|f| f.0 == "tokenizer.json").unwrap().1;
    Arc::new(Tokenizer::from_json(json, "tokenizer.json").unwrap())
}

#[test]
fn repetitions_end_at_sequence_breakers() {
    let tokenizer = tokenizer();
    let plain = EncodeOptions { add_bos: false, parse_special: false };
    let encode = |text: &str| tokenizer.encode(text, plain).unwrap();
    // The text ends in "the sea" as before, where " was" followed.
    let story = encode("One day the sea was calm. One day the sea");
    let was = encode(" was")[0];
    let logits = vec![0.0f32; tokenizer.vocab_size()];
    let p = SamplingParams { dry_multiplier: 1.0, dry_base: 2.0, dry_allowed_length: 1, ..PLAIN };
    let penalty = |breakers: &[&str]| {
        let strings: Vec<String> = breakers.iter().map(|&s| s.to_owned()).collect();
        let mut sampler = Sampler::new(p, 0).with_sequence_breakers(&strings, &tokenizer);
        let mut row = logits.clone();
        sampler.sample(&mut row, &story).unwrap();
        -row[was as usize]
    };
    let whole = penalty(&[]);
    let free = penalty(&["\n"]);
    assert!(whole >= 4.0 && free == whole, "{whole} {free}");
    assert!(penalty(&["day"]) < whole, "a token with the breaker ends the repetition");
    assert!(penalty(&["y th"]) < whole && penalty(&["y th"]) > 0.0, "and so does one over two tokens");
    assert_eq!(penalty(&["sea"]), 0.0, "nothing is repeated right after a breaker");
    assert_eq!(penalty(&["was"]), 0.0, "a breaker itself is never punished");
}

#[test]
fn texts_are_biased_by_their_tokens() {
    let tokenizer = tokenizer();
    let vocab = tokenizer.vocab_size();
    let resolve = |list: &[LogitBias]| LogitBias::resolve(list, vocab, || Ok(&*tokenizer));
    let text = |text: &str, bias| LogitBias { target: BiasTarget::Text(text.to_owned()), bias };
    let token = |token, bias| LogitBias { target: BiasTarget::Token(token), bias };
    let got = resolve(&[text(" the", 2.0), token(7, -1.0), token(7, 0.5)]).unwrap();
    let the = tokenizer.token_id("\u{120}the").unwrap();
    assert_eq!(got, [(7, -0.5), (the, 2.0)]);
    for bad in [token(vocab as u32, 1.0), token(1, f32::NAN), token(1, f32::INFINITY), text("", 1.0)] {
        let error = resolve(std::slice::from_ref(&bad)).unwrap_err().to_string();
        assert!(error.contains("logit_bias"), "{error}");
    }
}

#[test]
fn new_values_out_of_range_are_named() {
    let own = SamplingOverrides::default;
    let nan = Some(f32::NAN);
    let cases = [
        ("presence_penalty", SamplingOverrides { presence_penalty: Some(101.0), ..own() }),
        ("frequency_penalty", SamplingOverrides { frequency_penalty: nan, ..own() }),
        ("dry_multiplier", SamplingOverrides { dry_multiplier: Some(-0.1), ..own() }),
        ("dry_base", SamplingOverrides { dry_base: Some(0.9), ..own() }),
        ("dry_allowed_length", SamplingOverrides { dry_allowed_length: Some(0), ..own() }),
        ("dynatemp_range", SamplingOverrides { dynatemp_range: nan, ..own() }),
        ("dynatemp_exponent", SamplingOverrides { dynatemp_exponent: Some(0.0), ..own() }),
        ("top_n_sigma", SamplingOverrides { top_n_sigma: Some(-1.0), ..own() }),
        ("typical_p", SamplingOverrides { typical_p: Some(1.1), ..own() }),
        ("xtc_probability", SamplingOverrides { xtc_probability: Some(-1.0), ..own() }),
        ("xtc_threshold", SamplingOverrides { xtc_threshold: nan, ..own() }),
        ("mirostat_tau", SamplingOverrides { mirostat_tau: Some(f32::INFINITY), ..own() }),
        ("mirostat_eta", SamplingOverrides { mirostat_eta: Some(2.0), ..own() }),
    ];
    for (name, own) in cases {
        let error = SamplingParams::resolve(&own, &GenerationDefaults::default()).unwrap_err();
        assert_eq!(error.name, name, "{error}");
    }
}
