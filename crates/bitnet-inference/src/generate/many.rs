//! [`InferenceEngine::generate_n`]: several completions of one prompt.

use std::ops::ControlFlow;

use super::{Event, FinishReason, GenerateRequest, Generation};
use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};
use crate::kv::Session;
use crate::sampling::{Logprobs, random_seed};

/// Most completions of one request.
const MOST: usize = 128;

/// Receives the events of a completion with its number; breaking off cancels it and all that would follow.
type OnEvent<'a> = dyn FnMut(usize, Event<'_>) -> ControlFlow<()> + 'a;

impl InferenceEngine {
    /// Gives [`n`](GenerateRequest::n) completions of a request's prompt, which is computed once: the others find its
    /// keys and values in the session, and the results are the same as those of requests of their own. The completion
    /// with number `i` has the seed of the first plus `i`.
    ///
    /// With [`best_of`](GenerateRequest::best_of) there are more completions, `on_event` hears of all, and the best come
    /// out, best first, of equals in the order of their numbers. After a completion was cancelled no other begins.
    ///
    /// # Errors
    /// As [`generate_with`](Self::generate_with), and [`EngineError::Parameter`] if `n` or `best_of` is not possible.
    pub fn generate_n(
        &self,
        session: &mut Session,
        request: &GenerateRequest,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Vec<Generation>, EngineError> {
        let count = checked_count(request)?;
        let ranks = count > request.n;
        let first = request.sampling.seed.unwrap_or_else(random_seed);
        let mut one = GenerateRequest { n: 1, best_of: None, ..request.clone() };
        if ranks {
            one.logprobs = Some(request.logprobs.unwrap_or(0));
        }
        let mut done: Vec<Generation> = Vec::with_capacity(count);
        for number in 0..count {
            one.sampling.seed = Some(first.wrapping_add(number as u64));
            let generation = self.generate_with(session, &one, &mut |event| on_event(number, event))?;
            let cancelled = generation.finish == FinishReason::Cancelled;
            done.push(generation);
            if cancelled {
                break;
            }
        }
        if ranks {
            best(&mut done, request.n, request.logprobs.is_some());
        }
        Ok(done)
    }
}

/// Leaves the `n` completions with the highest mean log probability, best first, of equals in their order; without their
/// log probabilities unless these are wanted.
pub(crate) fn best(done: &mut Vec<Generation>, n: usize, logprobs: bool) {
    let mean = |g: &Generation| g.logprobs.as_ref().map_or(f64::NEG_INFINITY, Logprobs::mean);
    done.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    done.truncate(n);
    if !logprobs {
        done.iter_mut().for_each(|generation| generation.logprobs = None);
    }
}

/// How many completions there will be.
pub(crate) fn checked_count(request: &GenerateRequest) -> Result<usize, ParameterError> {
    let refused = |name, value: usize, allowed| ParameterError { name, value: value.to_string(), allowed };
    if !(1..=MOST).contains(&request.n) {
        return Err(refused("n", request.n, "from 1 to 128"));
    }
    match request.best_of {
        Some(best_of) if !(request.n..=MOST).contains(&best_of) => {
            Err(refused("best_of", best_of, "at least n, and at most 128"))
        }
        best_of => Ok(best_of.unwrap_or(request.n)),
    }
}
