//! [`Logprobs`]: how probable the generated tokens were, and what else was.

use super::candidates::{self, Candidate};
use super::math;
use bitnet_core::lanes;

/// Most alternatives that a request may ask for.
pub(crate) const MOST_ALTERNATIVES: usize = 100;

/// A token and the logarithm of its probability under the model: before bias, penalties, temperature and cuts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// One place of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogprobsAt<'a> {
    /// The token drawn.
    pub chosen: TokenLogprob,
    /// The most probable tokens, best first; the chosen one among them where it belongs.
    pub top: &'a [TokenLogprob],
}

/// The log probabilities of a text's tokens, in room that is reserved at once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Logprobs {
    chosen: Vec<TokenLogprob>,
    top: Vec<TokenLogprob>,
    /// For each token, the end of its part of `top`.
    ends: Vec<usize>,
}

impl Logprobs {
    pub(crate) fn reserve(&mut self, tokens: usize, alternatives: usize) {
        self.chosen.reserve(tokens);
        self.top.reserve(tokens.saturating_mul(alternatives));
        self.ends.reserve(tokens);
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Those of a token of the text, by its place in it.
    pub fn get(&self, index: usize) -> Option<LogprobsAt<'_>> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        Some(LogprobsAt { chosen: *self.chosen.get(index)?, top: &self.top[start..self.ends[index]] })
    }

    /// All, first to last.
    pub fn iter(&self) -> impl Iterator<Item = LogprobsAt<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Mean of the chosen tokens' log probabilities; minus infinity if there are none.
    pub fn mean(&self) -> f64 {
        if self.is_empty() {
            return f64::NEG_INFINITY;
        }
        self.chosen.iter().map(|c| f64::from(c.logprob)).sum::<f64>() / self.len() as f64
    }

    pub(crate) fn push(&mut self, at: LogprobsAt<'_>) {
        self.chosen.push(at.chosen);
        self.top.extend_from_slice(at.top);
        self.ends.push(self.top.len());
    }

    /// Forgets all but the first `len` tokens.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.chosen.truncate(len);
        self.ends.truncate(len);
        self.top.truncate(self.ends.last().copied().unwrap_or(0));
    }
}

/// Takes down the probabilities of one draw after the other.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    alternatives: usize,
    /// The logits before anything changed them.
    raw: Vec<f32>,
    best: f32,
    ln_z: f64,
    candidates: Vec<Candidate>,
    chosen: TokenLogprob,
    top: Vec<TokenLogprob>,
}

impl Recorder {
    pub(super) fn new(alternatives: usize) -> Self {
        let chosen = TokenLogprob { token: 0, logprob: f32::NEG_INFINITY };
        let (raw, candidates, top) = (Vec::new(), Vec::new(), Vec::with_capacity(alternatives));
        Self { alternatives, raw, best: 0.0, ln_z: 0.0, candidates, chosen, top }
    }

    pub(super) fn alternatives(&self) -> usize {
        self.alternatives
    }

    /// Sees all logits, of which one at least is possible, before anything changes them.
    pub(super) fn see(&mut self, logits: &[f32]) {
        self.raw.clear();
        self.raw.extend_from_slice(logits);
        let best = lanes::max(logits);
        let z: f64 = logits.iter().map(|&l| f64::from(lanes::exp(l - best))).sum();
        (self.best, self.ln_z) = (best, math::ln(z));
        self.top.clear();
        if self.alternatives > 0 {
            candidates::top_k(logits, self.alternatives.min(logits.len()), &mut self.candidates);
            for c in &self.candidates {
                self.top.push(TokenLogprob { token: c.place as u32, logprob: self.logprob(c.place as u32) });
            }
        }
    }

    fn logprob(&self, token: u32) -> f32 {
        let logit = self.raw.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        (f64::from(logit - self.best) - self.ln_z) as f32
    }

    /// Learns which token was drawn.
    pub(super) fn choose(&mut self, token: u32) {
        self.chosen = TokenLogprob { token, logprob: self.logprob(token) };
    }

    pub(super) fn last(&self) -> LogprobsAt<'_> {
        LogprobsAt { chosen: self.chosen, top: &self.top }
    }
}

/// Checks how many alternatives are asked for.
pub(crate) fn check_alternatives(alternatives: usize) -> Result<(), crate::error::ParameterError> {
    if alternatives <= MOST_ALTERNATIVES {
        return Ok(());
    }
    let value = alternatives.to_string();
    Err(crate::error::ParameterError { name: "logprobs", value, allowed: "from 0 to 100 alternatives" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_are_those_of_a_softmax() {
        let logits = [1.5f32, -0.25, f32::NEG_INFINITY, 3.0, 3.0, -80.0];
        let z: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let want = |i: usize| f64::from(logits[i]) - z.ln();
        let mut recorder = Recorder::new(4);
        recorder.see(&logits);
        let mut kept = Logprobs::default();
        for token in [5, 2] {
            recorder.choose(token);
            kept.push(recorder.last());
        }
        assert_eq!(kept.get(0).unwrap().top.iter().map(|t| t.token).collect::<Vec<_>>(), [3, 4, 0, 1]);
        for t in kept.get(0).unwrap().top.iter().chain([&kept.get(0).unwrap().chosen]) {
            assert!((f64::from(t.logprob) - want(t.token as usize)).abs() < 1e-5, "{t:?}");
        }
        assert_eq!(kept.get(1).unwrap().chosen.logprob, f32::NEG_INFINITY);
        assert_eq!((kept.len(), kept.get(2)), (2, None));
        kept.truncate(1);
        assert_eq!((kept.iter().count(), kept.mean()), (1, f64::from(kept.get(0).unwrap().chosen.logprob)));
        assert_eq!(Logprobs::default().mean(), f64::NEG_INFINITY);
    }
}
