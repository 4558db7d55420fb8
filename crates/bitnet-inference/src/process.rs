//! [`Process`]: what batch processors, parallel processors and streams do with their inputs.

use bitnet_core::{CoreError, MemorySize};
use bitnet_model::ExecError;

use crate::background::{Cancel, caught};
use crate::error::EngineError;

/// Turns inputs of one type into outputs. An [`InferenceEngine`](crate::InferenceEngine) does it with
/// [`InferRequest`](crate::InferRequest)s and [`GenerateRequest`](crate::GenerateRequest)s, a function with whatever it
/// takes:
///
/// ```
/// use bitnet_inference::{BatchConfig, BatchProcessor, EngineError};
///
/// let lengths = BatchProcessor::new(|text: &String| Ok::<_, EngineError>(text.len()), BatchConfig::default())?;
/// let results = lengths.process_blocking(&["one".to_owned(), "three".to_owned()]);
/// assert_eq!(results.into_iter().collect::<Result<Vec<_>, _>>()?, [3, 5]);
/// # Ok::<(), EngineError>(())
/// ```
pub trait Process<I>: Send + Sync + 'static {
    /// What comes out.
    type Output: Send + 'static;

    /// Processes one input. It may stop early, with any result, when `cancel` says that nobody wants it any more.
    ///
    /// # Errors
    /// What is wrong with this input; others are not concerned.
    fn process(&self, input: &I, cancel: &Cancel) -> Result<Self::Output, EngineError>;

    /// Processes several inputs together; one result each, in their order.
    fn process_batch(&self, inputs: &[&I], cancel: &Cancel) -> Vec<Result<Self::Output, EngineError>> {
        inputs.iter().map(|input| self.process(input, cancel)).collect()
    }

    /// Memory that an input takes while it is processed, as well as it can be told; 0 if it does not count.
    fn memory_of(&self, input: &I) -> MemorySize {
        let _ = input;
        MemorySize::bytes(0)
    }

    /// Memory that there is for inputs now; `None` if there is no limit.
    fn free_memory(&self) -> Option<MemorySize> {
        None
    }
}

impl<I, O, F> Process<I> for F
where
    O: Send + 'static,
    F: Fn(&I) -> Result<O, EngineError> + Send + Sync + 'static,
{
    type Output = O;

    fn process(&self, input: &I, _: &Cancel) -> Result<O, EngineError> {
        self(input)
    }
}

/// Processes inputs so that a panic is the error of the input that caused it, and no other's.
pub(crate) fn run<I, P: Process<I> + ?Sized>(
    processor: &P,
    inputs: &[&I],
    cancel: &Cancel,
) -> Vec<Result<P::Output, EngineError>> {
    if inputs.len() > 1 {
        let results = caught(|| Ok(processor.process_batch(inputs, cancel)));
        match results {
            Ok(results) if results.len() == inputs.len() => return results,
            // One of them is to blame: each by itself shows which.
            _ => {}
        }
    }
    inputs.iter().map(|input| caught(|| processor.process(input, cancel))).collect()
}

/// Whether there was not enough memory, so that the same may go well in smaller batches.
pub(crate) fn is_short_of_memory(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Sessions(_)
            | EngineError::Exec(ExecError::Core(CoreError::PoolFull { .. } | CoreError::OutOfMemory { .. }))
    )
}
