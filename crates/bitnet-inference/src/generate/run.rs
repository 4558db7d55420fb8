//! The blocking loop: one request in one session.

use std::ops::ControlFlow;
use std::time::Instant;

use super::completion::{Completion, OnEvent, Prepared};
use super::{Event, FinishReason, GenerateRequest, Generation, GenerationStats};
use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};
use crate::kv::Session;

impl InferenceEngine {
    /// Runs a request in a conversation of its own on this thread, past the scheduler. The result is that of
    /// [`generate`](Self::generate).
    ///
    /// # Errors
    /// [`EngineError`]: an impossible parameter, a prompt that is empty or too long, a failing executor.
    pub fn generate_blocking(&self, request: &GenerateRequest) -> Result<Generation, EngineError> {
        self.generate_with(&mut self.session(), request, &mut |_| ControlFlow::Continue(()))
    }

    /// Runs a request in `session`, whose tokens become the prompt and what was generated; what the session has computed of
    /// the same beginning is not computed again, and the result is the same. `on_event` hears of every step and cancels
    /// by breaking; the text so far is then the result.
    ///
    /// # Errors
    /// As [`generate_blocking`](Self::generate_blocking), and [`EngineError::ForeignSession`]. More than one completion
    /// is the business of [`generate_n`](Self::generate_n). The session can be used again afterwards.
    pub fn generate_with(
        &self,
        session: &mut Session,
        request: &GenerateRequest,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Generation, EngineError> {
        let start = Instant::now();
        if !session.is_of(self.pool()) {
            return Err(EngineError::ForeignSession);
        }
        request.check_single()?;
        let Prepared { prompt, mut completion } = self.core().prepare(request)?;
        completion.reserve();
        let mut stats = GenerationStats {
            prompt_tokens: prompt.len(),
            seed: completion.seed(),
            ..GenerationStats::default()
        };
        stats.cached_tokens = session.extend(&prompt);
        session.reserve(completion.limit());

        let prefill = Instant::now();
        let finish = if self.prefill_all(session, on_event)?.is_break() {
            stats.prefill = prefill.elapsed();
            completion.cancel(session, on_event)
        } else {
            let first = self.core().next_token(session, &mut completion)?;
            let decode = Instant::now();
            (stats.prefill, stats.time_to_first_token) = (decode - prefill, decode - start);
            let finish = self.decode(session, &mut completion, first, &mut stats.decode_steps, on_event)?;
            stats.decode = decode.elapsed();
            finish
        };
        Ok(completion.into_generation(finish, stats))
    }

    /// Computes the prompt but for its last chunk, in chunks that the executor likes.
    fn prefill_all(
        &self,
        session: &mut Session,
        on_event: &mut OnEvent<'_>,
    ) -> Result<ControlFlow<()>, EngineError> {
        let total = session.tokens().len();
        let chunk = self.info().max_batch_tokens.max(1);
        while session.computed() + chunk < total {
            self.core().prefill(session, session.computed() + chunk)?;
            if on_event(Event::Prefill { done: session.computed(), total }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Takes token after token until something ends the text. `first` was drawn but not taken yet.
    fn decode(
        &self,
        session: &mut Session,
        completion: &mut Completion,
        first: Option<u32>,
        steps: &mut usize,
        on_event: &mut OnEvent<'_>,
    ) -> Result<FinishReason, EngineError> {
        let mut token = first;
        loop {
            if let Some(finish) = completion.take(session, token, on_event)? {
                return Ok(finish);
            }
            token = self.core().next_token(session, completion)?;
            *steps += 1;
        }
    }
}

impl GenerateRequest {
    /// Refuses more than one completion.
    pub(crate) fn check_single(&self) -> Result<(), ParameterError> {
        if self.n == 1 && self.best_of.is_none_or(|best_of| best_of == 1) {
            return Ok(());
        }
        let value = self.n.max(self.best_of.unwrap_or(0)).to_string();
        let allowed = "1, but for generate_n and streams";
        Err(ParameterError { name: "n", value, allowed })
    }
}
