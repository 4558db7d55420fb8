//! Where the inputs of an [`InferenceStream`](super::InferenceStream) come from.
//!
//! ```
//! use std::time::Duration;
//! use bitnet_inference::stream::sources;
//!
//! let _ = sources::from_vec(vec![1, 2, 3]);
//! let _ = sources::from_iter((0..).map(|n| n * n));
//! let mut left = 3;
//! let _ = sources::interval(Duration::from_millis(10), move || {
//!     left -= 1;
//!     (left >= 0).then_some(left)
//! });
//! let (sender, _source) = sources::channel(8);
//! sender.blocking_send("an input").unwrap();
//! ```

use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::background;
use crate::error::EngineError;

/// Inputs that come one after the other.
pub struct Source<I>(Pin<Box<dyn Stream<Item = I> + Send>>);

impl<I> std::fmt::Debug for Source<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

impl<I> Source<I> {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<I>> {
        self.0.as_mut().poll_next(context)
    }
}

impl<I: Send + 'static> From<Vec<I>> for Source<I> {
    fn from(inputs: Vec<I>) -> Self {
        from_vec(inputs)
    }
}

/// An iterator as a stream that is always ready.
struct Ready<T>(T);

impl<T: Iterator + Unpin> Stream for Ready<T> {
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T::Item>> {
        Poll::Ready(self.0.next())
    }
}

/// What the receiver of a channel gives.
struct Received<I>(tokio::sync::mpsc::Receiver<I>);

impl<I> Stream for Received<I> {
    type Item = I;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<I>> {
        self.0.poll_recv(context)
    }
}

/// The inputs of a list.
pub fn from_vec<I: Send + 'static>(inputs: Vec<I>) -> Source<I> {
    from_iter(inputs)
}

/// Whatever an iterator gives; it is asked for the next input only when there is room for it. An iterator that waits blocks
/// whoever polls the stream: give such inputs by a [`channel`].
pub fn from_iter<T>(inputs: T) -> Source<T::Item>
where
    T: IntoIterator,
    T::IntoIter: Send + 'static,
{
    Source(Box::pin(Ready(Box::new(inputs.into_iter()))))
}

/// Whatever an asynchronous stream gives; it is polled only when there is room.
pub fn from_stream<S: Stream + Send + 'static>(inputs: S) -> Source<S::Item> {
    Source(Box::pin(inputs))
}

/// A source, and what puts inputs into it from elsewhere. `capacity` inputs, at least one, wait there before the sender
/// must wait. The source ends when all senders are dropped.
pub fn channel<I: Send + 'static>(capacity: usize) -> (tokio::sync::mpsc::Sender<I>, Source<I>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(capacity.clamp(1, 1 << 20));
    (sender, Source(Box::pin(Received(receiver))))
}

/// Asks `make` for an input every `period`, the first after one period, until it gives none. A thread of its own keeps
/// time, so no runtime is needed; it ends when the stream is dropped. While there is no room it waits and makes none.
///
/// # Errors
/// If the system starts no thread.
pub fn interval<I: Send + 'static>(
    period: Duration,
    mut make: impl FnMut() -> Option<I> + Send + 'static,
) -> Result<Source<I>, EngineError> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    // Dropping the stream drops this, which ends the wait at once.
    let (alive, ended) = mpsc::channel::<()>();
    background::spawn("bitnet-timer", 0, move || {
        while ended.recv_timeout(period) == Err(mpsc::RecvTimeoutError::Timeout) {
            let Some(input) = make() else { return };
            if sender.blocking_send(input).is_err() {
                return;
            }
        }
    })?;
    Ok(Source(Box::pin(Timed { inputs: Received(receiver), _alive: alive })))
}

/// Inputs from a timer's thread.
struct Timed<I> {
    inputs: Received<I>,
    _alive: mpsc::Sender<()>,
}

impl<I> Stream for Timed<I> {
    type Item = I;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<I>> {
        Pin::new(&mut self.inputs).poll_next(context)
    }
}
