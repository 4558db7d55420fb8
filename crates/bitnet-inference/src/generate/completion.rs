//! [`Completion`]: all that belongs to one generated text but its keys and values.
//!
//! The blocking loop and the scheduler both give it one row of logits after the other; what becomes of them is decided
//! here alone, so that a request has the same text wherever it runs.

use std::ops::ControlFlow;
use std::sync::Arc;

use bitnet_model::{RowWant, TokenSet, TopLogits, TopWant};

use super::banned::{BannedStrings, Verdict};
use super::text::TextStream;
use super::{Event, FinishReason, GenerateRequest, Generation, GenerationStats, Prompt};
use crate::engine::Core;
use crate::error::EngineError;
use crate::grammar::{Mask, Matcher};
use crate::kv::Session;
use crate::sampling::{
    DRY_SEQUENCE_BREAKERS, LogitBias, Logprobs, Sampler, SamplingError, SamplingParams, random_seed,
};

/// Receives the events of a generation; breaking off cancels it.
pub(crate) type OnEvent<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// Logits that follow a text; drawing changes them.
#[derive(Debug)]
pub(crate) enum Logits<'a> {
    /// All of them.
    All(&'a mut [f32]),
    /// Those that can matter.
    Top(&'a mut TopLogits),
}

/// A request that was checked and encoded.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) prompt: Vec<u32>,
    pub(crate) completion: Completion,
}

/// The state of one generated text. A clone before the first draw, with a seed of its own, is another completion of the same
/// prompt.
#[derive(Debug, Clone)]
pub(crate) struct Completion {
    /// Tokens of the prompt.
    start: usize,
    /// Most tokens to generate, and the reason to finish when they are reached.
    limit: (usize, FinishReason),
    /// Tokens that end the text.
    stop_tokens: Vec<u32>,
    sampler: Sampler,
    seed: u64,
    text: TextStream,
    /// Absent if nothing is banned, so that the usual token takes no detour.
    banned: Option<BannedStrings>,
    /// Absent if the text is free.
    matcher: Option<Matcher>,
    /// Where to go back to, as no token was possible.
    stuck: Option<Verdict>,
    logprobs: Option<Logprobs>,
    /// The sampler's state before the last draw.
    before: f64,
    /// The tokens that were given out.
    tokens: Vec<u32>,
}

impl Core {
    /// Checks and encodes a request; what is said about its number of completions is the caller's business.
    pub(crate) fn prepare(&self, request: &GenerateRequest) -> Result<Prepared, EngineError> {
        request.check()?;
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
        let (sampler, banned) = self.sampler(request, params, seed)?;
        let matcher = match &request.constraint {
            Some(constraint) => Some(self.grammars()?.matcher(constraint, !request.ignore_eos)?),
            None => None,
        };
        let completion = Completion {
            start: prompt.len(),
            limit,
            stop_tokens: if request.ignore_eos { Vec::new() } else { self.defaults().stop_tokens.clone() },
            sampler,
            seed,
            text: self.text_stream(request),
            banned,
            matcher,
            stuck: None,
            logprobs: request.logprobs.map(|_| Logprobs::default()),
            before: 0.0,
            tokens: Vec::new(),
        };
        Ok(Prepared { prompt, completion })
    }

    fn text_stream(&self, request: &GenerateRequest) -> TextStream {
        let detokenizer = self.model().tokenizer.as_ref().map(|tokenizer| match &request.prompt {
            // What a constraint accepted must not lose its first space.
            _ if request.constraint.is_some() => tokenizer.continuing_detokenizer(true),
            Prompt::Chat(_) => tokenizer.detokenizer(true),
            Prompt::ChatWith(chat) if !chat.continue_final => tokenizer.detokenizer(true),
            _ => tokenizer.continuing_detokenizer(true),
        });
        let echo = match &request.prompt {
            Prompt::Text(text) if request.echo => text.clone(),
            _ => String::new(),
        };
        TextStream::new(detokenizer, &request.stop, echo)
    }

    /// The sampler of a request, and what watches over banned strings.
    fn sampler(
        &self,
        request: &GenerateRequest,
        params: SamplingParams,
        seed: u64,
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
        if let Some(custom) = &request.custom_sampler {
            sampler = sampler.with_custom(custom.clone());
        }
        Ok((sampler, banned))
    }
}

impl Completion {
    /// Makes room for the longest text there can be, so that no token allocates.
    pub(crate) fn reserve(&mut self) {
        let tokens = self.limit.0;
        self.tokens.reserve(tokens);
        self.text.reserve(tokens);
        self.sampler.reserve(self.start + tokens);
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.reserve(tokens, self.sampler.alternatives());
        }
    }

    /// Another completion of the same prompt, before anything was drawn.
    pub(crate) fn with_seed(&self, seed: u64) -> Self {
        let mut other = self.clone();
        other.seed = seed;
        other.sampler.reseed(seed);
        other
    }

    /// The seed of the draws.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the best token is always taken.
    pub(crate) fn is_greedy(&self) -> bool {
        self.sampler.is_greedy()
    }

    /// Most tokens it may generate.
    pub(crate) fn limit(&self) -> usize {
        self.limit.0
    }

    /// How many of the largest logits, of the [allowed](Self::allowed) tokens, decide the token that follows `history`;
    /// `None`: it takes all.
    pub(crate) fn decisive(&mut self, history: &[u32], vocab_size: usize) -> Option<usize> {
        // An error shows when it comes to drawing.
        let _ = self.exclude(history);
        self.sampler.decisive(history, vocab_size)
    }

    /// The tokens that may be drawn, as was found by [`decisive`](Self::decisive); `None`: all.
    pub(crate) fn allowed(&self) -> Option<TokenSet<'_>> {
        self.sampler.allowed()
    }

    /// What to ask an executor for, as was found by [`decisive`](Self::decisive) to be `k`: the token itself of one that
    /// `draws`, where few logits and nothing else decide it.
    pub(crate) fn want(&self, k: usize, draws: bool) -> RowWant<'_> {
        match draws.then(|| self.sampler.ahead()).flatten() {
            Some(draw) => RowWant::Draw(draw),
            None => RowWant::Top(TopWant { k, allowed: self.allowed() }),
        }
    }

    /// Tokens that spell what a constraint demands next, if it leaves no choice: good guesses, no more.
    pub(crate) fn forced(&self) -> Vec<u32> {
        self.matcher.as_ref().map(Matcher::forced).unwrap_or_default()
    }

    /// What may be drawn behind each of these tokens, if they come next. Empty where more than a constraint decides that, and
    /// for what follows the first token that does not fit.
    pub(crate) fn allowed_behind(&self, tokens: &[u32]) -> Vec<Mask> {
        match &self.matcher {
            Some(matcher) if self.banned.is_none() => matcher.ahead(tokens),
            _ => Vec::new(),
        }
    }

    /// Tells the sampler what may be drawn.
    fn exclude(&mut self, history: &[u32]) -> Result<(), EngineError> {
        if let Some(matcher) = &mut self.matcher {
            // Where nothing may follow the text has ended before it comes to this.
            self.sampler.allow(matcher.mask()?.or(Some(&Mask::default())));
        }
        if let Some(banned) = &self.banned {
            self.sampler.exclude(banned.excluded(history.len() - self.start));
        }
        Ok(())
    }

    /// Draws the token that follows `history`, prompt and drawn tokens. It is to be [taken](Self::take) next, as is `None`:
    /// that none is possible here, but perhaps another way.
    pub(crate) fn draw(&mut self, history: &[u32], logits: Logits<'_>) -> Result<Option<u32>, EngineError> {
        self.exclude(history)?;
        self.before = self.sampler.state();
        let drawn = match logits {
            Logits::All(logits) => self.sampler.sample(logits, history),
            Logits::Top(top) => self.sampler.sample_top(top, history),
        };
        let token = match drawn {
            Ok(token) => token,
            Err(nothing @ SamplingError::NothingPossible { .. }) => {
                self.stuck = self.banned.as_mut().and_then(BannedStrings::back_one);
                return if self.stuck.is_some() { Ok(None) } else { Err(nothing.into()) };
            }
            Err(error) => return Err(error.into()),
        };
        if let (Some(kept), Some(last)) = (&mut self.logprobs, self.sampler.last_logprobs()) {
            kept.push(last);
        }
        Ok(Some(token))
    }

    /// Takes what was drawn: `session` gets it, or goes back to before a banned string. Gives the reason if the text has
    /// ended; otherwise the session has a token to compute.
    pub(crate) fn take(
        &mut self,
        session: &mut Session,
        token: Option<u32>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Option<FinishReason>, EngineError> {
        let Some(token) = token else {
            if let Some(Verdict::Back { keep, state }) = self.stuck.take() {
                self.go_back(session, keep, state)?;
            }
            return Ok(None);
        };
        if self.stop_tokens.contains(&token) {
            return Ok(Some(self.finish(session, FinishReason::Stop, on_event)));
        }
        session.push(token);
        if let Some(matcher) = &mut self.matcher {
            matcher.accept(token)?;
        }
        let mut certain = session.tokens().len() - self.start;
        match self.banned.as_mut().map(|banned| banned.push(token, self.before)) {
            None => {}
            Some(Verdict::Certain(count)) => certain = count,
            Some(Verdict::Back { keep, state }) => {
                self.go_back(session, keep, state)?;
                return Ok(None);
            }
        }
        if let Some(finish) = self.give_out(session, certain, on_event) {
            return Ok(Some(self.ended(session, finish, on_event)));
        }
        if let Some(matcher) = &mut self.matcher
            && matcher.mask()?.is_none()
        {
            return Ok(Some(self.finish(session, FinishReason::Stop, on_event)));
        }
        if session.tokens().len() - self.start >= self.limit.0 {
            return Ok(Some(self.finish(session, self.limit.1.clone(), on_event)));
        }
        Ok(None)
    }

    /// Goes back to the first `keep` generated tokens, where the sampler was in `state`.
    fn go_back(&mut self, session: &mut Session, keep: usize, state: f64) -> Result<(), EngineError> {
        session.rewind(self.start + keep);
        self.sampler.restore(state);
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.truncate(keep);
        }
        if let Some(matcher) = &mut self.matcher {
            matcher.rewind(keep)?;
        }
        Ok(())
    }

    /// Ends the text where it is, in the middle of whatever was going on.
    pub(crate) fn cancel(&mut self, session: &mut Session, on_event: &mut OnEvent<'_>) -> FinishReason {
        self.ended(session, FinishReason::Cancelled, on_event)
    }

    /// The result, once the text has ended.
    pub(crate) fn into_generation(self, finish: FinishReason, mut stats: GenerationStats) -> Generation {
        let Self { tokens, text, mut logprobs, .. } = self;
        stats.generated_tokens = tokens.len();
        // A stop token, and what was drawn behind a stop string, is not part of the text.
        if let Some(logprobs) = &mut logprobs {
            logprobs.truncate(tokens.len());
        }
        Generation { text: text.into_text(), tokens, finish, logprobs, stats }
    }

    /// Ends the text: nothing follows any more that could complete a banned string, so all that was drawn comes out.
    fn finish(
        &mut self,
        session: &mut Session,
        finish: FinishReason,
        on_event: &mut OnEvent<'_>,
    ) -> FinishReason {
        let drawn = session.tokens().len() - self.start;
        let finish = self.give_out(session, drawn, on_event).unwrap_or(finish);
        self.ended(session, finish, on_event)
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
            let id = session.tokens()[self.start + place];
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

    /// What was held back comes out, and the session keeps what belongs to the text.
    fn ended(
        &mut self,
        session: &mut Session,
        finish: FinishReason,
        on_event: &mut OnEvent<'_>,
    ) -> FinishReason {
        session.truncate(self.start + self.tokens.len());
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
