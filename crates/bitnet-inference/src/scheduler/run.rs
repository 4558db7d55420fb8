//! [`Runner`]: the scheduler's loop.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bitnet_model::{LogitRows, RowWant, Sequence as Part, TopWant};

use super::pace::Pace;
use super::planner::{Wish, share};
use super::sequence::{Input, Sequence, Ticket, Waiting};
use super::stats::SchedulerStats;
use super::{Shared, Shutdown};
use crate::engine::{Core, Rows};
use crate::error::EngineError;
use crate::kv::{PoolExhausted, lock};

/// How long to wait before asking again for blocks that sessions hold.
const RETRY: Duration = Duration::from_millis(5);
/// How long sessions may hold all blocks before requests that need some fail.
const PATIENCE: Duration = Duration::from_secs(10);
/// Logits that are found behind a guess if so many tokens are allowed there: enough for the usual top-k.
const BEHIND: usize = 64;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It computed something.
    Worked,
    /// There is nothing to do.
    Idle,
    /// What there is to do needs blocks that sessions hold.
    Blocked,
    /// There will never be anything to do again.
    Closed,
}

/// Owns all sequences. Runs on the scheduler's thread; tests make its steps themselves.
pub(super) struct Runner {
    core: Arc<Core>,
    shared: Arc<Shared>,
    /// In the order of [`Sequence::rank`].
    running: Vec<Sequence>,
    /// Without blocks, in the same order: those that were interrupted, those that found no blocks yet, and further
    /// completions of requests that have begun.
    parked: Vec<Sequence>,
    pace: Pace,
    rows: Rows,
    stats: SchedulerStats,
    /// Steps so far.
    turn: usize,
    blocked_since: Option<Instant>,
}

impl Runner {
    pub(super) fn new(core: Arc<Core>, shared: Arc<Shared>) -> Self {
        Self {
            core,
            shared,
            running: Vec::new(),
            parked: Vec::new(),
            pace: Pace::default(),
            rows: Rows::default(),
            stats: SchedulerStats::default(),
            turn: 0,
            blocked_since: None,
        }
    }

    /// Makes steps until the end.
    pub(super) fn run(mut self) {
        loop {
            // What concerns one request is caught there; this is the last resort.
            let progress = catch_unwind(AssertUnwindSafe(|| self.step()));
            let progress = progress.unwrap_or_else(|payload| {
                let message = message_of(&*payload);
                for sequence in self.running.drain(..).chain(self.parked.drain(..)) {
                    fail(
                        &mut self.stats,
                        &sequence.ticket,
                        EngineError::RequestPanicked { message: message.clone() },
                    );
                }
                Progress::Worked
            });
            match progress {
                Progress::Worked => {}
                Progress::Closed => return,
                Progress::Idle => self.wait(None),
                Progress::Blocked => self.wait(Some(RETRY)),
            }
        }
    }

    /// Waits for something to do.
    fn wait(&self, limit: Option<Duration>) {
        let state = self.shared.state();
        let nothing = |state: &mut super::State| state.queue.is_empty() && state.closing.is_none();
        match limit {
            None => drop(self.shared.wake.wait_while(state, nothing)),
            Some(limit) => drop(self.shared.wake.wait_timeout(state, limit)),
        }
    }

    /// Makes one step.
    pub(super) fn step(&mut self) -> Progress {
        let closing = self.leave();
        self.start_sequences();
        if self.shared.state().held > 0 {
            self.publish();
        }
        self.plan();
        let parts: Vec<usize> =
            (0..self.running.len()).filter(|&i| self.running[i].input.rows() > 0).collect();
        if parts.is_empty() {
            return self.nothing_runs(closing);
        }
        self.blocked_since = None;
        self.compute(&parts);
        self.turn = self.turn.wrapping_add(1);
        self.stats.steps += 1;
        self.publish();
        Progress::Worked
    }

    /// Lets go of what was given up, is late, or is ended by a shutdown.
    fn leave(&mut self) -> Option<Shutdown> {
        let now = Instant::now();
        let mut state = self.shared.state();
        let closing = state.closing;
        let cancelled = closing == Some(Shutdown::Cancel);
        let gone = state.queue.extract(|w| cancelled || w.ticket.is_over() || w.ticket.is_late(now));
        state.held += gone.len();
        drop(state);
        if !gone.is_empty() {
            self.shared.room.notify_waiters();
        }
        for Waiting { ticket, .. } in gone {
            end(&mut self.stats, &ticket, now);
        }
        for list in [&mut self.running, &mut self.parked] {
            let gone = list.extract_if(.., |s| cancelled || s.ticket.is_over() || s.ticket.is_late(now));
            for sequence in gone {
                let ticket = Arc::clone(&sequence.ticket);
                if cancelled && ticket.has_begun() && !ticket.is_over() {
                    if sequence.cancel() && ticket.end() {
                        self.stats.cancelled += 1;
                    }
                } else {
                    end(&mut self.stats, &ticket, now);
                }
            }
        }
        closing
    }

    /// Starts sequences while there is room, best first.
    fn start_sequences(&mut self) {
        while let Some(mut next) = self.next_to_start() {
            let rank = next.rank();
            let most = self.core.options().max_running;
            let first_time = next.started.is_none();
            let mut started = self.running.len() < most && self.unpark(&mut next);
            // Whoever is of a lower priority makes room.
            while !started && self.running.last().is_some_and(|last| last.rank().0 > rank.0) {
                self.preempt_last();
                started = self.running.len() < most && self.unpark(&mut next);
            }
            if !started {
                self.park(next);
                break;
            }
            self.begin(next, first_time);
        }
    }

    /// The sequence that comes next, taken from where it was.
    fn next_to_start(&mut self) -> Option<Sequence> {
        let full = self.running.len() >= self.core.options().max_running;
        let lowest = self.running.last().map(|last| last.rank().0).filter(|_| full);
        let parked = self.parked.iter().position(Sequence::is_ready);
        let parked_rank = parked.map(|place| self.parked[place].rank().0);
        let mut state = self.shared.state();
        let queued_rank = state.queue.peek().map(|w| std::cmp::Reverse(w.ticket.priority));
        let from_queue = match (parked, parked_rank, queued_rank) {
            (_, _, None) => false,
            (None, _, Some(_)) | (_, None, Some(_)) => true,
            // Further completions of a request take turns with other requests.
            (Some(place), Some(p), Some(q)) => {
                q < p || q == p && self.parked[place].is_further() && self.turn.is_multiple_of(2)
            }
        };
        let rank = if from_queue { queued_rank } else { parked_rank }?;
        if lowest.is_some_and(|lowest| lowest <= rank) {
            return None;
        }
        if !from_queue {
            drop(state);
            return parked.map(|place| self.parked.remove(place));
        }
        let Waiting { ticket, completion } = state.queue.pop()?;
        state.held += 1;
        drop(state);
        self.shared.room.notify_waiters();
        let speculation = self.core.options().speculation;
        for choice in 1..ticket.count {
            let further = completion.with_seed(completion.seed().wrapping_add(choice as u64));
            let session = self.core.session();
            self.park(Sequence::new(Arc::clone(&ticket), choice, further, session, speculation));
        }
        Some(Sequence::new(ticket, 0, completion, self.core.session(), speculation))
    }

    /// Finds blocks for a sequence and one token more, leaving a few for those that run.
    fn unpark(&self, sequence: &mut Sequence) -> bool {
        let available = || lock(self.core.pool()).available();
        let spare = match self.running.len() {
            0 => 0,
            others => others.min(lock(self.core.pool()).budget() / 8).max(1),
        };
        sequence.unpark(available, spare, self.core.info().block_size)
    }

    /// Puts a sequence that has its blocks among those that run.
    fn begin(&mut self, sequence: Sequence, first_time: bool) {
        if first_time {
            self.stats.prompt_tokens_total += sequence.stats.prompt_tokens as u64;
            self.stats.prefix_hit_tokens += sequence.stats.cached_tokens as u64;
            sequence.tell_start();
        }
        let place = self.running.partition_point(|other| other.rank() < sequence.rank());
        self.running.insert(place, sequence);
    }

    fn park(&mut self, sequence: Sequence) {
        let place = self.parked.partition_point(|other| other.rank() < sequence.rank());
        self.parked.insert(place, sequence);
    }

    /// The newest sequence of the lowest priority gives its blocks up.
    fn preempt_last(&mut self) {
        if let Some(mut last) = self.running.pop() {
            last.park();
            self.stats.preemptions += 1;
            self.park(last);
        }
    }

    /// Decides what each running sequence computes, and finds the blocks for it.
    fn plan(&mut self) {
        let wish = |s: &Sequence| Wish { priority: s.ticket.priority, pending: s.pending() };
        let wishes: Vec<Wish> = self.running.iter().map(wish).collect();
        let generating = wishes.iter().filter(|w| w.pending == 1).count();
        let most = self.core.info().max_batch_tokens.max(1);
        let mut rows = generating;
        for (sequence, wish) in self.running.iter_mut().zip(&wishes) {
            sequence.input.tokens = usize::from(wish.pending == 1);
            sequence.input.draws = wish.pending == 1;
            sequence.input.guessed.clear();
            if rows < most {
                sequence.draft(rows, generating, &self.pace);
                rows += sequence.input.rows().saturating_sub(1);
            }
        }
        let budget = match self.core.options().prefill_chunk {
            _ if generating == 0 => most,
            Some(chunk) => chunk,
            None => self.pace.chunk(rows, most.saturating_sub(rows).max(1)),
        };
        let tokens = share(&wishes, budget, self.turn);
        for (sequence, tokens) in self.running.iter_mut().zip(tokens) {
            sequence.input.tokens = tokens;
            sequence.input.draws = tokens > 0 && tokens == sequence.pending();
        }
        self.find_blocks();
    }

    /// Finds the blocks for what is planned; sequences that must give theirs up for others are not computed.
    fn find_blocks(&mut self) {
        let mut place = 0;
        while place < self.running.len() {
            let Sequence { session, input, .. } = &mut self.running[place];
            match session.cover(session.computed() + input.rows()) {
                Ok(()) => place += 1,
                Err(_) if !input.guessed.is_empty() => input.guessed.clear(),
                // It may be the last itself; then it waits.
                Err(_) => self.preempt_last(),
            }
        }
    }

    /// Nothing can be computed: says why.
    fn nothing_runs(&mut self, closing: Option<Shutdown>) -> Progress {
        let now = Instant::now();
        let blocked = !self.parked.is_empty();
        if blocked {
            let since = *self.blocked_since.get_or_insert(now);
            if now - since >= PATIENCE {
                self.blocked_since = None;
                let budget = lock(self.core.pool()).budget();
                let first = self.parked.remove(0);
                fail(&mut self.stats, &first.ticket, PoolExhausted { budget }.into());
            }
        } else {
            self.blocked_since = None;
        }
        self.publish();
        if blocked {
            Progress::Blocked
        } else if closing.is_some() && self.shared.state().queue.is_empty() {
            Progress::Closed
        } else {
            Progress::Idle
        }
    }

    /// Runs the forward call and gives each sequence its logits.
    fn compute(&mut self, parts: &[usize]) {
        let inputs = || parts.iter().map(|&i| &self.running[i].input);
        let prompt: usize = inputs().filter(|input| !input.generates()).map(|input| input.tokens).sum();
        let rows: usize = inputs().map(Input::rows).sum();
        let result = self.forward(parts);
        let mut lost = false;
        let mut ended: Vec<(usize, Result<crate::FinishReason, EngineError>)> = Vec::new();
        match result {
            Ok(()) => {
                let time = self.rows.time();
                self.pace.record(rows, time);
                self.pace.spend(rows - prompt, prompt, time);
                let mut first = 0;
                for &i in parts {
                    let count = self.running[i].input.logit_rows();
                    ended.extend(self.advance(i, first).map(|end| (i, end)));
                    first += count;
                }
            }
            Err(error) if error.is_context_lost() => lost = true,
            // One by one, so that only those fail that cannot be computed.
            Err(_) if parts.len() > 1 => {
                for &i in parts {
                    let end = match self.forward(&[i]) {
                        Ok(()) => self.advance(i, 0),
                        Err(error) if error.is_context_lost() => {
                            lost = true;
                            break;
                        }
                        Err(error) => Some(Err(error)),
                    };
                    ended.extend(end.map(|end| (i, end)));
                }
            }
            Err(error) => ended.push((parts[0], Err(error))),
        }
        for (i, end) in ended.into_iter().rev() {
            let sequence = self.running.remove(i);
            match end {
                Ok(finish) => {
                    let ticket = Arc::clone(&sequence.ticket);
                    let cancelled = ticket.is_over();
                    if sequence.finished(finish) && ticket.end() {
                        *if cancelled { &mut self.stats.cancelled } else { &mut self.stats.finished } += 1;
                    }
                }
                Err(error) => fail(&mut self.stats, &sequence.ticket, error),
            }
        }
        if lost {
            self.start_over();
        }
    }

    /// What was computed of all texts is lost: they wait until their prompts, and what was drawn, are computed again.
    fn start_over(&mut self) {
        self.core.note_loss(&mut self.core.backend());
        while !self.running.is_empty() {
            self.preempt_last();
        }
    }

    /// One forward call of these running sequences; the logits are in `rows` then.
    fn forward(&mut self, parts: &[usize]) -> Result<(), EngineError> {
        let Self { core, running, rows, .. } = self;
        let vocab_size = core.spec().vocab_size;
        let mut decisive = Vec::with_capacity(parts.len());
        for &i in parts {
            let Sequence { completion, session, input, .. } = &mut running[i];
            let few = || completion.decisive(session.tokens(), vocab_size);
            // If this panics, drawing will as well, where it is caught for this request alone.
            decisive.push(if input.draws {
                catch_unwind(AssertUnwindSafe(few)).unwrap_or(None)
            } else {
                None
            });
        }
        let backend = &mut *core.backend();
        core.reserve_memory(backend)?;
        for &i in parts {
            running[i].run_copy(backend.executor())?;
        }
        let part = |&i: &usize| {
            let Sequence { session, input, .. } = &running[i];
            let position = session.computed();
            let (tokens, logits) = match (&input.guessed[..], input.draws) {
                ([], draws) => {
                    let logits = if draws { LogitRows::Last } else { LogitRows::None };
                    (&session.tokens()[position..position + input.tokens], logits)
                }
                (guessed, _) => (guessed, LogitRows::All),
            };
            Part { tokens, position, blocks: session.blocks(), logits }
        };
        let (mut wants, draws) = (Vec::new(), backend.executor().draws());
        for (&i, k) in parts.iter().zip(decisive) {
            let Sequence { completion, input, .. } = &running[i];
            let allowed = completion.allowed();
            // Of guesses more rows may be drawn from than there are random numbers for.
            let draws = draws && input.guessed.is_empty();
            let want = |row: usize| match k {
                Some(k) if row == 0 => completion.want(k, draws),
                // Every token that a guess adds may be one more that penalties lower.
                Some(k) if allowed.is_none() => RowWant::Top(TopWant { k: k + row, allowed }),
                Some(k) if row <= input.behind.len() => {
                    let allowed = &input.behind[row - 1];
                    // Where the constraint left no choice before, few decided; here more may.
                    let k = (k + row).max(allowed.count().min(BEHIND));
                    RowWant::Top(TopWant { k, allowed: Some(allowed.as_set()) })
                }
                _ => RowWant::All,
            };
            wants.extend((0..input.logit_rows()).map(want));
        }
        let parts: Vec<Part<'_>> = parts.iter().map(part).collect();
        let run = || backend.run_batch(&parts, &wants, rows).map_err(EngineError::from);
        catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|payload| Err(EngineError::RequestPanicked { message: message_of(&*payload) }))
    }

    /// Takes what the call computed of a sequence; `first` is its first row of logits. Gives how it ended, if it did.
    fn advance(&mut self, i: usize, first: usize) -> Option<Result<crate::FinishReason, EngineError>> {
        let Self { running, rows, stats, .. } = self;
        let sequence = &mut running[i];
        if !sequence.input.draws {
            let done = sequence.session.computed() + sequence.input.tokens;
            sequence.session.set_computed(done);
            sequence.tell_prefill();
            return None;
        }
        if !sequence.ticket.prompt_computed.swap(true, Ordering::Relaxed) && sequence.ticket.count > 1 {
            // The other completions find it.
            sequence.session.set_computed(sequence.session.tokens().len());
            sequence.session.publish();
        }
        let before = sequence.stats;
        let outcome = catch_unwind(AssertUnwindSafe(|| sequence.advance(rows, first)));
        let outcome = outcome
            .unwrap_or_else(|payload| Err(EngineError::RequestPanicked { message: message_of(&*payload) }));
        let after = sequence.stats;
        stats.drafted += (after.drafted - before.drafted) as u64;
        stats.accepted += (after.accepted - before.accepted) as u64;
        stats.generated_tokens_total += 1 + (after.accepted - before.accepted) as u64;
        outcome.transpose()
    }

    /// Shows how things stand. What runs or has ended and what waits change together, so that whoever looks sees each request
    /// in one place.
    fn publish(&mut self) {
        self.stats.running = self.running.len();
        self.stats.slots.clear();
        self.stats.slots.extend(self.running.iter().filter_map(|s| s.slot(true)));
        self.stats.slots.extend(self.parked.iter().filter_map(|s| s.slot(false)));
        let most = self.core.options().max_running;
        let free = most.saturating_sub(self.running.len() + self.parked.len());
        let mut state = self.shared.state();
        let mut shown = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone_from(&self.stats);
        drop(shown);
        state.held = self.waiting();
        let more = std::mem::replace(&mut state.free, free) < free;
        drop(state);
        if more {
            self.shared.room.notify_waiters();
        }
    }

    /// Requests of which nothing runs or has its place, though completions are still to come.
    fn waiting(&self) -> usize {
        // Sorted by rank, completions of one request are neighbours.
        let requests = self.parked.chunk_by(|a, b| a.ticket.id == b.ticket.id);
        let runs = |id| self.running.iter().any(|s| s.ticket.id == id);
        let waits = |list: &&[Sequence]| list.iter().all(|s| s.started.is_none()) && !runs(list[0].ticket.id);
        requests.filter(waits).count()
    }
}

/// Ends a request that was given up or is late, once.
fn end(stats: &mut SchedulerStats, ticket: &Ticket, now: Instant) {
    let given_up = ticket.is_over();
    if !ticket.end() {
        return;
    }
    if given_up {
        stats.cancelled += 1;
        return;
    }
    let late = ticket.is_late(now);
    *if late { &mut stats.failed } else { &mut stats.cancelled } += 1;
    let error = if late { EngineError::DeadlineExceeded } else { EngineError::ShuttingDown };
    let _ = ticket.events.send(Err(error));
}

/// Ends a request with an error, once.
fn fail(stats: &mut SchedulerStats, ticket: &Ticket, error: EngineError) {
    if ticket.end() {
        stats.failed += 1;
        let _ = ticket.events.send(Err(error));
    }
}

/// What a panic said.
fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
