//! [`Dry`]: the penalty on tokens that would continue a repetition.
//!
//! "Don't repeat yourself" by p-e-w (text-generation-webui, pull request 5677, 2024). If the text ends in tokens that
//! occurred before, the token that followed them then is the one that would make the repetition longer.

use std::sync::Arc;

use bitnet_text::Tokenizer;

use super::SamplingParams;
use super::candidates::Pool;
use super::math;
use super::places::Places;

/// Strings over which repetitions do not reach unless a request names its own.
pub const DRY_SEQUENCE_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Largest penalty: beyond any logit, but far from infinite.
const MOST: f64 = 1e30;

/// Tells tokens with which a sequence breaker ends.
#[derive(Debug, Clone)]
pub(super) struct Breakers {
    /// One bit a token: a whole breaker is in it.
    inside: Vec<u64>,
    /// Breakers that may reach over several tokens: those of two bytes or more.
    spanning: Vec<Vec<u8>>,
    tokenizer: Arc<Tokenizer>,
    text: Vec<u8>,
}

/// Whether `text` contains `part`, which is not empty.
fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl Breakers {
    pub(super) fn new(strings: &[String], tokenizer: Arc<Tokenizer>) -> Self {
        let strings: Vec<&[u8]> = strings.iter().map(String::as_bytes).filter(|s| !s.is_empty()).collect();
        let mut inside = vec![0u64; tokenizer.vocab_size().div_ceil(64)];
        for (id, bytes) in (0..tokenizer.vocab_size()).map(|id| (id, bytes_of(&tokenizer, id as u32))) {
            if strings.iter().any(|s| contains(bytes, s)) {
                inside[id / 64] |= 1 << (id % 64);
            }
        }
        let spanning = strings.iter().filter(|s| s.len() > 1).map(|s| s.to_vec()).collect();
        Self { inside, spanning, tokenizer, text: Vec::new() }
    }

    /// Whether a breaker ends within the token at `position`.
    fn at(&mut self, window: &[u32], position: usize) -> bool {
        let token = window[position] as usize;
        if self.inside.get(token / 64).is_some_and(|word| word >> (token % 64) & 1 == 1) {
            return true;
        }
        let Some(longest) = self.spanning.iter().map(Vec::len).max() else { return false };
        let bytes = bytes_of(&self.tokenizer, window[position]);
        let (mut first, mut before) = (position, 0);
        while first > 0 && before < longest - 1 {
            first -= 1;
            before += bytes_of(&self.tokenizer, window[first]).len();
        }
        self.text.clear();
        for &token in &window[first..=position] {
            self.text.extend_from_slice(bytes_of(&self.tokenizer, token));
        }
        let own = self.text.len() - bytes.len();
        // Only what reaches into this token: whatever ended before it belongs to an earlier one.
        self.spanning.iter().any(|s| contains(&self.text[own.saturating_sub(s.len() - 1)..], s))
    }
}

fn bytes_of(tokenizer: &Tokenizer, token: u32) -> &[u8] {
    tokenizer.token_bytes(token).unwrap_or_default()
}

/// Finds repetitions, without allocating once its buffers have grown.
#[derive(Debug, Clone, Default)]
pub(super) struct Dry {
    breakers: Option<Breakers>,
    /// For the reversed window and each place in it: how many tokens from there on are those from the start on.
    common: Vec<u32>,
    /// Tokens that would continue a repetition, with its length; ascending, each once with the longest.
    hits: Vec<(u32, u32)>,
}

impl Dry {
    pub(super) fn set_breakers(&mut self, breakers: Breakers) {
        self.breakers = Some(breakers);
    }

    /// Room for windows of so many tokens.
    pub(super) fn reserve(&mut self, tokens: usize) {
        self.common.reserve(tokens);
        self.hits.reserve(tokens);
    }

    /// How many tokens are punished after `history`.
    pub(super) fn count(&mut self, p: &SamplingParams, history: &[u32]) -> usize {
        self.find(p.dry_penalty_last_n.of(history), p.dry_allowed_length);
        self.hits.len()
    }

    /// Changes the logits of tokens that would continue a repetition.
    pub(super) fn punish(
        &mut self,
        p: &SamplingParams,
        history: &[u32],
        logits: &mut [f32],
        places: Places<'_>,
    ) {
        self.find(p.dry_penalty_last_n.of(history), p.dry_allowed_length);
        for &(token, length) in &self.hits {
            if let Some(place) = places.of(token) {
                logits[place] = punished(p, logits[place], length);
            }
        }
    }

    /// As [`punish`](Self::punish), of candidates that were chosen already.
    pub(super) fn punish_pool(
        &mut self,
        p: &SamplingParams,
        history: &[u32],
        pool: &mut Pool,
        places: Places<'_>,
    ) {
        self.find(p.dry_penalty_last_n.of(history), p.dry_allowed_length);
        for c in pool.logits_mut() {
            let token = places.token(c.place);
            if let Ok(hit) = self.hits.binary_search_by_key(&token, |hit| hit.0) {
                c.logit = punished(p, c.logit, self.hits[hit].1);
            }
        }
    }

    /// Finds the hits of a window.
    ///
    /// The lengths are the Z function (Gusfield, 1997) of the reversed window, in time proportional to it.
    fn find(&mut self, window: &[u32], allowed: usize) {
        self.hits.clear();
        self.common.clear();
        let n = window.len();
        let back = |i: usize| window[n - 1 - i];
        self.common.push(0);
        // `start..end` is the part farthest to the right that equals the beginning.
        let (mut start, mut end) = (0, 0);
        for i in 1..n {
            let mut k = if i < end { (self.common[i - start] as usize).min(end - i) } else { 0 };
            while i + k < n && back(k) == back(i + k) {
                k += 1;
            }
            if i + k > end {
                (start, end) = (i, i + k);
            }
            self.common.push(k as u32);
        }
        let longest = self.common.iter().copied().max().unwrap_or(0) as usize;
        if longest < allowed {
            return;
        }
        let limit = match &mut self.breakers {
            Some(breakers) => (0..longest).find(|&i| breakers.at(window, n - 1 - i)).unwrap_or(longest),
            None => longest,
        };
        for i in 1..n {
            let length = (self.common[i] as usize).min(limit);
            // What followed the earlier occurrence stands one place to the left in the reversed window.
            let next = n - i;
            if length >= allowed && !self.breakers.as_mut().is_some_and(|b| b.at(window, next)) {
                self.hits.push((window[next], length as u32));
            }
        }
        self.hits.sort_unstable_by_key(|&(token, length)| (token, u32::MAX - length));
        self.hits.dedup_by_key(|hit| hit.0);
    }
}

fn punished(p: &SamplingParams, logit: f32, length: u32) -> f32 {
    if logit == f32::NEG_INFINITY {
        return logit;
    }
    let growth = math::powi(f64::from(p.dry_base), length as usize - p.dry_allowed_length, MOST);
    let penalty = (f64::from(p.dry_multiplier) * growth).min(MOST) as f32;
    (logit - penalty).max(f32::MIN)
}
