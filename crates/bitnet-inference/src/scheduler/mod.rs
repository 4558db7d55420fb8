//! Many requests at once: continuous batching.
//!
//! One thread makes step after step. A step is one forward call that computes the next token of every sequence that
//! generates and a part of the prompts of those that do not yet; sequences come and go between steps. What a request
//! draws depends on nothing but itself, so its text is the same as alone.
//!
//! * [`Scheduler`]: takes requests, gives a [`GenerationStream`] for each.
//! * [`SchedulerOptions`], [`SubmitOptions`]: limits, priorities, deadlines.
//! * [`SchedulerStats`]: what goes on.
//!
//! Inside: `queue` says who is next, `planner` what a step computes, `pace` how much of prompts that may be, `sequence` is
//! one completion with its keys and values, `speculate` guesses tokens to verify, `run` is the loop itself.
//!
//! When blocks for keys and values run out, the newest sequence of the lowest priority gives its own up, and is computed
//! again later from its tokens; what it had drawn stays.

mod options;
mod pace;
mod planner;
mod queue;
mod run;
mod sequence;
mod speculate;
mod stats;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;

pub use self::options::{SchedulerOptions, Speculation, SubmitOptions};
pub use self::stats::{SchedulerStats, SlotState, SlotStats};
pub use self::stream::{GenerationStream, OwnedLogprobs, StreamEvent};

use self::queue::Queue;
use self::run::Runner;
use self::sequence::{Ticket, Waiting};
use self::stream::Collect;
use crate::engine::{Core, InferenceEngine};
use crate::error::EngineError;
use crate::generate::{GenerateRequest, Generation, Prepared, checked_count};

/// How a scheduler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// It finishes all requests it has taken.
    Drain,
    /// Those that have begun end where they are, with [`FinishReason::Cancelled`](crate::FinishReason); those that
    /// wait fail with [`EngineError::ShuttingDown`].
    Cancel,
}

/// Runs requests together, on a thread of its own that starts with the first. Belongs to an [`InferenceEngine`].
pub struct Scheduler {
    core: Arc<Core>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and those who submit share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was submitted, or the end has come.
    wake: Condvar,
    /// Room came up in the queue.
    room: Notify,
    /// Locked by those who hold `state`.
    stats: Mutex<SchedulerStats>,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue<Waiting>,
    /// Requests that the thread has taken from the queue, but that wait for blocks or are not shown yet.
    held: usize,
    /// Sequences that could start at once.
    free: usize,
    closing: Option<Shutdown>,
    started: bool,
    next_id: u64,
    rejected: u64,
}

impl State {
    /// Requests that wait.
    fn waiting(&self) -> usize {
        self.queue.len() + self.held
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("options", self.core.options()).finish_non_exhaustive()
    }
}

impl Scheduler {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let state = State { free: core.options().max_running, ..State::default() };
        let shared = Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            room: Notify::new(),
            stats: Mutex::new(SchedulerStats::default()),
        };
        Self { core, shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Takes a request. Encodes its prompt, but waits neither for the model nor for other requests.
    ///
    /// # Errors
    /// At once what is wrong with the request ([`EngineError::Parameter`], [`EngineError::PromptTooLong`] and so on),
    /// [`EngineError::QueueFull`] and [`EngineError::ShuttingDown`]; what happens later is in the stream.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a request is handed over; what is kept of it may change"
    )]
    pub fn submit(
        &self,
        request: GenerateRequest,
        options: SubmitOptions,
    ) -> Result<GenerationStream, EngineError> {
        self.try_submit(&request, options)
    }

    fn try_submit(
        &self,
        request: &GenerateRequest,
        options: SubmitOptions,
    ) -> Result<GenerationStream, EngineError> {
        let submitted = Instant::now();
        // Asked before the prompt is encoded, as that is work, and again when it is.
        self.admit(&mut self.shared.state())?;
        let count = checked_count(request)?;
        let prepared = if count > request.n && request.logprobs.is_none() {
            self.core.prepare(&GenerateRequest { logprobs: Some(0), ..request.clone() })?
        } else {
            self.core.prepare(request)?
        };
        let Prepared { prompt, completion } = prepared;
        let (sender, receiver) = unbounded_channel();
        let mut state = self.shared.state();
        self.admit(&mut state)?;
        self.start(&mut state)?;
        let id = state.next_id;
        state.next_id += 1;
        let SubmitOptions { priority, deadline, client, id: request_id, ends_only } = options;
        let ticket = Ticket {
            id,
            request_id,
            client,
            priority,
            deadline,
            submitted,
            prompt,
            count,
            events: sender,
            ends_only,
            open: AtomicUsize::new(count),
            begun: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            prompt_computed: AtomicBool::new(false),
        };
        let client = ticket.client.clone();
        state.queue.push(priority, client, Waiting { ticket: Arc::new(ticket), completion });
        drop(state);
        self.shared.wake.notify_one();
        let collect = Collect { count, n: request.n, logprobs: request.logprobs.is_some() };
        Ok(GenerationStream::new(id, collect, receiver))
    }

    /// Whether a request can be taken now.
    fn admit(&self, state: &mut State) -> Result<(), EngineError> {
        if state.closing.is_some() {
            return Err(EngineError::ShuttingDown);
        }
        let capacity = self.core.options().queue_capacity;
        if state.waiting() >= capacity.saturating_add(state.free) {
            state.rejected += 1;
            return Err(EngineError::QueueFull { capacity });
        }
        Ok(())
    }

    /// Starts the thread, if it does not run yet.
    fn start(&self, state: &mut State) -> Result<(), EngineError> {
        if state.started {
            return Ok(());
        }
        let runner = Runner::new(Arc::clone(&self.core), Arc::clone(&self.shared));
        let thread = std::thread::Builder::new()
            .name("bitnet-scheduler".to_owned())
            .spawn(move || runner.run())
            .map_err(|source| bitnet_core::CoreError::Thread { index: 0, source })
            .map_err(bitnet_model::ExecError::from)?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        state.started = true;
        Ok(())
    }

    /// What goes on, as of the last step.
    pub fn stats(&self) -> SchedulerStats {
        let state = self.shared.state();
        let (queued, rejected, requests_total) = (state.waiting(), state.rejected, state.next_id);
        // Under the same lock, as it is written: a request is in one place.
        let mut stats = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        drop(state);
        let options = self.core.options();
        (stats.queued, stats.rejected, stats.requests_total) = (queued, rejected, requests_total);
        (stats.max_running, stats.queue_capacity) = (options.max_running, options.queue_capacity);
        let pool = crate::kv::lock(self.core.pool()).stats();
        (stats.blocks_total, stats.block_size) = (pool.total, pool.block_size);
        (stats.blocks_in_use, stats.blocks_cached) = (pool.in_use, pool.cached);
        stats
    }

    /// Takes no more requests and waits until those it has taken have ended; how is `how`'s business. A second call may turn
    /// [`Shutdown::Drain`] into [`Shutdown::Cancel`].
    pub fn shutdown(&self, how: Shutdown) {
        {
            let mut state = self.shared.state();
            if state.closing != Some(Shutdown::Cancel) {
                state.closing = Some(how);
            }
        }
        self.shared.wake.notify_one();
        self.shared.room.notify_waiters();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It catches panics itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Cancel);
    }
}

impl InferenceEngine {
    /// Runs a request beside all others. The text is that of [`generate_blocking`](Self::generate_blocking). Dropping the
    /// future cancels the request.
    ///
    /// # Errors
    /// As [`Scheduler::submit`], and what happens later. More than one completion is the business of
    /// [`generate_stream`](Self::generate_stream).
    pub async fn generate(&self, request: GenerateRequest) -> Result<Generation, EngineError> {
        request.check_single()?;
        single(self.generate_stream(request)?).await
    }

    /// Runs a request beside all others and gives its events.
    ///
    /// # Errors
    /// As [`Scheduler::submit`].
    pub fn generate_stream(&self, request: GenerateRequest) -> Result<GenerationStream, EngineError> {
        self.scheduler().submit(request, SubmitOptions::default())
    }

    /// Runs requests together; gives their results in the order of the requests. However many there are, those that the
    /// scheduler's queue does not hold wait here.
    pub async fn generate_batch(
        &self,
        requests: Vec<GenerateRequest>,
    ) -> Vec<Result<Generation, EngineError>> {
        let mut streams = Vec::with_capacity(requests.len());
        for request in requests {
            streams.push(self.submit_when_possible(&request).await);
        }
        let mut results = Vec::with_capacity(streams.len());
        for stream in streams {
            results.push(match stream {
                Ok(stream) => single(stream).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    pub(crate) async fn submit_when_possible(
        &self,
        request: &GenerateRequest,
    ) -> Result<GenerationStream, EngineError> {
        request.check_single()?;
        loop {
            // From here on no message that there is room is missed.
            let room = self.scheduler().shared.room.notified();
            match self.scheduler().try_submit(request, SubmitOptions::default()) {
                Err(EngineError::QueueFull { .. }) => room.await,
                other => return other,
            }
        }
    }
}

/// The result of a request with one completion.
async fn single(stream: GenerationStream) -> Result<Generation, EngineError> {
    stream.finish().await?.pop().ok_or(EngineError::ShuttingDown)
}
