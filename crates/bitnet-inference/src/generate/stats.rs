//! [`GenerationStats`]: what a generation took.

use std::time::Duration;

/// Counts and times of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationStats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them whose keys and values the session had already.
    pub cached_tokens: usize,
    /// Tokens generated, without a stop token.
    pub generated_tokens: usize,
    /// Forward calls after the first token, each of one token and those guessed to follow.
    pub decode_steps: usize,
    /// Tokens guessed by speculation.
    pub drafted: usize,
    /// Those of them that were right.
    pub accepted: usize,
    /// From the request to its first step, in a scheduler's queue.
    pub queued: Duration,
    /// From the request to the first token: encoding, computing the prompt, first draw. Zero if there was none.
    pub time_to_first_token: Duration,
    /// Computing the prompt and drawing the first token.
    pub prefill: Duration,
    /// From the first token to the end, the receiver of the events included.
    pub decode: Duration,
    /// The seed used, chosen by the request or at random. Means nothing at temperature 0.
    pub seed: u64,
}

/// `count / time`, or 0 where nothing was timed.
fn rate(count: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

impl GenerationStats {
    /// Tokens of the prompt that were computed, a second.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        rate(self.prompt_tokens - self.cached_tokens, self.prefill)
    }

    /// Tokens generated a second, from the second on.
    pub fn tokens_per_second(&self) -> f64 {
        rate(self.decode_steps, self.decode)
    }

    /// Milliseconds a token, from the second on; 0 if there was no second.
    pub fn ms_per_token(&self) -> f64 {
        if self.decode_steps == 0 { 0.0 } else { self.decode.as_secs_f64() * 1e3 / self.decode_steps as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let (prefill, decode) = (Duration::from_millis(500), Duration::from_millis(250));
        let stats = GenerationStats {
            prompt_tokens: 12,
            cached_tokens: 2,
            generated_tokens: 26,
            decode_steps: 25,
            prefill,
            decode,
            ..Default::default()
        };
        assert_eq!(stats.prompt_tokens_per_second(), 20.0);
        assert_eq!(stats.tokens_per_second(), 100.0);
        assert_eq!(stats.ms_per_token(), 10.0);
        assert_eq!(GenerationStats::default().tokens_per_second(), 0.0);
        assert_eq!(GenerationStats::default().ms_per_token(), 0.0);
    }
}
