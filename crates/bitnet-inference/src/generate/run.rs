//! The generation loop.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::banned::{BannedStrings, Verdict};
use super::text::TextStream;
use super::{Event, FinishReason, GenerateRequest, Generation, GenerationStats, Prompt};
use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};
use crate::grammar::Matcher;
use crate::kv::Session;
use crate::sampling::{
    DRY_SEQUENCE_BREAKERS, LogitBias, Logprobs, Sampler, SamplingError, SamplingParams, random_seed,
};

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
    /// Absent if nothing is banned, so that the usual token takes no detour.
    banned: Option<BannedStrings>,
    /// Absent if the text is free.
    matcher: Option<Matcher>,
    logprobs: Option<Logprobs>,
    /// The sampler's state before the last draw.
    before: f64,
    /// The tokens that were given out.
    tokens: Vec<u32>,
    /// Forward calls after that of the first token.
    steps: usize,
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
    /// As [`generate`](Self::generate), and [`EngineError::ForeignSession`]. More than one completion is the business of
    /// [`generate_n`](Self::generate_n). The session can be used again afterwards.
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
        stats.cached_tokens = session.extend(&plan.prompt);
        session.reserve(plan.limit.0);

        let prefill = Instant::now();
        let finish = if self.prefill_all(session, on_event)?.is_break() {
            stats.prefill = prefill.elapsed();
            FinishReason::Cancelled
        } else {
            let first = self.draw(session, &mut plan)?;
            let decode = Instant::now();
            stats.prefill = decode - prefill;
            stats.time_to_first_token = first.map_or_else(Default::default, |_| decode - start);
            let finish = self.decode(session, request, &mut plan, first, on_event)?;
            stats.decode = decode.elapsed();
            stats.decode_steps = plan.steps;
            finish
        };
        let Plan { tokens, text, mut logprobs, .. } = plan;
        stats.generated_tokens = tokens.len();
        // A stop token, and what was drawn behind a stop string, is not part of the text.
        if let Some(logprobs) = &mut logprobs {
            logprobs.truncate(tokens.len());
        }
        Ok(Generation { text: text.into_text(), tokens, finish, logprobs, stats })
    }

    /// Checks and encodes a request.
    fn plan(&self, request: &GenerateRequest) -> Result<Plan, EngineError> {
        self.check(request)?;
        if request.n != 1 || request.best_of.is_some_and(|best_of| best_of != 1) {
            let (value, allowed) =
                (request.n.max(request.best_of.unwrap_or(0)).to_string(), "1 but for generate_n");
            return Err(ParameterError { name: "n", value, allowed }.into());
        }
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
            // What a constraint accepted must not lose its first space.
            Prompt::Chat(_) if request.constraint.is_none() => tokenizer.detokenizer(true),
            _ => tokenizer.continuing_detokenizer(true),
        });
        let echo = match &request.prompt {
            Prompt::Text(text) if request.echo => text.clone(),
            _ => String::new(),
        };
        let text = TextStream::new(detokenizer, &request.stop, echo, limit.0);
        let (sampler, banned) = self.sampler(request, params, seed, prompt.len() + limit.0)?;
        let matcher = match &request.constraint {
            Some(constraint) => Some(self.grammars()?.matcher(constraint, !request.ignore_eos)?),
            None => None,
        };
        let logprobs =
            request.logprobs.map(|n| Logprobs::with_capacity(limit.0, n.min(self.spec().vocab_size)));
        let tokens = Vec::with_capacity(limit.0);
        Ok(Plan {
            prompt,
            limit,
            sampler,
            seed,
            text,
            banned,
            matcher,
            logprobs,
            before: 0.0,
            tokens,
            steps: 0,
        })
    }

    /// The sampler of a request for texts of up to `tokens` tokens, and what watches over banned strings.
    fn sampler(
        &self,
        request: &GenerateRequest,
        params: SamplingParams,
        seed: u64,
        tokens: usize,
    ) -> Result<(Sampler, Option<BannedStrings>), EngineError> {
        let vocab_size = self.spec().vocab_size;
        let bias = LogitBias::resolve(&request.logit_bias, vocab_size, || Ok(&**self.tokenizer()?))?;
        let banned = match &request.banned[..] {
            [] => None,
            strings => {
                let banned = BannedStrings::new(strings, Arc::clone(self.tokenizer()?));
                Some(if request.constraint.is_some() { banned.stepwise() } else { banned })
            }
        };
        let never = banned.iter().flat_map(|banned| banned.never(vocab_size));
        let never = never.map(|token| (token, f32::NEG_INFINITY));
        let mut sampler = Sampler::new(params, seed).with_bias(bias).with_bias(never);
        match (&request.dry_sequence_breakers, &self.model().tokenizer) {
            (Some(strings), _) => sampler = sampler.with_sequence_breakers(strings, self.tokenizer()?),
            // Without a tokenizer there is no text that could break anything.
            (None, None) => {}
            (None, Some(tokenizer)) => {
                sampler =
                    sampler.with_sequence_breakers(&DRY_SEQUENCE_BREAKERS.map(str::to_owned), tokenizer);
            }
        }
        if let Some(alternatives) = request.logprobs {
            sampler = sampler.with_logprobs(alternatives);
        }
        sampler.reserve(tokens);
        Ok((sampler, banned))
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

    /// Draws the token that follows the session's tokens. `None`: by the constraint nothing may follow.
    fn draw(&self, session: &mut Session, plan: &mut Plan) -> Result<Option<u32>, EngineError> {
        loop {
            if let Some(matcher) = &mut plan.matcher {
                let Some(mask) = matcher.mask()? else { return Ok(None) };
                plan.sampler.allow(Some(mask));
            }
            if let Some(banned) = &plan.banned {
                let drawn = session.tokens().len() - plan.prompt.len();
                plan.sampler.exclude(banned.excluded(drawn));
            }
            plan.before = plan.sampler.state();
            match self.next_token(session, &mut plan.sampler) {
                Ok(token) => {
                    if let (Some(kept), Some(last)) = (&mut plan.logprobs, plan.sampler.last_logprobs()) {
                        kept.push(last);
                    }
                    return Ok(Some(token));
                }
                Err(EngineError::Sampling(nothing @ SamplingError::NothingPossible { .. })) => {
                    match plan.banned.as_mut().and_then(BannedStrings::back_one) {
                        Some(Verdict::Back { keep, state }) => plan.rewind(session, keep, state)?,
                        _ => return Err(nothing.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes token after token until something ends the text. `first` was drawn but not taken yet.
    fn decode(
        &self,
        session: &mut Session,
        request: &GenerateRequest,
        plan: &mut Plan,
        first: Option<u32>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<FinishReason, EngineError> {
        let start = plan.prompt.len();
        let mut next = first;
        let finish = loop {
            let Some(token) = next else { break FinishReason::Stop };
            if !request.ignore_eos && self.defaults().stop_tokens.contains(&token) {
                break FinishReason::Stop;
            }
            session.push(token);
            if let Some(matcher) = &mut plan.matcher {
                matcher.accept(token)?;
            }
            let mut certain = session.tokens().len() - start;
            match plan.banned.as_mut().map(|banned| banned.push(token, plan.before)) {
                None => {}
                Some(Verdict::Certain(count)) => certain = count,
                Some(Verdict::Back { keep, state }) => {
                    plan.rewind(session, keep, state)?;
                    next = self.draw(session, plan)?;
                    plan.steps += usize::from(next.is_some());
                    continue;
                }
            }
            if let Some(finish) = plan.give_out(session, certain, on_event) {
                return Ok(plan.ended(session, finish, on_event));
            }
            if session.tokens().len() - start >= plan.limit.0 {
                break plan.limit.1.clone();
            }
            next = self.draw(session, plan)?;
            plan.steps += usize::from(next.is_some());
        };
        // Nothing follows any more that could complete a banned string.
        let drawn = session.tokens().len() - start;
        let finish = plan.give_out(session, drawn, on_event).unwrap_or(finish);
        Ok(plan.ended(session, finish, on_event))
    }
}

impl Plan {
    /// Goes back to the first `keep` generated tokens, where the sampler was in `state`.
    fn rewind(&mut self, session: &mut Session, keep: usize, state: f64) -> Result<(), EngineError> {
        session.rewind(self.prompt.len() + keep);
        self.sampler.restore(state);
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.truncate(keep);
        }
        if let Some(matcher) = &mut self.matcher {
            matcher.rewind(keep)?;
        }
        Ok(())
    }

    /// Gives out the generated tokens up to the number `end`. A stop string and a callback that breaks end the text.
    fn give_out(
        &mut self,
        session: &Session,
        end: usize,
        on_event: &mut OnEvent<'_>,
    ) -> Option<FinishReason> {
        while self.tokens.len() < end {
            let place = self.tokens.len();
            let id = session.tokens()[self.prompt.len() + place];
            self.tokens.push(id);
            let (text, matched) = self.text.push(id);
            let logprobs = self.logprobs.as_ref().and_then(|logprobs| logprobs.get(place));
            let flow = on_event(Event::Token { id, text, logprobs });
            if let Some(stop) = matched {
                return Some(FinishReason::StopString(stop));
            }
            if flow.is_break() {
                return Some(FinishReason::Cancelled);
            }
        }
        None
    }

    /// Ends the text: what was held back comes out, and the session keeps what belongs to the text.
    fn ended(
        &mut self,
        session: &mut Session,
        finish: FinishReason,
        on_event: &mut OnEvent<'_>,
    ) -> FinishReason {
        session.truncate(self.prompt.len() + self.tokens.len());
        if matches!(finish, FinishReason::StopString(_)) {
            return finish;
        }
        let (text, matched) = self.text.finish();
        // Nothing is left to cancel after the tail, so what the callback says does not matter.
        if !text.is_empty() {
            let _ = on_event(Event::Tail { text });
        }
        matched.map_or(finish, FinishReason::StopString)
    }
}
