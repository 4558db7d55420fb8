//! [`Tally`]: how often tokens were seen, and what that costs them.

use super::SamplingParams;
use super::candidates::Pool;
use super::places::Places;

/// Counts tokens of a window by place. All counts are zero between uses.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    counts: Vec<u32>,
    /// Places that are not zero.
    touched: Vec<u32>,
}

/// Whether any penalty of [`Step::Penalties`](super::Step::Penalties) does anything.
pub(super) fn act(p: &SamplingParams) -> bool {
    p.repeat_penalty != 1.0 || p.presence_penalty != 0.0 || p.frequency_penalty != 0.0
}

/// Whether one of them may raise logits, of tokens that are not among the best before.
pub(super) fn lift(p: &SamplingParams) -> bool {
    p.repeat_penalty < 1.0 || p.presence_penalty < 0.0 || p.frequency_penalty < 0.0
}

/// A logit of a token that was seen `count` times.
fn punished(p: &SamplingParams, logit: f32, count: u32) -> f32 {
    if logit == f32::NEG_INFINITY {
        return logit;
    }
    let repeated = if logit < 0.0 { logit * p.repeat_penalty } else { logit / p.repeat_penalty };
    // Extreme penalties must not make a logit infinite, which would mean something else.
    (repeated - count as f32 * p.frequency_penalty - p.presence_penalty).clamp(f32::MIN, f32::MAX)
}

impl Tally {
    /// Room for windows of `tokens` different tokens.
    pub(super) fn reserve(&mut self, tokens: usize) {
        self.touched.reserve(tokens);
    }

    /// Counts the tokens of a window that have a place.
    fn count(&mut self, window: &[u32], places: Places<'_>) {
        if self.counts.len() < places.len() {
            self.counts.resize(places.len(), 0);
        }
        for place in window.iter().filter_map(|&token| places.of(token)) {
            if self.counts[place] == 0 {
                self.touched.push(place as u32);
            }
            self.counts[place] += 1;
        }
    }

    fn clear(&mut self) {
        for place in self.touched.drain(..) {
            self.counts[place as usize] = 0;
        }
    }

    /// How many different tokens the penalties look at.
    pub(super) fn distinct(&mut self, p: &SamplingParams, history: &[u32], vocab_size: usize) -> usize {
        self.count(p.repeat_last_n.of(history), Places::All(vocab_size));
        let distinct = self.touched.len();
        self.clear();
        distinct
    }

    /// Changes the logits of the tokens seen.
    pub(super) fn punish(
        &mut self,
        p: &SamplingParams,
        history: &[u32],
        logits: &mut [f32],
        places: Places<'_>,
    ) {
        self.count(p.repeat_last_n.of(history), places);
        for &place in &self.touched {
            let logit = &mut logits[place as usize];
            *logit = punished(p, *logit, self.counts[place as usize]);
        }
        self.clear();
    }

    /// As [`punish`](Self::punish), of candidates that were chosen already.
    pub(super) fn punish_pool(
        &mut self,
        p: &SamplingParams,
        history: &[u32],
        pool: &mut Pool,
        places: Places<'_>,
    ) {
        self.count(p.repeat_last_n.of(history), places);
        for c in pool.logits_mut() {
            let count = self.counts[c.place];
            if count > 0 {
                c.logit = punished(p, c.logit, count);
            }
        }
        self.clear();
    }
}
