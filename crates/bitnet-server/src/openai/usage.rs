//! [`Usage`]: counts of tokens.

use bitnet_inference::GenerationStats;
use serde_json::{Value, json};

/// Tokens of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// Tokens of its prompts.
    pub(super) prompt: usize,
    /// Those of them that were computed before.
    pub(super) cached: usize,
    /// Tokens generated.
    pub(super) generated: usize,
    /// Those that were guessed right, and those guessed wrong.
    pub(super) accepted: usize,
    pub(super) rejected: usize,
}

impl Usage {
    /// Adds what a completion generated.
    pub(super) fn add(&mut self, stats: &GenerationStats) {
        self.generated += stats.generated_tokens;
        self.accepted += stats.accepted;
        self.rejected += stats.drafted.saturating_sub(stats.accepted);
    }

    /// As completions tell it.
    pub(super) fn told(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "accepted_prediction_tokens": self.accepted,
                "rejected_prediction_tokens": self.rejected,
            },
        })
    }

    /// As responses tell it.
    pub(super) fn told_of_response(&self) -> Value {
        json!({
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.generated,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt + self.generated,
        })
    }
}
