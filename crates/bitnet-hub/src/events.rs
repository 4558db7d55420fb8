//! [`Event`]: what happens while a model is fetched, for whoever shows it.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::HubError;

/// Something that happened. Events of different files come from different threads.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process writes this file; it is waited for.
    Waiting {
        /// Path in the repository.
        file: &'a str,
    },
    /// A file begins to come.
    Started {
        /// Path in the repository.
        file: &'a str,
        /// Bytes that were there from an earlier attempt.
        resumed: u64,
        /// Bytes of the whole file.
        size: u64,
    },
    /// Bytes came. They may become fewer: when a server cannot go on from where it was, a file starts again.
    Progress {
        /// Path in the repository.
        file: &'a str,
        /// Bytes of the file that are there.
        bytes: u64,
    },
    /// Something failed and is tried again.
    Retry {
        /// What is fetched.
        what: &'a str,
        /// Why it failed.
        error: &'a HubError,
        /// How long is waited before.
        delay: Duration,
    },
    /// A file is in its place, verified.
    Done {
        /// Path in the repository.
        file: &'a str,
        /// Its bytes.
        size: u64,
    },
}

/// Sees the events; what it returns says whether to go on.
pub type Observer<'a> = dyn Fn(Event<'_>) -> ControlFlow<()> + Sync + 'a;

/// An [`Observer`] that looks away.
pub fn silent(_: Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
