//! [`Sampler`]: draws one token after the other for one request.

use bitnet_core::lanes;

use super::candidates::{self, Candidate};
use super::{PenaltyWindow, Rng, SamplingParams};

/// Logits from which no token can be drawn.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SamplingError {
    /// A logit that is no number or infinitely large.
    #[error("the logit of token {token} is {value}; the model file is damaged")]
    NotFinite {
        /// The token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// Every token is excluded, or there is none.
    #[error("no token is possible: all {vocab_size} logits are minus infinity")]
    NothingPossible {
        /// Logits there were.
        vocab_size: usize,
    },
}

/// How many candidates top-p looks at first when top-k does not bound them.
const FIRST_LOOK: usize = 256;

/// Turns logits into tokens by [`SamplingParams`]; one for each request.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: Rng,
    candidates: Vec<Candidate>,
    /// One bit a token: already punished in this step. All zero between steps.
    punished: Vec<u64>,
}

impl Sampler {
    /// Starts at the first draw of `seed`; `params` must be [valid](SamplingParams::validate).
    pub fn new(params: SamplingParams, seed: u64) -> Self {
        Self { params, rng: Rng::new(seed), candidates: Vec::new(), punished: Vec::new() }
    }

    /// Draws the token that follows `history` (prompt and generated tokens) from its `logits`, `[vocab_size]`, which
    /// the repetition penalty changes in place. Uses up one random number if and only if the temperature is not 0.
    ///
    /// # Errors
    /// [`SamplingError`] if a logit is NaN or infinite, or none is possible. Minus infinity marks impossible tokens.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, SamplingError> {
        check(logits)?;
        self.punish(logits, history);
        let nothing = SamplingError::NothingPossible { vocab_size: logits.len() };
        let (best_id, best) = best_of(logits).ok_or(nothing)?;
        let p = &self.params;
        if p.temperature == 0.0 {
            return Ok(best_id);
        }
        if p.top_k > 0 {
            candidates::top_k(logits, p.top_k.min(logits.len()), &mut self.candidates);
            candidates::set_weights(&mut self.candidates, best, p.temperature);
            self.keep_top_p();
        } else if p.top_p < 1.0 {
            self.top_p_of_all(logits, best);
        } else {
            candidates::all(logits, &mut self.candidates);
            candidates::set_weights(&mut self.candidates, best, p.temperature);
        }
        let min_p = self.params.min_p;
        if min_p > 0.0 {
            // The best token's weight is exp(0) = 1, so a weight is the share of the best token's probability.
            self.candidates.retain(|c| c.weight >= min_p);
        }
        Ok(candidates::draw(&self.candidates, self.rng.next_f64()).unwrap_or(best_id))
    }

    /// Repetition penalty: once for each token of the window, however often it occurs there.
    fn punish(&mut self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.params.repeat_penalty;
        let window = match self.params.repeat_last_n {
            PenaltyWindow::All => history,
            PenaltyWindow::Last(n) => &history[history.len().saturating_sub(n)..],
        };
        if penalty == 1.0 || window.is_empty() {
            return;
        }
        self.punished.resize(logits.len().div_ceil(64), 0);
        for &token in window {
            let token = token as usize;
            let Some(logit) = logits.get_mut(token) else { continue };
            let (word, bit) = (&mut self.punished[token / 64], 1 << (token % 64));
            if *word & bit == 0 {
                *word |= bit;
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
        for &token in window {
            if let Some(word) = self.punished.get_mut(token as usize / 64) {
                *word = 0;
            }
        }
    }

    /// Top-p among candidates that are sorted and weighed.
    fn keep_top_p(&mut self) {
        if self.params.top_p < 1.0 {
            let target = f64::from(self.params.top_p) * candidates::total(&self.candidates);
            let last = candidates::reach(&self.candidates, target).unwrap_or(self.candidates.len());
            self.candidates.truncate(last + 1);
        }
    }

    /// Top-p among the whole vocabulary: sorts only as many of the best as it takes.
    fn top_p_of_all(&mut self, logits: &[f32], best: f32) {
        let temperature = self.params.temperature;
        let weigh = |l: &f32| f64::from(candidates::weight(*l, best, temperature));
        let target = f64::from(self.params.top_p) * logits.iter().map(weigh).sum::<f64>();
        let mut look = FIRST_LOOK;
        loop {
            candidates::top_k(logits, look.min(logits.len()), &mut self.candidates);
            candidates::set_weights(&mut self.candidates, best, temperature);
            if let Some(last) = candidates::reach(&self.candidates, target) {
                self.candidates.truncate(last + 1);
                return;
            }
            if look >= logits.len() {
                return;
            }
            look *= 8;
        }
    }
}

/// Refuses NaN and plus infinity.
fn check(logits: &[f32]) -> Result<(), SamplingError> {
    let fine = |l: f32| l < f32::INFINITY;
    // Without an early exit this pass vectorises; the offender is looked for only when there is one.
    if logits.iter().fold(true, |all, &l| all & fine(l)) {
        return Ok(());
    }
    let token = logits.iter().position(|&l| !fine(l)).unwrap_or(0);
    Err(SamplingError::NotFinite { token, value: logits[token] })
}

/// The greatest logit and the lowest token that has it; `None` if all are minus infinity.
fn best_of(logits: &[f32]) -> Option<(u32, f32)> {
    let best = lanes::max(logits);
    let id = logits.iter().position(|&l| l == best && best > f32::NEG_INFINITY)?;
    Some((id as u32, best))
}
