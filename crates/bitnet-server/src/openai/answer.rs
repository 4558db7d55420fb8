//! [`Answer`]: the requests behind an answer as one sequence of happenings, whether it is streamed or collected.

use std::collections::VecDeque;
use std::time::Instant;

use bitnet_inference::scheduler::StreamEvent;
use bitnet_inference::{EngineError, FinishReason, Generation, GenerationStats};
use futures_util::stream::{BoxStream, SelectAll, StreamExt};

use super::usage::Usage;
use crate::common::reply::{Part, Parts, cancelled};
use crate::error::ApiError;
use crate::models::TrackedStream;

/// Something that happens while an answer is made.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    /// A part of a prompt was computed.
    Progress {
        /// Tokens that are done, of so many.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A part of a choice.
    Part {
        /// Which choice.
        choice: usize,
        /// The part.
        part: Part,
    },
}

/// Running requests, one for each prompt, each with the same number of completions. Dropping it cancels them.
pub(super) struct Answer {
    streams: SelectAll<BoxStream<'static, (usize, Result<StreamEvent, EngineError>)>>,
    /// One for each completion of each prompt.
    choices: Vec<Parts>,
    /// Completions of a prompt.
    each: usize,
    ready: VecDeque<Happening>,
    /// Tokens so far.
    pub(super) usage: Usage,
    live: Live,
}

/// Counts and times before the end is there to tell them.
#[derive(Debug, Clone, Copy)]
struct Live {
    begun: Instant,
    first_token: Option<Instant>,
    stats: GenerationStats,
    /// Whether these are the stats of a completion that is whole.
    whole: bool,
}

impl Answer {
    /// The answer of requests that have [started](crate::models::ModelHandle::start). `parts` makes what each choice needs.
    pub(super) fn new(streams: Vec<TrackedStream>, mut parts: impl FnMut() -> Parts) -> Self {
        let each = streams.first().map_or(0, TrackedStream::completions);
        let choices = (0..each * streams.len()).map(|_| parts()).collect();
        let numbered = streams.into_iter().enumerate();
        let streams =
            numbered.map(|(number, stream)| stream.map(move |event| (number, event)).boxed()).collect();
        let live = Live {
            begun: Instant::now(),
            first_token: None,
            stats: GenerationStats::default(),
            whole: false,
        };
        Self { streams, choices, each, ready: VecDeque::new(), usage: Usage::default(), live }
    }

    /// How many choices there are.
    pub(super) fn choices(&self) -> usize {
        self.choices.len()
    }

    /// What happens next; `None` after the end.
    ///
    /// # Errors
    /// What went wrong on the way; nothing follows.
    pub(super) async fn next(&mut self) -> Result<Option<Happening>, ApiError> {
        loop {
            if let Some(happening) = self.ready.pop_front() {
                return Ok(Some(happening));
            }
            match self.streams.next().await {
                Some((number, event)) => self.take(number, event?)?,
                None => return Ok(None),
            }
        }
    }

    /// Counts and times of the completion that is whole, or so far.
    pub(super) fn stats(&self) -> GenerationStats {
        self.live.stats
    }

    /// Milliseconds since the first prompt began to be computed.
    pub(super) fn elapsed_ms(&self) -> f64 {
        self.live.begun.elapsed().as_secs_f64() * 1e3
    }

    fn take(&mut self, number: usize, event: StreamEvent) -> Result<(), ApiError> {
        self.live.see(&event);
        let completion = match &event {
            StreamEvent::Started { prompt_tokens, cached_tokens } => {
                self.usage.prompt += prompt_tokens;
                self.usage.cached += cached_tokens;
                return Ok(());
            }
            StreamEvent::Prefill { done, total } => {
                self.ready.push_back(Happening::Progress { done: *done, total: *total });
                return Ok(());
            }
            StreamEvent::Finished { choice, generation } => {
                if generation.finish == FinishReason::Cancelled {
                    return Err(cancelled());
                }
                self.usage.add(&generation.stats);
                *choice
            }
            StreamEvent::Token { choice, .. } | StreamEvent::Tail { choice, .. } => *choice,
            _ => return Ok(()),
        };
        let choice = number * self.each + completion;
        let Some(parts) = self.choices.get_mut(choice) else { return Ok(()) };
        parts.push(event);
        while let Some(part) = parts.pop() {
            self.ready.push_back(Happening::Part { choice, part });
        }
        Ok(())
    }
}

impl Live {
    fn see(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Started { prompt_tokens, cached_tokens } => {
                self.begun = Instant::now();
                (self.stats.prompt_tokens, self.stats.cached_tokens) = (*prompt_tokens, *cached_tokens);
            }
            StreamEvent::Token { .. } if !self.whole => {
                let now = Instant::now();
                let first = *self.first_token.get_or_insert(now);
                self.stats.prefill = first - self.begun;
                self.stats.decode = now - first;
                self.stats.generated_tokens += 1;
            }
            StreamEvent::Finished { generation, .. } => {
                self.stats = generation.stats;
                self.whole = true;
            }
            _ => {}
        }
    }
}

/// Why a choice ended, in OpenAI's words.
pub(super) fn finish_reason(generation: &Generation, calls: usize) -> &'static str {
    match generation.finish {
        FinishReason::Length | FinishReason::ContextFull => "length",
        _ if calls > 0 => "tool_calls",
        _ => "stop",
    }
}
