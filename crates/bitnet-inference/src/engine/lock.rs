//! [`FairMutex`]: a lock that threads get in turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex whose holder, when it wants the lock again at once, lets another waiting thread have it first. Otherwise a
/// scheduler that runs step after step would shut everyone else out.
#[derive(Debug)]
pub(super) struct FairMutex<T> {
    /// Held by the thread that gets the lock next.
    next: Mutex<()>,
    inner: Mutex<T>,
}

impl<T> FairMutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self { next: Mutex::new(()), inner: Mutex::new(value) }
    }

    /// Waits for its turn. A thread that panicked with the lock does not spoil it: what it guards says why.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        let _next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
