//! [`Sampler`]: draws one token after the other for one request.

use std::sync::Arc;

use bitnet_core::lanes;
use bitnet_model::{Draw, DrawStep, TokenSet, TopLogits};
use bitnet_text::Tokenizer;

use super::bias;
use super::candidates::{Candidate, Pool};
use super::custom::CustomSampler;
use super::dry::{Breakers, Dry};
use super::logprobs::Recorder;
use super::mirostat::Control;
use super::penalties::{self, Tally};
use super::places::Places;
use super::{LogprobsAt, Mirostat, Rng, SamplingParams, Step};
use crate::grammar::Mask;

/// Logits from which no token can be drawn.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SamplingError {
    /// A logit that is no number or infinitely large.
    #[error("the logit of token {token} is {value}; the model file is damaged")]
    NotFinite {
        /// The token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// A custom sampler chose a token that is excluded, or that there is not.
    #[error("the custom sampler chose token {token}, which is excluded here or outside the vocabulary")]
    BadChoice {
        /// The token.
        token: u32,
    },
    /// Every token is excluded, or there is none.
    #[error(
        "no token is possible: all {count} logits are minus infinity, by the model, by logit_bias, by banned strings or by a constraint"
    )]
    NothingPossible {
        /// Logits there were.
        count: usize,
    },
}

/// Turns logits into tokens by [`SamplingParams`]; one for each request.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    /// The steps that do something, in their order.
    steps: Vec<Step>,
    rng: Rng,
    /// By token, ascending.
    bias: Vec<(u32, f32)>,
    /// Tokens that the next draw must not give.
    excluded: Vec<u32>,
    /// The tokens that the next draw may give, if not all.
    allowed: Option<Mask>,
    pool: Pool,
    tally: Tally,
    dry: Dry,
    control: Control,
    fitted: Vec<Candidate>,
    recorder: Option<Recorder>,
    custom: Option<CustomSampler>,
}

/// The steps of `params` that do something.
fn acting(p: &SamplingParams) -> Vec<Step> {
    let greedy = p.temperature == 0.0;
    let cuts = !greedy && p.mirostat == Mirostat::Off;
    let acts = |step: &Step| match step {
        Step::Penalties => penalties::act(p),
        Step::Dry => p.dry_multiplier > 0.0,
        Step::Temperature => !greedy && (p.temperature != 1.0 || p.dynatemp_range > 0.0),
        Step::TopNSigma => cuts && p.top_n_sigma > 0.0,
        Step::TopK => cuts && p.top_k > 0,
        Step::TypicalP => cuts && p.typical_p < 1.0,
        Step::TopP => cuts && p.top_p < 1.0,
        Step::MinP => cuts && p.min_p > 0.0,
        Step::Xtc => cuts && p.xtc_probability > 0.0 && p.xtc_threshold <= 0.5,
    };
    p.samplers.steps().iter().copied().filter(acts).collect()
}

impl Sampler {
    /// Starts at the first draw of `seed`; `params` must be [valid](SamplingParams::validate).
    pub fn new(params: SamplingParams, seed: u64) -> Self {
        Self {
            steps: acting(&params),
            rng: Rng::new(seed),
            bias: Vec::new(),
            excluded: Vec::new(),
            allowed: None,
            pool: Pool::default(),
            tally: Tally::default(),
            dry: Dry::default(),
            control: Control::new(&params),
            fitted: Vec::new(),
            recorder: None,
            custom: None,
            params,
        }
    }

    /// Adds numbers to the logits of tokens, before all else; of a token named twice the sum counts. Minus infinity
    /// excludes a token. The numbers must be less than infinite and no NaN.
    #[must_use]
    pub fn with_bias(mut self, bias: impl IntoIterator<Item = (u32, f32)>) -> Self {
        self.bias.extend(bias);
        self.bias = bias::summed(std::mem::take(&mut self.bias));
        self
    }

    /// Makes repetitions end at tokens in which one of these strings ends, for DRY.
    #[must_use]
    pub fn with_sequence_breakers(mut self, strings: &[String], tokenizer: &Arc<Tokenizer>) -> Self {
        if self.steps.contains(&Step::Dry) {
            self.dry.set_breakers(Breakers::new(strings, Arc::clone(tokenizer)));
        }
        self
    }

    /// Takes down the log probability of each token drawn and of so many of the most probable ones. Needs all logits.
    #[must_use]
    pub fn with_logprobs(mut self, alternatives: usize) -> Self {
        self.recorder = Some(Recorder::new(alternatives));
        self
    }

    /// Lets a function choose, or change logits behind bias and exclusions. Needs all logits.
    #[must_use]
    pub fn with_custom(mut self, custom: CustomSampler) -> Self {
        self.custom = Some(custom);
        self
    }

    /// Makes room for texts of `tokens` tokens, so that no draw allocates for a longer history.
    pub fn reserve(&mut self, tokens: usize) {
        if self.steps.contains(&Step::Penalties) {
            self.tally.reserve(tokens);
        }
        if self.steps.contains(&Step::Dry) {
            self.dry.reserve(tokens);
        }
    }

    /// The log probabilities of the last draw, if they are [taken down](Self::with_logprobs).
    pub fn last_logprobs(&self) -> Option<LogprobsAt<'_>> {
        self.recorder.as_ref().map(Recorder::last)
    }

    /// Begins anew with the first draw of `seed`.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }

    /// Whether the best token is always taken.
    pub(crate) fn is_greedy(&self) -> bool {
        self.params.temperature == 0.0
    }

    /// How many alternatives are taken down.
    pub(crate) fn alternatives(&self) -> usize {
        self.recorder.as_ref().map_or(0, Recorder::alternatives)
    }

    /// Forbids these tokens, and no others, from now on.
    pub(crate) fn exclude(&mut self, tokens: impl Iterator<Item = u32>) {
        self.excluded.clear();
        self.excluded.extend(tokens);
    }

    /// Allows these tokens, and no others, from now on; `None`: all.
    pub(crate) fn allow(&mut self, mask: Option<&Mask>) {
        match (&mut self.allowed, mask) {
            (Some(allowed), Some(mask)) => allowed.clone_from(mask),
            (allowed, mask) => *allowed = mask.cloned(),
        }
    }

    /// What the draws so far have changed, other than the random numbers.
    pub(crate) fn state(&self) -> f64 {
        self.control.bound
    }

    /// Goes back to a state. The random numbers go on.
    pub(crate) fn restore(&mut self, state: f64) {
        self.control.bound = state;
    }

    /// The tokens that the next draw may give, if not all.
    pub(crate) fn allowed(&self) -> Option<TokenSet<'_>> {
        self.allowed.as_ref().map(Mask::as_set)
    }

    /// How many of the largest logits, of the tokens that are allowed, decide the next token after `history`, if these are
    /// few among `vocab_size`: so many must [`sample_top`](Self::sample_top) be given. `None`: it takes all logits.
    pub fn decisive(&mut self, history: &[u32], vocab_size: usize) -> Option<usize> {
        if self.recorder.is_some() || self.custom.is_some() {
            return None;
        }
        let ranked = self.decisive_ranks(history, vocab_size);
        let allowed = self.allowed.as_ref().map(Mask::count).filter(|count| *count < vocab_size / 8);
        ranked.into_iter().chain(allowed).min()
    }

    /// How many of the largest logits decide, if a few do whatever the values of the others are.
    fn decisive_ranks(&mut self, history: &[u32], vocab_size: usize) -> Option<usize> {
        let p = &self.params;
        if self.bias.iter().any(|bias| bias.1 > 0.0) {
            return None;
        }
        // Bias and exclusion lower logits, so at worst each of these tokens drops out of the best.
        let mut lowered = self.bias.len() + self.excluded.len();
        let mut kept = (p.temperature == 0.0).then_some(1);
        for step in &self.steps {
            match step {
                Step::Penalties if penalties::lift(p) => return None,
                Step::Penalties => lowered += self.tally.distinct(p, history, vocab_size),
                Step::Dry => lowered += self.dry.count(p, history),
                // A fixed temperature changes no ranks; the entropy is one of all.
                Step::Temperature if p.dynatemp_range == 0.0 => {}
                Step::TopK => {
                    kept = Some(p.top_k);
                    break;
                }
                _ => return None,
            }
        }
        // Mirostat has no top-k among its steps: `kept` is `None` then.
        kept.map(|kept| kept.saturating_add(lowered)).filter(|k| *k < vocab_size / 2)
    }

    /// The next draw, if the largest logits decide it and nothing acts on them but temperature, top-p and min-p: whoever
    /// finds these logits can make it. [`sample_top`](Self::sample_top) of the token drawn, alone, is that token, and
    /// leaves everything as if it had drawn. `None` where temperature 0 takes the best: that is no work.
    pub(crate) fn ahead(&self) -> Option<Draw> {
        let free = self.bias.is_empty() && self.excluded.is_empty() && self.allowed.is_none();
        let plain = self.recorder.is_none() && self.custom.is_none() && self.params.mirostat == Mirostat::Off;
        if !free || !plain || self.params.temperature == 0.0 {
            return None;
        }
        let (mut steps, mut count, mut ranked) = ([None; 3], 0, false);
        for step in &self.steps {
            let acts = match step {
                Step::TopK => {
                    ranked = true;
                    continue;
                }
                Step::Temperature if self.params.dynatemp_range == 0.0 => {
                    DrawStep::Temperature(self.params.temperature)
                }
                Step::TopP if ranked => DrawStep::TopP(self.params.top_p),
                Step::MinP if ranked => DrawStep::MinP(self.params.min_p),
                _ => return None,
            };
            *steps.get_mut(count)? = Some(acts);
            count += 1;
        }
        ranked.then(|| Draw { k: self.params.top_k, steps, number: self.rng.clone().next_f64() })
    }

    /// Draws the token that follows `history` (prompt and generated tokens) from its `logits`, `[vocab_size]`, which
    /// bias and penalties change in place. Uses up random numbers if and only if the temperature is not 0: one for the
    /// draw, and before it one for XTC while that acts.
    ///
    /// # Errors
    /// [`SamplingError`] if a logit is NaN or infinite, or none is possible. Minus infinity marks impossible tokens.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, SamplingError> {
        let places = Places::All(logits.len());
        check(logits, places)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.see(logits);
        }
        let token = places.token(self.draw(logits, history, places)?);
        if let Some(recorder) = &mut self.recorder {
            recorder.choose(token);
        }
        Ok(token)
    }

    /// As [`sample`](Self::sample), with the same result, from the [decisive](Self::decisive) logits alone. Log
    /// probabilities are not taken down.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn sample_top(&mut self, top: &mut TopLogits, history: &[u32]) -> Result<u32, SamplingError> {
        let places = Places::Some(&top.ids);
        check(&top.logits, places)?;
        let place = self.draw(&mut top.logits, history, places)?;
        Ok(places.token(place))
    }

    /// Draws a place among `logits`.
    fn draw(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        places: Places<'_>,
    ) -> Result<usize, SamplingError> {
        if let Some(allowed) = &self.allowed {
            for (place, logit) in logits.iter_mut().enumerate() {
                if !allowed.contains(places.token(place)) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        for &(token, bias) in &self.bias {
            if let Some(place) = places.of(token) {
                logits[place] += bias;
            }
        }
        for place in self.excluded.iter().filter_map(|&token| places.of(token)) {
            logits[place] = f32::NEG_INFINITY;
        }
        if let Some(custom) = &self.custom {
            if let Some(token) = custom.choose(logits, history) {
                return match logits.get(token as usize) {
                    Some(&logit) if logit > f32::NEG_INFINITY => Ok(token as usize),
                    _ => Err(SamplingError::BadChoice { token }),
                };
            }
            check(logits, places)?;
        }
        self.pool.begin();
        for i in 0..self.steps.len() {
            self.step(self.steps[i], logits, history, places);
        }
        let nothing = SamplingError::NothingPossible { count: logits.len() };
        if self.params.temperature == 0.0 {
            return best_of(logits).ok_or(nothing);
        }
        self.pool.fill(logits);
        let u = self.rng.next_f64();
        let drawn = match self.params.mirostat {
            Mirostat::Off => self.pool.draw(u),
            _ => self.control.draw(&self.params, &mut self.pool, &mut self.fitted, u),
        };
        drawn.map(|c| c.place).ok_or(nothing)
    }

    /// Lets one step act: on the logits while no candidates were chosen among them, then on the candidates.
    fn step(&mut self, step: Step, logits: &mut [f32], history: &[u32], places: Places<'_>) {
        let (p, pool) = (&self.params, &mut self.pool);
        match step {
            Step::Penalties if pool.is_filled() => self.tally.punish_pool(p, history, pool, places),
            Step::Penalties => self.tally.punish(p, history, logits, places),
            Step::Dry if pool.is_filled() => self.dry.punish_pool(p, history, pool, places),
            Step::Dry => self.dry.punish(p, history, logits, places),
            Step::TopK => pool.top_k(logits, p.top_k),
            Step::Temperature if p.dynatemp_range == 0.0 => pool.set_temperature(p.temperature),
            Step::Temperature => {
                pool.fill(logits);
                pool.dynamic_temperature(p.temperature, p.dynatemp_range, p.dynatemp_exponent);
            }
            Step::TopNSigma => {
                pool.fill(logits);
                pool.top_n_sigma(p.top_n_sigma);
            }
            Step::TypicalP => {
                pool.fill(logits);
                pool.typical(p.typical_p);
            }
            Step::TopP => {
                pool.fill(logits);
                pool.top_p(p.top_p);
            }
            Step::MinP => {
                pool.fill(logits);
                pool.min_p(p.min_p);
            }
            Step::Xtc => {
                pool.fill(logits);
                if self.rng.next_f64() < f64::from(p.xtc_probability) {
                    pool.exclude_top(p.xtc_threshold);
                }
            }
        }
    }
}

/// Refuses NaN and plus infinity, and rows in which nothing is possible.
fn check(logits: &[f32], places: Places<'_>) -> Result<(), SamplingError> {
    let fine = |l: f32| l < f32::INFINITY;
    // Without an early exit this pass vectorises; the offender is looked for only when there is one.
    if !logits.iter().fold(true, |all, &l| all & fine(l)) {
        let place = logits.iter().position(|&l| !fine(l)).unwrap_or(0);
        return Err(SamplingError::NotFinite { token: places.token(place), value: logits[place] });
    }
    Ok(())
}

/// The first place with the greatest logit; `None` if all are minus infinity.
fn best_of(logits: &[f32]) -> Option<usize> {
    let best = lanes::max(logits);
    logits.iter().position(|&l| l == best && best > f32::NEG_INFINITY)
}
