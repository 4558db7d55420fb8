//! The generation loop.

use std::ops::ControlFlow;
use std::time::Instant;

use super::text::TextStream;
use super::{Event, FinishReason, GenerateRequest, Generation, GenerationStats, Prompt};
use crate::engine::InferenceEngine;
use crate::error::EngineError;
use crate::kv::Session;
use crate::sampling::{Sampler, SamplingParams, random_seed};

/// Receives the events of a generation; breaking off cancels it.
type OnEvent<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// A request that was checked and encoded.
struct Plan {
    prompt: Vec<u32>,
    /// Most tokens to generate, and the reason to finish when they are reached.
    limit: (usize, FinishReason),
    sampler: Sampler,
    seed: u64,
    text: TextStream,
}

impl InferenceEngine {
    /// Runs a request in a conversation of its own.
    ///
    /// # Errors
    /// [`EngineError`]: an impossible parameter, a prompt that is empty or too long, a failing executor.
    pub fn generate(&self, request: &GenerateRequest) -> Result<Generation, EngineError> {
        self.generate_with(&mut self.session(), request, &mut |_| ControlFlow::Continue(()))
    }

    /// Runs a request in `session`, whose tokens become the prompt and what was generated; what the session has computed of
    /// the same beginning is not computed again, and the result is the same. `on_event` hears of every step and cancels
    /// by breaking; the text so far is then the result.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and [`EngineError::ForeignSession`]. The session can be used again afterwards.
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
        let mut plan = self.plan(request)?;
        let mut stats = GenerationStats {
            prompt_tokens: plan.prompt.len(),
            seed: plan.seed,
            ..GenerationStats::default()
        };
        let mut tokens = Vec::with_capacity(plan.limit.0);
        stats.cached_tokens = session.extend(&plan.prompt);
        session.reserve(plan.limit.0);

        let prefill = Instant::now();
        let finish = if self.prefill_all(session, on_event)?.is_break() {
            stats.prefill = prefill.elapsed();
            FinishReason::Cancelled
        } else {
            let first = self.next_token(session, &mut plan.sampler)?;
            let decode = Instant::now();
            (stats.prefill, stats.time_to_first_token) = (decode - prefill, decode - start);
            let finish = self.decode(session, request, &mut plan, first, &mut tokens, on_event)?;
            stats.decode = decode.elapsed();
            stats.decode_steps = (tokens.len() + usize::from(finish == FinishReason::Stop)).saturating_sub(1);
            finish
        };
        stats.generated_tokens = tokens.len();
        Ok(Generation { text: plan.text.into_text(), tokens, finish, stats })
    }

    /// Checks and encodes a request.
    fn plan(&self, request: &GenerateRequest) -> Result<Plan, EngineError> {
        self.check(request)?;
        let params = SamplingParams::resolve(&request.sampling, self.defaults())?;
        let prompt = self.encode(&request.prompt)?;
        let (context, limit) = (self.context(), self.spec().context_length);
        if prompt.len() >= context {
            return Err(EngineError::PromptTooLong { tokens: prompt.len(), context, limit });
        }
        let room = context - prompt.len();
        let default = self.defaults().max_new_tokens.map(|n| n as usize).filter(|&n| n > 0);
        let limit = match request.max_tokens.or(default) {
            Some(asked) if asked <= room => (asked, FinishReason::Length),
            _ => (room, FinishReason::ContextFull),
        };
        let seed = params.seed.unwrap_or_else(random_seed);
        let detokenizer = self.model().tokenizer.as_ref().map(|tokenizer| match &request.prompt {
            Prompt::Chat(_) => tokenizer.detokenizer(true),
            _ => tokenizer.continuing_detokenizer(true),
        });
        let echo = match &request.prompt {
            Prompt::Text(text) if request.echo => text.clone(),
            _ => String::new(),
        };
        let text = TextStream::new(detokenizer, &request.stop, echo, limit.0);
        Ok(Plan { prompt, limit, sampler: Sampler::new(params, seed), seed, text })
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
            self.prefill(session, session.computed() + chunk)?;
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
        request: &GenerateRequest,
        plan: &mut Plan,
        first: u32,
        tokens: &mut Vec<u32>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<FinishReason, EngineError> {
        let mut token = first;
        let finish = loop {
            if !request.ignore_eos && self.defaults().stop_tokens.contains(&token) {
                break FinishReason::Stop;
            }
            tokens.push(token);
            session.push(token);
            let (text, matched) = plan.text.push(token);
            let flow = on_event(Event::Token { id: token, text });
            if let Some(stop) = matched {
                return Ok(FinishReason::StopString(stop));
            }
            if flow.is_break() {
                break FinishReason::Cancelled;
            }
            if tokens.len() >= plan.limit.0 {
                break plan.limit.1.clone();
            }
            token = self.next_token(session, &mut plan.sampler)?;
        };
        let (text, matched) = plan.text.finish();
        // Nothing is left to cancel after the tail, so what the callback says does not matter.
        if !text.is_empty() {
            let _ = on_event(Event::Tail { text });
        }
        Ok(matched.map_or(finish, FinishReason::StopString))
    }
}
