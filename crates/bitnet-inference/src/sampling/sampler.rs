//! [`Sampler`]: draws one token after the other for one request.

use bitnet_core::lanes;
use bitnet_model::TopLogits;

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
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every token is excluded, or there is none.
    #[error("no token is possible: all {count} logits are minus infinity")]
    NothingPossible {
        /// Logits there were.
        count: usize,
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
    /// One bit a place: met already. All zero between steps.
    marks: Vec<u64>,
}

impl Sampler {
    /// Starts at the first draw of `seed`; `params` must be [valid](SamplingParams::validate).
    pub fn new(params: SamplingParams, seed: u64) -> Self {
        Self { params, rng: Rng::new(seed), candidates: Vec::new(), marks: Vec::new() }
    }

    /// How many of the largest logits decide the next token after `history`, if these are few among `vocab_size`: so
    /// many must [`sample_top`](Self::sample_top) be given. `None`: it takes all logits.
    pub fn decisive(&mut self, history: &[u32], vocab_size: usize) -> Option<usize> {
        let p = &self.params;
        let kept = if p.temperature == 0.0 { 1 } else { p.top_k };
        // A penalty below 1 lifts tokens from anywhere.
        if kept == 0 || p.repeat_penalty < 1.0 {
            return None;
        }
        // A penalty only lowers logits, so at worst every punished token drops out of the best.
        let punished = if p.repeat_penalty == 1.0 { 0 } else { self.distinct(history, vocab_size) };
        Some(kept + punished).filter(|k| *k < vocab_size / 2)
    }

    /// Draws the token that follows `history` (prompt and generated tokens) from its `logits`, `[vocab_size]`, which
    /// the repetition penalty changes in place. Uses up one random number if and only if the temperature is not 0.
    ///
    /// # Errors
    /// [`SamplingError`] if a logit is NaN or infinite, or none is possible. Minus infinity marks impossible tokens.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, SamplingError> {
        let place = self.draw(logits, history, |token| Some(token as usize), |place| place as u32)?;
        Ok(place as u32)
    }

    /// As [`sample`](Self::sample), with the same result, from the [decisive](Self::decisive) logits alone.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn sample_top(&mut self, top: &mut TopLogits, history: &[u32]) -> Result<u32, SamplingError> {
        let ids = &top.ids;
        let place_of = |token| ids.binary_search(&token).ok();
        let place = self.draw(&mut top.logits, history, place_of, |place| ids[place])?;
        Ok(ids[place])
    }

    /// Draws a place among `logits`, whose tokens ascend.
    fn draw(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        place_of: impl Fn(u32) -> Option<usize>,
        token_of: impl Fn(usize) -> u32,
    ) -> Result<usize, SamplingError> {
        check(logits, token_of)?;
        self.punish(logits, history, place_of);
        let (best_place, best) =
            best_of(logits).ok_or(SamplingError::NothingPossible { count: logits.len() })?;
        let p = &self.params;
        if p.temperature == 0.0 {
            return Ok(best_place);
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
        Ok(candidates::draw(&self.candidates, self.rng.next_f64()).unwrap_or(best_place))
    }

    /// The tokens that the penalty looks at.
    fn window<'h>(&self, history: &'h [u32]) -> &'h [u32] {
        match self.params.repeat_last_n {
            PenaltyWindow::All => history,
            PenaltyWindow::Last(n) => &history[history.len().saturating_sub(n)..],
        }
    }

    /// How many different tokens the penalty looks at.
    fn distinct(&mut self, history: &[u32], vocab_size: usize) -> usize {
        let mut count = 0;
        self.once_each(self.window(history), vocab_size, |token| Some(token as usize), |_| count += 1);
        count
    }

    /// Repetition penalty: once for each token of the window, however often it occurs there.
    fn punish(&mut self, logits: &mut [f32], history: &[u32], place_of: impl Fn(u32) -> Option<usize>) {
        let penalty = self.params.repeat_penalty;
        if penalty == 1.0 {
            return;
        }
        self.once_each(self.window(history), logits.len(), place_of, |place| {
            let logit = &mut logits[place];
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        });
    }

    /// Calls `visit` once for each place below `places` that a token of the window has.
    fn once_each(
        &mut self,
        window: &[u32],
        places: usize,
        place_of: impl Fn(u32) -> Option<usize>,
        mut visit: impl FnMut(usize),
    ) {
        let words = places.div_ceil(64);
        if self.marks.len() < words {
            self.marks.resize(words, 0);
        }
        for place in window.iter().filter_map(|&token| place_of(token)).filter(|&place| place < places) {
            let (word, bit) = (&mut self.marks[place / 64], 1 << (place % 64));
            if *word & bit == 0 {
                *word |= bit;
                visit(place);
            }
        }
        self.marks[..words].fill(0);
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
        // A flat distribution may need them all, at any time.
        self.candidates.clear();
        self.candidates.reserve(logits.len());
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
fn check(logits: &[f32], token_of: impl Fn(usize) -> u32) -> Result<(), SamplingError> {
    let fine = |l: f32| l < f32::INFINITY;
    // Without an early exit this pass vectorises; the offender is looked for only when there is one.
    if logits.iter().fold(true, |all, &l| all & fine(l)) {
        return Ok(());
    }
    let place = logits.iter().position(|&l| !fine(l)).unwrap_or(0);
    Err(SamplingError::NotFinite { token: token_of(place), value: logits[place] })
}

/// The greatest logit and the first place that has it; `None` if all are minus infinity.
fn best_of(logits: &[f32]) -> Option<(usize, f32)> {
    let best = lanes::max(logits);
    let place = logits.iter().position(|&l| l == best && best > f32::NEG_INFINITY)?;
    Some((place, best))
}
