//! [`TrackedStream`]: the events of a request, counted as they pass.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bitnet_inference::scheduler::{GenerationStream, StreamEvent, SubmitOptions};
use bitnet_inference::{EngineError, GenerateRequest, Generation};
use futures_core::Stream;

use super::handle::ModelHandle;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::metrics::ModelMetrics;

type Item = Result<StreamEvent, EngineError>;

/// The events of one request, as [`GenerationStream`] has them. Dropping it cancels the request within one step. Keeps the
/// model in use; counts tokens and times.
#[derive(Debug)]
pub struct TrackedStream {
    stream: GenerationStream,
    tracker: Tracker,
    /// Events that were looked at before their turn.
    ahead: VecDeque<Item>,
}

/// What is remembered between events.
#[derive(Debug)]
struct Tracker {
    model: ModelHandle,
    counters: Arc<ModelMetrics>,
    context: RequestContext,
    /// When each completion had its last token.
    last: Vec<Option<Instant>>,
    /// Completions that have not ended.
    open: usize,
}

impl ModelHandle {
    /// Hands a request to the scheduler: under the request's id, on behalf of its client, with the server's time limit.
    ///
    /// Encodes the prompt on this thread; [`start`](Self::start) does not.
    ///
    /// # Errors
    /// What is wrong with the request, or 503 (429 if configured so) if too many wait.
    pub fn submit(
        &self,
        request: GenerateRequest,
        context: &RequestContext,
    ) -> Result<TrackedStream, ApiError> {
        let config = self.state().config();
        let options = SubmitOptions {
            priority: if config.priorities { context.priority } else { 0 },
            deadline: Some(context.arrived + config.timeout()),
            client: Some(Arc::clone(&context.client)),
            id: Some(Arc::clone(&context.id)),
            ends_only: false,
        };
        context.facts.set_model(self.shared_id());
        let stream = self.engine().scheduler().submit(request, options).map_err(|error| {
            self.state().metrics().ended(self.id(), "refused");
            match error {
                EngineError::QueueFull { .. } if config.overload == 429 => {
                    ApiError::too_many(error.to_string())
                }
                error => error.into(),
            }
        })?;
        let open = stream.completions();
        let tracker = Tracker {
            model: self.clone(),
            counters: self.state().metrics().model(self.shared_id()),
            context: context.clone(),
            last: vec![None; open],
            open,
        };
        Ok(TrackedStream { stream, tracker, ahead: VecDeque::new() })
    }

    /// As [`submit`](Self::submit), but encodes the prompt on a thread for blocking work, and waits until the request has left
    /// the queue: what fails before is an error here, and the answer may begin.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); what ended the request while it waited.
    pub async fn start(
        &self,
        request: GenerateRequest,
        context: &RequestContext,
    ) -> Result<TrackedStream, ApiError> {
        let (model, for_submit) = (self.clone(), context.clone());
        let submit = move || model.submit(request, &for_submit);
        let mut stream = self.state().encoding(submit).await?;
        stream.started().await?;
        Ok(stream)
    }
}

impl TrackedStream {
    /// The request's number, see [`GenerationStream::id`].
    pub fn id(&self) -> u64 {
        self.stream.id()
    }

    /// How many completions are computed.
    pub fn completions(&self) -> usize {
        self.stream.completions()
    }

    /// Waits until the request has left the queue; its first event is still to come then. Gives the tokens of the prompt, and
    /// those of them that were there.
    ///
    /// # Errors
    /// What ended the request while it waited.
    pub async fn started(&mut self) -> Result<(usize, usize), ApiError> {
        if self.ahead.is_empty() {
            let first = self.receive().await;
            self.ahead.extend(first);
        }
        match self.ahead.front() {
            Some(Ok(StreamEvent::Started { prompt_tokens, cached_tokens })) => {
                Ok((*prompt_tokens, *cached_tokens))
            }
            Some(Ok(_)) => Ok((0, 0)),
            Some(Err(_)) | None => match self.ahead.pop_front() {
                Some(Err(error)) => Err(error.into()),
                _ => Err(EngineError::ShuttingDown.into()),
            },
        }
    }

    /// Waits for the next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Item> {
        match self.ahead.pop_front() {
            Some(event) => Some(event),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Option<Item> {
        let event = self.stream.next().await?;
        self.tracker.see(&event);
        Some(event)
    }

    /// Waits for the end. Gives the completions in their order, or of `best_of` the best ones, best first.
    ///
    /// # Errors
    /// What ended the request.
    pub async fn finish(mut self) -> Result<Vec<Generation>, ApiError> {
        while let Some(event) = self.ahead.pop_front() {
            event?;
        }
        let Self { stream, mut tracker, .. } = self;
        let result = stream.finish_with(|event| tracker.see(event)).await;
        result.map_err(ApiError::from)
    }
}

impl Stream for TrackedStream {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(event) = self.ahead.pop_front() {
            return Poll::Ready(Some(event));
        }
        let event = ready!(Pin::new(&mut self.stream).poll_next(cx));
        if let Some(event) = &event {
            self.tracker.see(event);
        }
        Poll::Ready(event)
    }
}

impl Tracker {
    fn see(&mut self, event: &Item) {
        match event {
            Ok(StreamEvent::Started { prompt_tokens, cached_tokens }) => {
                self.counters.queue.record(self.context.arrived.elapsed());
                self.counters.prompt_tokens.increment(*prompt_tokens as u64);
                self.counters.cached_tokens.increment(*cached_tokens as u64);
                self.context.facts.prompt_tokens.fetch_add(*prompt_tokens as u64, Ordering::Relaxed);
            }
            Ok(StreamEvent::Token { choice, .. }) => self.token(*choice),
            Ok(StreamEvent::Finished { generation, .. }) => {
                self.open = self.open.saturating_sub(1);
                let stats = &generation.stats;
                let computed = stats.prompt_tokens.saturating_sub(stats.cached_tokens);
                let metrics = self.model.state().metrics();
                self.counters.add(stats.generated_tokens, stats.decode);
                metrics.totals.add(
                    (computed, stats.prefill),
                    (stats.generated_tokens, stats.decode),
                    stats.prompt_tokens + stats.generated_tokens,
                );
                metrics.ended(self.model.id(), generation.finish.name());
            }
            Err(error) => {
                let metrics = self.model.state().metrics();
                let reason = match error {
                    EngineError::DeadlineExceeded => "deadline",
                    EngineError::ShuttingDown => "shutdown",
                    _ => "error",
                };
                for _ in 0..std::mem::take(&mut self.open) {
                    metrics.ended(self.model.id(), reason);
                }
            }
            Ok(_) => {}
        }
    }

    fn token(&mut self, choice: usize) {
        let now = Instant::now();
        self.counters.generated_tokens.increment(1);
        self.context.facts.generated_tokens.fetch_add(1, Ordering::Relaxed);
        let Some(last) = self.last.get_mut(choice) else { return };
        match last.replace(now) {
            Some(last) => self.counters.inter_token.record(now - last),
            None => self.counters.first_token.record(now - self.context.arrived),
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        // The client went away, or the handler gave up.
        for _ in 0..self.open {
            self.model.state().metrics().ended(self.model.id(), "cancelled");
        }
        self.model.touch();
    }
}
