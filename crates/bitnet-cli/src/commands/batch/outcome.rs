//! [`Outcome`]: what became of a row.

use std::time::Duration;

use bitnet_inference::{FinishReason, Generation};
use serde_json::{Map, Value};

/// A row with its text or its error.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// Its number, from 1.
    pub(super) row: u64,
    /// Where it stands: file and line.
    pub(super) source: String,
    /// What it calls itself.
    pub(super) id: Option<Value>,
    /// Its fields.
    pub(super) input: Option<Map<String, Value>>,
    pub(super) prompt: Option<String>,
    pub(super) end: Result<Done, String>,
}

/// What came out of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Done {
    /// A text.
    Text(Text),
    /// The answer of an API.
    Answer {
        /// The status, as HTTP has it.
        status: u16,
        /// Name of the request.
        request_id: String,
        /// The body.
        body: Value,
    },
}

/// A generated text and what it took.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) finish: FinishReason,
    pub(super) prompt_tokens: usize,
    pub(super) generated_tokens: usize,
    pub(super) seed: u64,
    pub(super) timings: Timings,
}

/// Times of a text.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Timings {
    pub(super) queued: Duration,
    pub(super) prefill: Duration,
    pub(super) decode: Duration,
}

impl Text {
    /// The end of a request; `trims` leaves out white space at the beginning of the text.
    pub(super) fn new(generation: Generation, trims: bool) -> Self {
        let stats = generation.stats;
        let text = if trims { generation.text.trim_start().to_owned() } else { generation.text };
        Self {
            text,
            finish: generation.finish,
            prompt_tokens: stats.prompt_tokens,
            generated_tokens: stats.generated_tokens,
            seed: stats.seed,
            timings: Timings { queued: stats.queued, prefill: stats.prefill, decode: stats.decode },
        }
    }
}

impl Timings {
    /// Names and milliseconds, to the microsecond.
    pub(super) fn told(&self) -> [(&'static str, f64); 3] {
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        [("queued_ms", ms(self.queued)), ("prompt_ms", ms(self.prefill)), ("generation_ms", ms(self.decode))]
    }
}

impl Outcome {
    /// Why the row failed, if it did.
    pub(super) fn error(&self) -> Option<String> {
        match &self.end {
            Err(error) => Some(error.clone()),
            Ok(Done::Answer { status, body, .. }) if *status >= 400 => {
                let message = body["error"]["message"].as_str().unwrap_or("no message");
                Some(format!("status {status}: {message}"))
            }
            Ok(_) => None,
        }
    }

    /// Tokens of its prompt, and tokens generated.
    pub(super) fn tokens(&self) -> (u64, u64) {
        match &self.end {
            Ok(Done::Text(text)) => (text.prompt_tokens as u64, text.generated_tokens as u64),
            Ok(Done::Answer { body, .. }) => {
                let count = |name: &str| body["usage"][name].as_u64().unwrap_or(0);
                (count("prompt_tokens"), count("completion_tokens"))
            }
            Err(_) => (0, 0),
        }
    }
}

/// What became of all rows so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) rows: u64,
    pub(super) failed: u64,
    pub(super) prompt_tokens: u64,
    pub(super) generated_tokens: u64,
}

impl Totals {
    /// Counts a row.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        let (prompt, generated) = outcome.tokens();
        self.rows += 1;
        self.failed += u64::from(outcome.error().is_some());
        self.prompt_tokens += prompt;
        self.generated_tokens += generated;
    }
}
