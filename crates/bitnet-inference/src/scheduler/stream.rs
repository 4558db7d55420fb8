//! [`GenerationStream`]: what happens to a request, as it happens.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::EngineError;
use crate::generate::{Generation, best};
use crate::sampling::{LogprobsAt, TokenLogprob};

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "the large one comes once; a box would be in everyone's way")]
pub enum StreamEvent {
    /// The request left the queue. Comes once, first.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Those of them whose keys and values were there already.
        cached_tokens: usize,
    },
    /// A part of the prompt was computed.
    Prefill {
        /// Tokens of the prompt that are done, cached ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token belongs to the text.
    Token {
        /// Which completion.
        choice: usize,
        /// The token.
        id: u32,
        /// Text that is certain now; empty while a character is incomplete or a stop string may be beginning.
        text: String,
        /// How probable it was, if the request asks for that.
        logprobs: Option<OwnedLogprobs>,
    },
    /// Text that was held back at the end; not empty.
    Tail {
        /// Which completion.
        choice: usize,
        /// The text.
        text: String,
    },
    /// A completion is whole. Comes once for each.
    Finished {
        /// Which completion.
        choice: usize,
        /// All of it.
        generation: Generation,
    },
}

/// [`LogprobsAt`], kept.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedLogprobs {
    /// The token drawn.
    pub chosen: TokenLogprob,
    /// The most probable tokens, best first.
    pub top: Vec<TokenLogprob>,
}

impl From<LogprobsAt<'_>> for OwnedLogprobs {
    fn from(at: LogprobsAt<'_>) -> Self {
        Self { chosen: at.chosen, top: at.top.to_vec() }
    }
}

/// How the results of a request become one list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collect {
    /// Completions that are computed.
    pub(super) count: usize,
    /// Completions that are asked for, the best of `count`.
    pub(super) n: usize,
    /// Whether log probabilities were asked for.
    pub(super) logprobs: bool,
}

/// The events of one request, of all its completions. It ends behind the last [`StreamEvent::Finished`], or behind an error.
///
/// Dropping it cancels the request within one step. Nobody waits for a slow reader: what it has not read is kept, at most
/// as many events as the request may generate tokens.
#[derive(Debug)]
pub struct GenerationStream {
    id: u64,
    collect: Collect,
    events: UnboundedReceiver<Result<StreamEvent, EngineError>>,
}

impl GenerationStream {
    pub(super) fn new(
        id: u64,
        collect: Collect,
        events: UnboundedReceiver<Result<StreamEvent, EngineError>>,
    ) -> Self {
        Self { id, collect, events }
    }

    /// The request's number, in the order of submission.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many completions are computed: each has its [`StreamEvent::Finished`].
    pub fn completions(&self) -> usize {
        self.collect.count
    }

    /// Waits for the next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<StreamEvent, EngineError>> {
        self.events.recv().await
    }

    /// Waits for the next event on this thread; `None` after the last.
    ///
    /// # Panics
    /// Inside an asynchronous task of tokio, which must not block.
    pub fn blocking_next(&mut self) -> Option<Result<StreamEvent, EngineError>> {
        self.events.blocking_recv()
    }

    /// As [`finish`](Self::finish), and shows every event to `see` on the way.
    ///
    /// # Errors
    /// What ended the request.
    pub async fn finish_with(
        mut self,
        mut see: impl FnMut(&Result<StreamEvent, EngineError>),
    ) -> Result<Vec<Generation>, EngineError> {
        let mut results = self.results();
        while let Some(event) = self.next().await {
            see(&event);
            results.see(event?);
        }
        results.list()
    }

    /// Waits for the end. Gives the completions in their order, or of `best_of` the best ones, best first.
    ///
    /// # Errors
    /// What ended the request.
    pub async fn finish(mut self) -> Result<Vec<Generation>, EngineError> {
        let mut results = self.results();
        while let Some(event) = self.next().await {
            results.see(event?);
        }
        results.list()
    }

    /// As [`finish`](Self::finish), on this thread.
    ///
    /// # Errors
    /// What ended the request.
    ///
    /// # Panics
    /// Inside an asynchronous task of tokio, which must not block.
    pub fn blocking_finish(mut self) -> Result<Vec<Generation>, EngineError> {
        let mut results = self.results();
        while let Some(event) = self.blocking_next() {
            results.see(event?);
        }
        results.list()
    }

    fn results(&self) -> Results {
        Results { collect: self.collect, done: vec![None; self.collect.count] }
    }
}

impl Stream for GenerationStream {
    type Item = Result<StreamEvent, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(cx)
    }
}

/// The completions that are whole.
struct Results {
    collect: Collect,
    done: Vec<Option<Generation>>,
}

impl Results {
    fn see(&mut self, event: StreamEvent) {
        if let StreamEvent::Finished { choice, generation } = event {
            self.done[choice] = Some(generation);
        }
    }

    fn list(self) -> Result<Vec<Generation>, EngineError> {
        let Collect { count, n, logprobs } = self.collect;
        let mut done: Vec<Generation> = self.done.into_iter().flatten().collect();
        if done.len() < count {
            return Err(EngineError::ShuttingDown);
        }
        if count > n {
            best(&mut done, n, logprobs);
        }
        Ok(done)
    }
}
