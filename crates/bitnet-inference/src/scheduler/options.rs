//! What the scheduler may do ([`SchedulerOptions`]) and what a request wants of it ([`SubmitOptions`]).

use std::sync::Arc;
use std::time::Instant;

use bitnet_core::MemorySize;

use crate::error::ParameterError;

/// Limits and habits of a scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerOptions {
    /// Most sequences computed together; 64 by default. Each completion of a request is one.
    pub max_running: usize,
    /// Most requests that wait, beside those that could start at once; 256 by default.
    pub queue_capacity: usize,
    /// Most tokens of prompts computed in one step while others generate. `None`: as many as make their step half as long
    /// again, by what steps have taken. While nobody generates it is as many as the executor likes.
    pub prefill_chunk: Option<usize>,
    /// Memory for keys and values of all conversations; no conversation is longer than it holds. `None`: as much as the
    /// engine's full conversations may take.
    pub kv_budget: Option<MemorySize>,
    /// Whether keys and values of texts with the same beginning are computed once.
    pub prefix_cache: bool,
    /// Whether tokens are guessed from the text so far, and several verified at once. Texts are the same.
    pub speculation: Speculation,
}

/// Prompt-lookup speculation: what followed the last few tokens where they stood before is guessed to follow again, and
/// computed along with the next token; so is what a constraint demands where it leaves no choice. A guess counts if the token drawn there is the same, so the text is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// For requests at temperature 0 and under constraints, while what is measured says that it pays.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always, with at most so many tokens at a time.
    Always(usize),
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            max_running: 64,
            queue_capacity: 256,
            prefill_chunk: None,
            kv_budget: None,
            prefix_cache: true,
            speculation: Speculation::Auto,
        }
    }
}

impl SchedulerOptions {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ParameterError`] naming the first that is not possible.
    pub fn validate(&self) -> Result<(), ParameterError> {
        let least = |name, value: usize| match value {
            0 => Err(ParameterError { name, value: "0".to_owned(), allowed: "1 or more" }),
            _ => Ok(()),
        };
        least("max_running", self.max_running)?;
        least("prefill_chunk", self.prefill_chunk.unwrap_or(1))?;
        match self.speculation {
            Speculation::Always(tokens) => least("speculation", tokens),
            Speculation::Auto | Speculation::Off => Ok(()),
        }
    }
}

/// What a request wants of the scheduler; nothing special by default.
#[derive(Debug, Clone, Default)]
pub struct SubmitOptions {
    /// Requests of a higher priority start first, and take the place of lower ones when there is none left.
    pub priority: i32,
    /// When the request must be done; later it ends with [`EngineError::DeadlineExceeded`](crate::EngineError).
    pub deadline: Option<Instant>,
    /// On whose behalf: waiting requests of different clients take turns. Requests without a client are one client's.
    pub client: Option<Arc<str>>,
    /// A name for logs and [`SlotStats`](super::SlotStats).
    pub id: Option<Arc<str>>,
    /// Whether only ends are told, [`StreamEvent::Finished`](super::StreamEvent) and errors: who does not read along need not
    /// be woken for each token.
    pub ends_only: bool,
}
