//! [`ParallelInferenceProcessor`]: worker threads behind a bounded queue.
//!
//! ```
//! use bitnet_inference::{GenerateRequest, ParallelConfig, ParallelInferenceProcessor, Prompt};
//! # use bitnet_inference::{EngineError, InferenceEngine, ShutdownMode};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! let processor = ParallelInferenceProcessor::new(engine, ParallelConfig::default())?;
//! for text in ["Once upon a time", "The dog"] {
//!     processor.submit(GenerateRequest::new(Prompt::text(text)).max_tokens(4).seed(1)).await?;
//! }
//! let first = processor.next().await.expect("two were submitted");
//! assert_eq!(first.id, 0);
//! println!("{}", first.result?.text);
//! let rest = processor.shutdown(ShutdownMode::Finish).await?;
//! assert_eq!((rest.results.len(), rest.returned.len()), (1, 0));
//! # Ok(())
//! # }
//! ```

mod queue;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) use self::queue::{Limits, Queue};
use crate::background::{self, block_on};
use crate::error::{EngineError, ParameterError};
use crate::process::{self, Process};

/// How a [`ParallelInferenceProcessor`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParallelConfig {
    /// Threads that process inputs, each one at a time; 2 by default.
    pub workers: usize,
    /// Inputs that may wait for a worker, and results that may wait to be read; 64 by default.
    pub queue_capacity: usize,
    /// Whether results come in the order of their inputs, by default; else as they are ready.
    pub ordered: bool,
}

impl Default for ParallelConfig {
    fn default() -> Self {
        Self { workers: 2, queue_capacity: 64, ordered: true }
    }
}

/// A result with the number of its input; inputs are counted from 0 as they are submitted.
#[derive(Debug)]
pub struct Completed<O> {
    /// Number of the input.
    pub id: u64,
    /// What became of it.
    pub result: Result<O, EngineError>,
}

/// Why an input was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// As many wait as may.
    Full {
        /// How many that is.
        capacity: usize,
    },
    /// The processor was shut down.
    Closed,
}

/// An input that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected<I> {
    /// The input.
    pub input: I,
    /// Why it was not taken.
    pub reason: RejectReason,
}

impl<I> From<Rejected<I>> for EngineError {
    fn from(rejected: Rejected<I>) -> Self {
        match rejected.reason {
            RejectReason::Full { capacity } => Self::QueueFull { capacity },
            RejectReason::Closed => Self::ShuttingDown,
        }
    }
}

/// How a [`ParallelInferenceProcessor`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// All inputs that were taken are processed.
    Finish,
    /// Inputs that are being processed are finished, all others returned.
    Return,
}

/// What a [`ParallelInferenceProcessor`] had when it ended: every input that was taken and whose result was not read is
/// here, once.
#[derive(Debug)]
pub struct ShutdownReport<I, O> {
    /// Results that were not read, by the numbers of their inputs.
    pub results: Vec<Completed<O>>,
    /// Inputs that were not begun, with their numbers.
    pub returned: Vec<(u64, I)>,
}

/// What a [`ParallelInferenceProcessor`] does and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParallelStats {
    /// Inputs taken.
    pub submitted: u64,
    /// Those of them that are done, failed ones included.
    pub completed: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Inputs that wait for a worker.
    pub waiting: usize,
    /// Inputs that are being processed.
    pub running: usize,
    /// Results that nobody has read yet.
    pub unread: usize,
}

/// Processes inputs on worker threads; see the [module's example](self). It never holds more than its capacity of inputs
/// and of unread results: [`submit`](Self::submit) waits for room, [`try_submit`](Self::try_submit) gives the input back,
/// and workers pause while results are not read. Dropping it drops what was not begun and tells what runs to stop.
pub struct ParallelInferenceProcessor<I, O> {
    queue: Arc<Queue<I, O>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl<I, O> std::fmt::Debug for ParallelInferenceProcessor<I, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParallelInferenceProcessor")
            .field("counts", &self.queue.counts())
            .finish_non_exhaustive()
    }
}

/// Starts threads that process what comes into `queue` until it ends.
///
/// # Errors
/// If the system starts no thread; those that were started end.
pub(crate) fn start<I, O, P>(
    queue: &Arc<Queue<I, O>>,
    processor: P,
    workers: usize,
) -> Result<Vec<JoinHandle<()>>, EngineError>
where
    I: Send + 'static,
    O: Send + 'static,
    P: Process<I, Output = O>,
{
    let processor = Arc::new(processor);
    let mut threads = Vec::with_capacity(workers);
    for index in 0..workers {
        let (own, processor) = (Arc::clone(queue), Arc::clone(&processor));
        let started = background::spawn("bitnet-worker", index, move || {
            while let Some(items) = own.take() {
                let inputs: Vec<&I> = items.iter().map(|(_, input)| input).collect();
                let results = process::run(&*processor, &inputs, &own.cancel);
                own.done(items.iter().map(|(id, _)| *id).zip(results));
            }
        });
        match started {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                queue.close();
                return Err(error);
            }
        }
    }
    Ok(threads)
}

/// Refuses numbers that are not possible.
pub(crate) fn check_range(
    name: &'static str,
    value: usize,
    most: usize,
    allowed: &'static str,
) -> Result<(), EngineError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(ParameterError { name, value: value.to_string(), allowed }.into())
}

impl<I: Send + 'static, O: Send + 'static> ParallelInferenceProcessor<I, O> {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if the configuration is not possible; if the system starts no thread.
    pub fn new<P: Process<I, Output = O>>(processor: P, config: ParallelConfig) -> Result<Self, EngineError> {
        check_range("workers", config.workers, 1024, "from 1 to 1024")?;
        check_range("queue_capacity", config.queue_capacity, usize::MAX, "1 or more")?;
        let limits = Limits {
            inputs: config.queue_capacity,
            results: config.queue_capacity,
            ordered: config.ordered,
            gather: 1,
            patience: Duration::ZERO,
        };
        let queue = Arc::new(Queue::new(limits));
        let workers = Mutex::new(start(&queue, processor, config.workers)?);
        Ok(Self { queue, workers })
    }

    /// Takes an input if there is room; returns its number.
    ///
    /// # Errors
    /// [`Rejected`] with the input.
    pub fn try_submit(&self, input: I) -> Result<u64, Rejected<I>> {
        self.queue.try_push(input)
    }

    /// Takes an input once there is room; returns its number. Results must be read meanwhile, or there may never be.
    ///
    /// # Errors
    /// [`Rejected`] with the input, if the processor was shut down.
    pub async fn submit(&self, input: I) -> Result<u64, Rejected<I>> {
        let mut held = Some(input);
        std::future::poll_fn(|context| self.queue.poll_push(context, &mut held)).await
    }

    /// As [`submit`](Self::submit), blocking this thread.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_blocking(&self, input: I) -> Result<u64, Rejected<I>> {
        let mut held = Some(input);
        block_on(|context| self.queue.poll_push(context, &mut held))
    }

    /// The next result: that of the next input where results are ordered, else whichever is there. Waits while the processor
    /// is open; `None` once it is [closed](Self::close) and all results were read.
    pub async fn next(&self) -> Option<Completed<O>> {
        std::future::poll_fn(|context| self.queue.poll_pop(context)).await
    }

    /// As [`next`](Self::next), blocking this thread.
    pub fn next_blocking(&self) -> Option<Completed<O>> {
        block_on(|context| self.queue.poll_pop(context))
    }

    /// The next result if it is there now.
    pub fn try_next(&self) -> Option<Completed<O>> {
        self.queue.try_pop()
    }

    /// Takes no more inputs. Those that were taken are processed, and [`next`](Self::next) ends after their results.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// What it does and has done.
    pub fn stats(&self) -> ParallelStats {
        let counts = self.queue.counts();
        ParallelStats {
            submitted: counts.submitted,
            completed: counts.completed,
            failed: counts.failed,
            waiting: counts.waiting,
            running: counts.running,
            unread: counts.unread,
        }
    }

    /// Takes no more inputs, ends as `mode` says, and gives all results that were not read and all inputs that were not
    /// begun.
    ///
    /// # Errors
    /// If the system starts no thread to wait on.
    pub async fn shutdown(self, mode: ShutdownMode) -> Result<ShutdownReport<I, O>, EngineError> {
        background::run(move |_| Ok(self.shutdown_blocking(mode))).await
    }

    /// As [`shutdown`](Self::shutdown), blocking this thread.
    pub fn shutdown_blocking(self, mode: ShutdownMode) -> ShutdownReport<I, O> {
        let returned = match mode {
            ShutdownMode::Finish => {
                self.queue.close();
                Vec::new()
            }
            ShutdownMode::Return => self.queue.abandon(),
        };
        let mut results = Vec::new();
        // Workers pause while too many results wait, so these are taken until the last is there.
        while let Some(completed) = block_on(|context| self.queue.poll_pop(context)) {
            results.push(completed);
        }
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            // A worker catches the panics of what it processes.
            let _ = worker.join();
        }
        results.extend(self.queue.drain());
        results.sort_by_key(|completed| completed.id);
        ShutdownReport { results, returned }
    }
}

impl<I, O> Drop for ParallelInferenceProcessor<I, O> {
    fn drop(&mut self) {
        self.queue.cancel.cancel();
        drop(self.queue.abandon());
    }
}

#[cfg(test)]
mod tests;
