//! One completion of a request on its way: waiting, running or interrupted.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bitnet_model::{ExecError, Executor};
use tokio::sync::mpsc::UnboundedSender;

use super::options::Speculation;
use super::pace::Pace;
use super::speculate::Drafter;
use super::stats::{SlotState, SlotStats};
use super::stream::StreamEvent;
use crate::engine::Rows;
use crate::error::EngineError;
use crate::generate::{Completion, Event, FinishReason, GenerationStats};
use crate::grammar::Mask;
use crate::kv::Session;

/// What all completions of a request have in common.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) request_id: Option<Arc<str>>,
    pub(super) client: Option<Arc<str>>,
    pub(super) priority: i32,
    pub(super) deadline: Option<Instant>,
    pub(super) submitted: Instant,
    pub(super) prompt: Vec<u32>,
    /// Completions there will be.
    pub(super) count: usize,
    pub(super) events: UnboundedSender<Result<StreamEvent, EngineError>>,
    /// Whether nothing but ends is sent.
    pub(super) ends_only: bool,
    /// Completions that are not whole yet.
    pub(super) open: AtomicUsize,
    /// Whether its first completion has left the queue.
    pub(super) begun: AtomicBool,
    /// Whether it failed or was given up.
    pub(super) ended: AtomicBool,
    /// Whether a completion has computed the prompt, so that the others find its keys and values.
    pub(super) prompt_computed: AtomicBool,
}

impl Ticket {
    /// Sends an event to the stream, if somebody still has it.
    pub(super) fn send(&self, event: StreamEvent) -> ControlFlow<()> {
        match self.events.send(Ok(event)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// As [`send`](Self::send) for what is told on the way to the end.
    fn tell(&self, event: impl FnOnce() -> StreamEvent) -> ControlFlow<()> {
        match self.ends_only {
            false => self.send(event()),
            true if self.events.is_closed() => ControlFlow::Break(()),
            true => ControlFlow::Continue(()),
        }
    }

    /// Ends the request; whether it had not ended before.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    /// Whether nothing of it need be computed any more.
    pub(super) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.events.is_closed()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// A request that waits for its first step.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Arc<Ticket>,
    /// The first completion; the others are made of it.
    pub(super) completion: Completion,
}

/// A completion with its keys and values.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) ticket: Arc<Ticket>,
    pub(super) choice: usize,
    pub(super) session: Session,
    pub(super) completion: Completion,
    pub(super) stats: GenerationStats,
    /// When it got its first blocks.
    pub(super) started: Option<Instant>,
    first_token: Option<Instant>,
    drafter: Drafter,
    /// What the next step computes of it.
    pub(super) input: Input,
}

/// What a step computes of a sequence.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// How many of its pending tokens.
    pub(super) tokens: usize,
    /// Whether these are all, so that the next token is drawn.
    pub(super) draws: bool,
    /// Its last token and those guessed to follow, if there are any such.
    pub(super) guessed: Vec<u32>,
    /// What a constraint allows behind each guess, from the first on, as far as that is known.
    pub(super) behind: Vec<Mask>,
}

impl Input {
    /// Rows of the call.
    pub(super) fn rows(&self) -> usize {
        self.tokens.max(self.guessed.len())
    }

    /// Whether it is the last token of a text that is generated, and those guessed to follow.
    pub(super) fn generates(&self) -> bool {
        self.draws && self.tokens == 1
    }

    /// Rows of which logits are wanted.
    pub(super) fn logit_rows(&self) -> usize {
        if self.draws { self.guessed.len().max(1) } else { 0 }
    }

    /// Tokens that are guessed.
    fn drafts(&self) -> &[u32] {
        self.guessed.get(1..).unwrap_or_default()
    }
}

impl Sequence {
    /// A completion that has not begun.
    pub(super) fn new(
        ticket: Arc<Ticket>,
        choice: usize,
        completion: Completion,
        session: Session,
        speculation: Speculation,
    ) -> Self {
        let stats = GenerationStats {
            prompt_tokens: ticket.prompt.len(),
            seed: completion.seed(),
            ..GenerationStats::default()
        };
        Self {
            drafter: Drafter::new(speculation, completion.is_greedy()),
            ticket,
            choice,
            session,
            completion,
            stats,
            started: None,
            first_token: None,
            input: Input::default(),
        }
    }

    /// Those that go first come first: by priority, then by age.
    pub(super) fn rank(&self) -> (std::cmp::Reverse<i32>, u64, usize) {
        (std::cmp::Reverse(self.ticket.priority), self.ticket.id, self.choice)
    }

    /// Whether it may begin: the first completion computes the prompt for all.
    pub(super) fn is_ready(&self) -> bool {
        self.choice == 0 || self.started.is_some() || self.ticket.prompt_computed.load(Ordering::Relaxed)
    }

    /// Whether it is a further completion, and has not begun.
    pub(super) fn is_further(&self) -> bool {
        self.choice > 0 && self.started.is_none()
    }

    /// Tells the stream that the request has begun.
    pub(super) fn tell_start(&self) {
        let (prompt_tokens, cached_tokens) = (self.stats.prompt_tokens, self.stats.cached_tokens);
        if !self.ticket.begun.swap(true, Ordering::Relaxed) {
            let _ = self.ticket.tell(|| StreamEvent::Started { prompt_tokens, cached_tokens });
        }
    }

    /// Tells the stream how much of the prompt is computed.
    pub(super) fn tell_prefill(&self) {
        let (done, total) = (self.session.computed(), self.stats.prompt_tokens);
        if self.choice == 0 && self.first_token.is_none() {
            let _ = self.ticket.tell(|| StreamEvent::Prefill { done, total });
        }
    }

    /// Tokens that have no keys and values yet.
    pub(super) fn pending(&self) -> usize {
        self.session.tokens().len() - self.session.computed()
    }

    /// Gives all blocks back. What was drawn stays; keys and values will be found or computed again.
    pub(super) fn park(&mut self) {
        self.session.suspend();
        self.input = Input::default();
    }

    /// Takes the blocks for all its tokens and one more, if so many are available; beside others, which should not have to
    /// give up theirs soon, only if `spare` blocks are left then.
    pub(super) fn unpark(&mut self, available: impl Fn() -> usize, spare: usize, block_size: usize) -> bool {
        let cached = if self.session.tokens().is_empty() {
            self.session.extend(&self.ticket.prompt)
        } else {
            self.session.recall()
        };
        let end = self.session.tokens().len() + 1;
        let missing = end.div_ceil(block_size).saturating_sub(self.session.blocks().len());
        // The first block that is written to may have to be copied.
        let copies = usize::from(!cached.is_multiple_of(block_size));
        let beside_others = spare > 0 && available() < missing + copies + spare;
        if beside_others || self.session.cover(end).is_err() {
            self.session.suspend();
            return false;
        }
        if self.started.is_none() {
            self.started = Some(Instant::now());
            self.stats.cached_tokens = cached;
        }
        true
    }

    /// Lets the executor copy a block that others rely on, before it is written to.
    pub(super) fn run_copy(&mut self, executor: &mut dyn Executor) -> Result<(), ExecError> {
        let before = self.session.computed();
        self.session.run_copy(executor)?;
        // An executor that cannot copy computes the block's tokens again.
        let again = before - self.session.computed();
        if again > 0 {
            self.input.tokens += again;
            self.input.guessed.clear();
        }
        Ok(())
    }

    /// Guesses tokens to compute along with its last one, if that is all there is to compute. The call has `rows` rows
    /// already, of which `texts` give a token each.
    pub(super) fn draft(&mut self, rows: usize, texts: usize, pace: &Pace) {
        let Self { session, completion, drafter, input, .. } = self;
        if !input.generates() {
            return;
        }
        let history = session.tokens();
        // The last token that the limit allows need not be computed, so it is not worth guessing.
        let drawn = history.len() - self.stats.prompt_tokens;
        let room = completion.limit().saturating_sub(drawn + 1);
        let forced = if drafter.is_off() { Vec::new() } else { completion.forced() };
        if forced.is_empty() {
            drafter.draft(history, room, (rows, texts), pace, &mut input.guessed);
        } else {
            drafter.draft_forced(&forced, room, (rows, texts), pace, &mut input.guessed);
        }
        input.behind = completion.allowed_behind(&input.guessed);
        if !input.guessed.is_empty() {
            input.guessed.insert(0, history[history.len() - 1]);
        }
    }

    /// Draws and takes the tokens that the rows of logits from `first` on decide: one, and one more for each guess that was
    /// right. Gives the reason if the text has ended.
    pub(super) fn advance(
        &mut self,
        rows: &mut Rows,
        first: usize,
    ) -> Result<Option<FinishReason>, EngineError> {
        let base = self.session.tokens().len();
        let Self { ticket, choice, session, completion, stats, input, drafter, .. } = self;
        stats.drafted += input.drafts().len();
        let mut on_event = |event: Event<'_>| match event {
            // The scheduler tells of prompts itself.
            Event::Prefill { .. } => ControlFlow::Continue(()),
            Event::Token { id, text, logprobs } => ticket.tell(|| StreamEvent::Token {
                choice: *choice,
                id,
                text: text.to_owned(),
                logprobs: logprobs.map(Into::into),
            }),
            Event::Tail { text } => {
                ticket.tell(|| StreamEvent::Tail { choice: *choice, text: text.to_owned() })
            }
        };
        for i in 0..input.logit_rows() {
            if i > 0 {
                let needed = completion.decisive(session.tokens(), rows.vocab_size());
                if rows.kept(first + i).is_some_and(|kept| needed.is_none_or(|needed| needed > kept)) {
                    break;
                }
            }
            session.set_computed(base + i);
            let token = completion.draw(session.tokens(), rows.row(first + i))?;
            if self.first_token.is_none() {
                self.first_token = Some(Instant::now());
            } else if i == 0 {
                stats.decode_steps += 1;
            }
            if let Some(token) = token {
                drafter.observe(token, input.drafts().get(i + 1).copied());
            }
            let finish = completion.take(session, token, &mut on_event)?;
            if finish.is_some() {
                return Ok(finish);
            }
            let went_back = session.tokens().len() != base + i + 1;
            if went_back || input.drafts().get(i).copied() != token || token.is_none() {
                break;
            }
            stats.accepted += 1;
        }
        Ok(None)
    }

    /// Ends it where it is and tells the stream. Gives whether it was the request's last.
    pub(super) fn cancel(mut self) -> bool {
        let (ticket, choice) = (Arc::clone(&self.ticket), self.choice);
        let finish = self.completion.cancel(&mut self.session, &mut |event| {
            if let Event::Tail { text } = event {
                let _ = ticket.tell(|| StreamEvent::Tail { choice, text: text.to_owned() });
            }
            ControlFlow::Continue(())
        });
        self.finished(finish)
    }

    /// Tells the stream that it is whole. Gives whether it was the request's last.
    pub(super) fn finished(mut self, finish: FinishReason) -> bool {
        let now = Instant::now();
        let begun = self.started.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        self.stats.queued = begun - self.ticket.submitted;
        self.stats.prefill = first - begun;
        if self.first_token.is_some() {
            self.stats.time_to_first_token = first - self.ticket.submitted;
            self.stats.decode = now - first;
        }
        let generation = self.completion.into_generation(finish, self.stats);
        let _ = self.ticket.send(StreamEvent::Finished { choice: self.choice, generation });
        self.ticket.open.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// How it stands.
    pub(super) fn slot(&self, runs: bool) -> Option<SlotStats> {
        let state = match (runs, self.first_token) {
            (true, Some(_)) => SlotState::Decode,
            (true, None) => SlotState::Prefill,
            (false, _) if self.started.is_some() => SlotState::Preempted,
            (false, _) => SlotState::Waiting,
        };
        Some(SlotStats {
            id: self.ticket.id,
            choice: self.choice,
            request_id: self.ticket.request_id.clone(),
            prompt_tokens: self.ticket.prompt.len(),
            computed_tokens: self.session.computed(),
            generated_tokens: self.session.tokens().len().saturating_sub(self.ticket.prompt.len()),
            state,
            started: self.started?,
        })
    }
}
