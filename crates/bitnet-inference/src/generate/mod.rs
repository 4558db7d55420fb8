//! One request: what is asked ([`GenerateRequest`]), what happens meanwhile ([`Event`]), what comes out
//! ([`Generation`]).
//!
//! The state of one text, which the blocking loop and the scheduler share, is in `completion`, its text part in `text`,
//! strings that must not appear in `banned`; the blocking loop is in `run`, several completions of one prompt in `many`.

mod banned;
mod completion;
mod many;
mod process;
mod request;
mod run;
mod stats;
mod text;

pub(crate) use completion::{Completion, Logits, Prepared};
pub(crate) use many::{best, checked_count};
pub use request::{GenerateRequest, Prompt};
pub use stats::GenerationStats;

use crate::sampling::{Logprobs, LogprobsAt};

/// Something that happens while a request runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// A part of the prompt was computed.
    Prefill {
        /// Tokens of the prompt that are done, cached ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was drawn and belongs to the text. While a banned string may be beginning, tokens come later.
    Token {
        /// The token.
        id: u32,
        /// Text that is certain now: empty while a character is incomplete or a stop string may be beginning.
        text: &'a str,
        /// How probable it was, and what else was, if the request asks for that.
        logprobs: Option<LogprobsAt<'a>>,
    },
    /// Text that was held back at the end and turned out to be no stop string; comes last, if at all.
    Tail {
        /// The text, never empty.
        text: &'a str,
    },
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model drew one of its stop tokens.
    Stop,
    /// This stop string appeared; it is not part of the text.
    StopString(String),
    /// The request's number of tokens was reached.
    Length,
    /// The context is full.
    ContextFull,
    /// The callback asked to stop, or the scheduler was shut down.
    Cancelled,
}

impl FinishReason {
    /// A short name for machines: `stop`, `stop_string`, `length`, `context_full`, `cancelled`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::StopString(_) => "stop_string",
            Self::Length => "length",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a request produced.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The generated text, after the prompt's if the request asked for an echo. Empty if the model has no tokenizer.
    pub text: String,
    /// The generated tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// For each of `tokens` how probable it was, if the request asks for that.
    pub logprobs: Option<Logprobs>,
    /// What it took.
    pub stats: GenerationStats,
}
