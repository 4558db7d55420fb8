//! Work on threads of their own, for async functions: no runtime is needed, and none is blocked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Builder, Thread};

use bitnet_core::CoreError;
use bitnet_model::ExecError;
use tokio::sync::oneshot;

use crate::error::EngineError;

/// Whether somebody still wants a result. Clones are one flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the result is not wanted any more.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the result is not wanted any more.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Cancels when it is dropped.
struct OnDrop(Cancel);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs `work` on a thread and waits for its result without blocking. Dropping the future tells `work` to stop.
///
/// # Errors
/// What `work` says; [`EngineError::RequestPanicked`] if it panics; if the system starts no thread.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce(&Cancel) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let (sender, receiver) = oneshot::channel();
    let cancel = Cancel::new();
    let _guard = OnDrop(cancel.clone());
    spawn("bitnet-work", 0, move || {
        if !cancel.is_cancelled() {
            // Nobody listens any more if this fails.
            let _ = sender.send(caught(|| work(&cancel)));
        }
    })?;
    let lost = || EngineError::RequestPanicked { message: "the thread ended without a result".to_owned() };
    receiver.await.unwrap_or_else(|_| Err(lost()))
}

/// Starts a thread.
///
/// # Errors
/// If the system refuses.
pub(crate) fn spawn(
    name: &str,
    index: usize,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, EngineError> {
    let started = Builder::new().name(format!("{name}-{index}")).spawn(work);
    started.map_err(|source| ExecError::Core(CoreError::Thread { index, source }).into())
}

/// Runs `work`, and makes a panic in it an error.
///
/// # Errors
/// What `work` says, and [`EngineError::RequestPanicked`].
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(EngineError::RequestPanicked { message: text.unwrap_or_else(|| "without a message".to_owned()) })
    })
}

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits, blocking this thread, until `poll` is ready.
pub(crate) fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
