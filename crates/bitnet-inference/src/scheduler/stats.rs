//! [`SchedulerStats`]: what the scheduler does and has done.

use std::sync::Arc;
use std::time::Instant;

/// A picture of a scheduler between two steps.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SchedulerStats {
    /// Requests that wait for their first step.
    pub queued: usize,
    /// Sequences that are computed.
    pub running: usize,
    /// Most of them.
    pub max_running: usize,
    /// Most waiting requests.
    pub queue_capacity: usize,
    /// All sequences that have begun, those that were interrupted included.
    pub slots: Vec<SlotStats>,
    /// KV blocks there may be.
    pub blocks_total: usize,
    /// Those that belong to sequences and sessions.
    pub blocks_in_use: usize,
    /// Those that nobody uses now, but whose content is kept to be found again.
    pub blocks_cached: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Tokens of prompts, all in all.
    pub prompt_tokens_total: u64,
    /// Those of them whose keys and values were there already.
    pub prefix_hit_tokens: u64,
    /// Tokens drawn.
    pub generated_tokens_total: u64,
    /// How often a sequence gave its blocks up and was computed again later.
    pub preemptions: u64,
    /// Forward calls.
    pub steps: u64,
    /// Tokens guessed by speculation.
    pub drafted: u64,
    /// Those of them that were right.
    pub accepted: u64,
    /// Requests taken.
    pub requests_total: u64,
    /// Requests that came to their end.
    pub finished: u64,
    /// Requests whose stream was dropped, or that a shutdown ended.
    pub cancelled: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Requests refused because too many were waiting.
    pub rejected: u64,
}

/// A sequence that has begun.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SlotStats {
    /// [`GenerationStream::id`](super::GenerationStream::id) of its request.
    pub id: u64,
    /// Which completion of the request it is.
    pub choice: usize,
    /// [`SubmitOptions::id`](super::SubmitOptions::id) of its request.
    pub request_id: Option<Arc<str>>,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens of it, prompt and text, that have keys and values.
    pub computed_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// What it is at.
    pub state: SlotState,
    /// When its request left the queue.
    pub started: Instant,
}

/// What a sequence is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotState {
    /// It waits for its turn to begin.
    Waiting,
    /// Its prompt is computed.
    Prefill,
    /// Its text is generated.
    Decode,
    /// It had to give up its blocks and will be computed again.
    Preempted,
}

impl SlotState {
    /// A short name for machines: `waiting`, `prefill`, `decode`, `preempted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Preempted => "preempted",
        }
    }
}
