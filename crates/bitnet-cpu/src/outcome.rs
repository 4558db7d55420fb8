//! [`Outcome`]: what went wrong in a forward pass, as any of its threads found out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bitnet_core::CoreError;
use bitnet_model::ExecError;

/// Shared by the threads of a pass. They go on after a failure, so that no barrier waits for one of them.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    not_finite: AtomicBool,
    failure: Mutex<Option<CoreError>>,
}

impl Outcome {
    /// A logit is not a number.
    pub(crate) fn not_finite(&self) {
        self.not_finite.store(true, Ordering::Relaxed);
    }

    /// Rows of the model's file could not be read. The first failure counts.
    pub(crate) fn fail(&self, error: CoreError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The result of the whole pass.
    ///
    /// # Errors
    /// What was reported; a failure explains numbers that are none.
    pub(crate) fn result(self) -> Result<(), ExecError> {
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None if self.not_finite.into_inner() => Err(ExecError::NotFinite),
            None => Ok(()),
        }
    }
}
