//! [`Failure`]: whether trying again may help, and when.

use std::time::Duration;

use crate::events::{Event, Observer};
use crate::{HubConfig, HubError, Result};

/// The longest a server may ask to wait before that is told to the person instead.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// The longest pause between attempts that this program chooses itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// An attempt that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) error: HubError,
    /// Whether another attempt may succeed.
    again: bool,
    /// What the server asked to wait.
    wait: Option<Duration>,
}

impl Failure {
    /// A failure that may pass.
    pub(crate) fn passing(error: HubError) -> Self {
        Self { error, again: true, wait: None }
    }

    /// The same with the wait that the server asked for.
    pub(crate) fn after(error: HubError, wait: Option<Duration>) -> Self {
        Self { error, again: true, wait }
    }
}

/// Failures are for good unless said otherwise.
impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self { error, again: false, wait: None }
    }
}

/// Counts attempts without progress.
pub(crate) struct Attempts<'a> {
    what: &'a str,
    failed: u32,
    most: u32,
    pause: Duration,
    observer: &'a Observer<'a>,
}

impl<'a> Attempts<'a> {
    /// Begins to count for `what`.
    pub(crate) fn new(what: &'a str, config: &HubConfig, observer: &'a Observer<'a>) -> Self {
        Self { what, failed: 0, most: config.retries, pause: config.first_pause, observer }
    }

    /// Begins again: something was gained.
    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits until it is time for the next attempt.
    ///
    /// # Errors
    /// The failure if there is to be none.
    pub(crate) fn pause(&mut self, failure: Failure) -> Result<()> {
        let asked = failure.wait.unwrap_or_default();
        if !failure.again || self.failed >= self.most || asked > LONGEST_WAIT {
            return Err(failure.error);
        }
        let own = self.pause.saturating_mul(1 << self.failed.min(16)).min(LONGEST_PAUSE);
        self.failed += 1;
        let delay = own.max(asked);
        let event = Event::Retry { what: self.what, error: &failure.error, delay };
        if (self.observer)(event).is_break() {
            return Err(HubError::Stopped);
        }
        std::thread::sleep(delay);
        Ok(())
    }

    /// Runs `attempt` until it succeeds or there is no point in it.
    ///
    /// # Errors
    /// That of the last attempt.
    pub(crate) fn run<T>(mut self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => self.pause(failure)?,
            }
        }
    }
}
