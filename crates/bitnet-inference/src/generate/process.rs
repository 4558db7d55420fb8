//! Generation as a [`Process`]: for batch processors, parallel processors and streams.

use std::pin::pin;

use super::{GenerateRequest, Generation};
use crate::background::{Cancel, block_on};
use crate::engine::InferenceEngine;
use crate::error::EngineError;
use crate::process::Process;
use crate::scheduler::{GenerationStream, StreamEvent};

impl Process<GenerateRequest> for InferenceEngine {
    type Output = Generation;

    /// Runs a request of one completion beside all others of the engine.
    fn process(&self, input: &GenerateRequest, cancel: &Cancel) -> Result<Generation, EngineError> {
        let mut results = self.process_batch(&[input], cancel);
        results.pop().unwrap_or(Err(EngineError::Cancelled))
    }

    /// Runs all requests together. Keys and values need no counting here: requests wait for them.
    fn process_batch(
        &self,
        inputs: &[&GenerateRequest],
        cancel: &Cancel,
    ) -> Vec<Result<Generation, EngineError>> {
        let mut streams = Vec::with_capacity(inputs.len());
        for input in inputs {
            let mut submit = pin!(self.submit_when_possible(input));
            streams.push(block_on(|context| submit.as_mut().poll(context)));
        }
        streams.into_iter().map(|stream| result(stream?, cancel)).collect()
    }
}

/// The end of a stream with one completion.
fn result(mut stream: GenerationStream, cancel: &Cancel) -> Result<Generation, EngineError> {
    while let Some(event) = stream.blocking_next() {
        if cancel.is_cancelled() {
            break;
        }
        if let StreamEvent::Finished { generation, .. } = event? {
            return Ok(generation);
        }
    }
    Err(EngineError::Cancelled)
}
