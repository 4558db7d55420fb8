//! [`InferenceStream`]: results of any source of inputs, as they come.
//!
//! There are three modes. [`sequential`](InferenceStream::sequential) processes one input after the other,
//! [`parallel`](InferenceStream::parallel) several at a time, and [`timed`](InferenceStream::timed) waits a little so that
//! inputs that arrive at about the same time are computed together. In all of them an input that fails gives an error as
//! *its* result and the stream goes on; inputs are read no faster than results are; dropping the stream cancels what runs
//! and drops what waits.
//!
//! ```
//! use bitnet_inference::stream::{InferenceStream, StreamingConfig, sources};
//! use bitnet_inference::{EngineError, InferRequest};
//! # use bitnet_inference::InferenceEngine;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! let inputs = sources::from_vec(vec![InferRequest::new("The cat"), InferRequest::new(vec![u32::MAX])]);
//! let mut stream = InferenceStream::sequential(engine, inputs, StreamingConfig::default())?;
//! let first = stream.next().await.expect("two inputs");
//! assert!(first.result.is_ok());
//! let second = stream.next().await.expect("two inputs");
//! assert!(second.result.is_err(), "there is no such token");
//! assert!(stream.next().await.is_none());
//! # Ok(())
//! # }
//! ```

pub mod sources;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

pub use self::sources::Source;
use crate::background::block_on;
use crate::error::EngineError;
use crate::parallel::{Completed, Limits, Queue, check_range, start};
use crate::process::Process;

/// How an [`InferenceStream`] flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamingConfig {
    /// Inputs that are read ahead of those being processed; in the timed mode also the most that are processed together.
    /// 16 by default.
    pub buffer_size: usize,
    /// How many milliseconds an input waits for others, in the timed mode; 10 by default. 0 waits for none.
    pub max_latency_ms: u64,
    /// Whether results come in the order of their inputs, by default; else as they are ready, in the parallel mode.
    pub preserve_order: bool,
    /// Results that may wait to be read before no input is begun any more; 16 by default.
    pub channel_capacity: usize,
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self { buffer_size: 16, max_latency_ms: 10, preserve_order: true, channel_capacity: 16 }
    }
}

/// One result of a stream.
#[derive(Debug)]
pub struct StreamItem<O> {
    /// Number of its input in the source, from 0.
    pub index: u64,
    /// What became of it.
    pub result: Result<O, EngineError>,
}

/// What an [`InferenceStream`] has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamStats {
    /// Inputs read from the source.
    pub read: u64,
    /// Those of them that are done, failed ones included.
    pub completed: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Calls of the processor that were begun, of one or several inputs.
    pub calls: u64,
}

/// A [`Stream`] of results; see the [module's example](self).
pub struct InferenceStream<I, O> {
    queue: Arc<Queue<I, O>>,
    source: Source<I>,
    /// An input for which there was no room yet.
    held: Option<I>,
    /// The source has ended.
    ended: bool,
}

impl<I, O> std::fmt::Debug for InferenceStream<I, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.queue.counts();
        f.debug_struct("InferenceStream")
            .field("counts", &counts)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

// Nothing in it is pinned: sources are behind pointers of their own.
impl<I, O> Unpin for InferenceStream<I, O> {}

impl<I: Send + 'static, O: Send + 'static> InferenceStream<I, O> {
    /// Processes one input after the other.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if the configuration is not possible; if the system starts no thread.
    pub fn sequential<P: Process<I, Output = O>>(
        processor: P,
        source: impl Into<Source<I>>,
        config: StreamingConfig,
    ) -> Result<Self, EngineError> {
        Self::new(processor, source.into(), config, 1, 1)
    }

    /// Processes up to `workers` inputs at a time, each on a thread of its own.
    ///
    /// # Errors
    /// As [`sequential`](Self::sequential).
    pub fn parallel<P: Process<I, Output = O>>(
        processor: P,
        source: impl Into<Source<I>>,
        workers: usize,
        config: StreamingConfig,
    ) -> Result<Self, EngineError> {
        Self::new(processor, source.into(), config, workers, 1)
    }

    /// Gathers inputs until there are [`buffer_size`](StreamingConfig::buffer_size), the first of them has waited
    /// [`max_latency_ms`](StreamingConfig::max_latency_ms), or the source has ended, and processes them together.
    ///
    /// # Errors
    /// As [`sequential`](Self::sequential).
    pub fn timed<P: Process<I, Output = O>>(
        processor: P,
        source: impl Into<Source<I>>,
        config: StreamingConfig,
    ) -> Result<Self, EngineError> {
        Self::new(processor, source.into(), config, 1, config.buffer_size)
    }

    fn new<P: Process<I, Output = O>>(
        processor: P,
        source: Source<I>,
        config: StreamingConfig,
        workers: usize,
        gather: usize,
    ) -> Result<Self, EngineError> {
        check_range("workers", workers, 1024, "from 1 to 1024")?;
        check_range("buffer_size", config.buffer_size, usize::MAX, "1 or more")?;
        check_range("channel_capacity", config.channel_capacity, usize::MAX, "1 or more")?;
        let limits = Limits {
            inputs: config.buffer_size,
            results: config.channel_capacity,
            ordered: config.preserve_order,
            gather,
            patience: Duration::from_millis(config.max_latency_ms),
        };
        let queue = Arc::new(Queue::new(limits));
        // The threads end by themselves when the queue does; nobody waits for them.
        start(&queue, processor, workers)?;
        Ok(Self { queue, source, held: None, ended: false })
    }

    /// The next result; `None` after the last.
    pub async fn next(&mut self) -> Option<StreamItem<O>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// As [`next`](Self::next), blocking this thread.
    pub fn next_blocking(&mut self) -> Option<StreamItem<O>> {
        block_on(|context| self.poll(context))
    }

    /// What was done so far.
    pub fn stats(&self) -> StreamStats {
        let counts = self.queue.counts();
        StreamStats {
            read: counts.submitted + u64::from(self.held.is_some()),
            completed: counts.completed,
            failed: counts.failed,
            calls: counts.calls,
        }
    }

    /// Reads inputs while there is room, then a result.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<StreamItem<O>>> {
        while !self.ended {
            if self.held.is_none() {
                match self.source.poll_next(context) {
                    Poll::Ready(Some(input)) => self.held = Some(input),
                    Poll::Ready(None) => {
                        self.ended = true;
                        self.queue.close();
                        break;
                    }
                    Poll::Pending => break,
                }
            }
            match self.queue.poll_push(context, &mut self.held) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => self.ended = true,
                Poll::Pending => break,
            }
        }
        let item = |Completed { id, result }| StreamItem { index: id, result };
        self.queue.poll_pop(context).map(|completed| completed.map(item))
    }
}

impl<I: Send + 'static, O: Send + 'static> Stream for InferenceStream<I, O> {
    type Item = StreamItem<O>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<StreamItem<O>>> {
        self.poll(context)
    }
}

impl<I, O> Drop for InferenceStream<I, O> {
    fn drop(&mut self) {
        self.queue.cancel.cancel();
        drop(self.queue.abandon());
    }
}

#[cfg(test)]
mod tests;
