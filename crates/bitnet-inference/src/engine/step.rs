//! One forward call: blocks, memory, executor. For one session, or for the scheduler's batch of many. And what follows when
//! a device failed with all that was computed: it is computed again, on the device that took its place.

use std::time::{Duration, Instant};

use bitnet_model::{Batch, ExecError, Executor, LogitRows, RowWant, Sequence, TopLogits};

use super::{Core, InferenceEngine};
use crate::error::EngineError;
use crate::generate::{Completion, Logits};
use crate::kv::{Session, lock};

/// The executor and the logits of its last call for a session.
pub(crate) struct Backend {
    executor: Box<dyn Executor>,
    /// `[vocab_size]` once they were needed.
    logits: Vec<f32>,
    top: TopLogits,
    /// Whether asking for the largest logits alone spares the executor anything; assumed until it shows.
    selects: bool,
}

/// Which logits a call gives, and where to.
enum Output<'a> {
    None,
    /// Those of every token.
    All(&'a mut [f32]),
    /// Those of the last token.
    Last,
    /// At least these of the last token, or what is drawn from them.
    Top(RowWant<'a>),
}

/// The logits of a batch's rows, in the order of sequences and tokens; buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    vocab_size: usize,
    /// Where each row is.
    places: Vec<Place>,
    /// `[rows with all logits, vocab_size]`.
    logits: Vec<f32>,
    top: Vec<TopLogits>,
    /// How long the executor took.
    time: Duration,
}

impl Rows {
    /// The logits of one row.
    ///
    /// # Panics
    /// If the last batch had fewer rows.
    pub(crate) fn row(&mut self, index: usize) -> Logits<'_> {
        match self.places[index] {
            Place::All(row) => Logits::All(&mut self.logits[row * self.vocab_size..][..self.vocab_size]),
            Place::Top(row) => Logits::Top(&mut self.top[row]),
        }
    }

    /// Makes room for what rows want; gives how many of them get their largest logits alone.
    fn make_room(&mut self, wants: &[RowWant<'_>], selects: bool) -> usize {
        let (mut all, mut top) = (0, 0);
        self.places.clear();
        for want in wants {
            let (count, place): (_, fn(usize) -> Place) = match want {
                RowWant::Top(_) | RowWant::Draw(_) if selects => (&mut top, Place::Top),
                _ => (&mut all, Place::All),
            };
            self.places.push(place(*count));
            *count += 1;
        }
        self.logits.resize(all * self.vocab_size, 0.0);
        if self.top.len() < top {
            self.top.resize_with(top, TopLogits::default);
        }
        top
    }

    /// How long the executor took for the last batch.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// How many of the largest logits each row has at least; `None`: all.
    pub(crate) fn kept(&self, index: usize) -> Option<usize> {
        match self.places[index] {
            Place::All(_) => None,
            Place::Top(row) => Some(self.top[row].ids.len()),
        }
    }
}

/// Where a row of logits is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Which of the rows with all logits it is.
    All(usize),
    /// Which of the rows with the largest logits it is.
    Top(usize),
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("executor", &self.executor.info().description).finish_non_exhaustive()
    }
}

impl Backend {
    pub(crate) fn new(executor: Box<dyn Executor>) -> Self {
        Self { executor, logits: Vec::new(), top: TopLogits::default(), selects: true }
    }

    /// The executor, for calls of more than one session. The engine's bookkeeping of blocks is the caller's business.
    pub(crate) fn executor(&mut self) -> &mut dyn Executor {
        &mut *self.executor
    }

    /// Runs the executor over `session.tokens()[computed..end]`, for which the block table has room.
    fn forward(&mut self, session: &Session, end: usize, output: &mut Output<'_>) -> Result<(), EngineError> {
        let position = session.computed();
        let logits = match &output {
            Output::None => LogitRows::None,
            Output::All(_) => LogitRows::All,
            Output::Last | Output::Top(_) => LogitRows::Last,
        };
        let tokens = &session.tokens()[position..end];
        let sequences = [Sequence { tokens, position, blocks: session.blocks(), logits }];
        let batch = Batch { sequences: &sequences };
        match output {
            Output::None => self.executor.forward(&batch, &mut [])?,
            Output::All(logits) => self.executor.forward(&batch, logits)?,
            Output::Last => {
                self.logits.resize(self.executor.spec().vocab_size, 0.0);
                self.executor.forward(&batch, &mut self.logits)?;
            }
            Output::Top(want) => {
                let top = std::slice::from_mut(&mut self.top);
                match largest(std::slice::from_ref(want)) {
                    Some(k) => self.executor.forward_top(&batch, k, top)?,
                    None => self.executor.forward_select(&batch, std::slice::from_ref(want), &mut [], top)?,
                }
            }
        }
        Ok(())
    }

    /// Runs a batch; gives of each logit row what it wants, or more. Knows nothing of sessions: that they have blocks with
    /// memory, and what is computed now, is the caller's business.
    pub(crate) fn run_batch(
        &mut self,
        sequences: &[Sequence<'_>],
        wants: &[RowWant<'_>],
        rows: &mut Rows,
    ) -> Result<(), ExecError> {
        let (start, batch) = (Instant::now(), Batch { sequences });
        rows.vocab_size = self.executor.spec().vocab_size;
        match rows.make_room(wants, self.selects) {
            0 => self.executor.forward(&batch, &mut rows.logits)?,
            count => {
                let top = &mut rows.top[..count];
                match largest(wants) {
                    Some(k) => self.executor.forward_top(&batch, k, top)?,
                    None => self.executor.forward_select(&batch, wants, &mut rows.logits, top)?,
                }
                // The executor gave all there is: from now on without the copy.
                self.selects = top.iter().all(|top| top.ids.len() < rows.vocab_size);
            }
        }
        rows.time = start.elapsed();
        Ok(())
    }
}

/// How many of the largest logits all rows want at most, if all want such of all tokens.
fn largest(wants: &[RowWant<'_>]) -> Option<usize> {
    let k = |want: &RowWant<'_>| match want {
        RowWant::Top(top) if top.allowed.is_none() => Some(top.k),
        _ => None,
    };
    wants.iter().map(k).try_fold(0, |most, k| Some(most.max(k?)))
}

/// A sequence of all waiting tokens of a session, which has blocks for them.
fn waiting(session: &Session, logits: LogitRows) -> Sequence<'_> {
    let position = session.computed();
    Sequence { tokens: &session.tokens()[position..], position, blocks: session.blocks(), logits }
}

impl InferenceEngine {
    /// Computes a session's waiting tokens up to `end` with the logits of each, `[tokens, vocab_size]`.
    pub(crate) fn score(
        &self,
        session: &mut Session,
        end: usize,
        logits: &mut [f32],
    ) -> Result<(), EngineError> {
        self.core.compute(&mut self.backend(), session, end, Output::All(logits))
    }

    /// Computes all waiting tokens of some sessions in one call, each with the logits it wants, `[rows, vocab_size]` in the
    /// order of sessions and tokens.
    pub(crate) fn score_together(
        &self,
        sessions: &mut [(Session, LogitRows)],
        logits: &mut [f32],
    ) -> Result<(), EngineError> {
        let backend = &mut *self.backend();
        let starts: Vec<usize> = sessions.iter().map(|(session, _)| session.computed()).collect();
        match self.core.compute_together(backend, sessions, logits) {
            Err(error) if error.is_context_lost() => {}
            result => return result,
        }
        self.core.note_loss(backend);
        for ((session, _), start) in sessions.iter_mut().zip(starts) {
            self.core.restore(backend, session, start)?;
        }
        self.core.compute_together(backend, sessions, logits)
    }
}

impl Core {
    /// Computes a session's waiting tokens up to `end` without logits.
    pub(crate) fn prefill(&self, session: &mut Session, end: usize) -> Result<(), EngineError> {
        self.compute(&mut self.backend(), session, end, Output::None)
    }

    /// The same, in chunks that the executor likes.
    pub(crate) fn prefill_to(&self, session: &mut Session, end: usize) -> Result<(), EngineError> {
        let chunk = self.info().max_batch_tokens.max(1);
        while session.computed() < end {
            let next = (session.computed() + chunk).min(end);
            self.prefill(session, next)?;
        }
        Ok(())
    }

    /// Computes all waiting tokens of a session and draws the token that follows, for the completion to take.
    pub(crate) fn next_token(
        &self,
        session: &mut Session,
        completion: &mut Completion,
    ) -> Result<Option<u32>, EngineError> {
        let (vocab_size, end) = (self.spec().vocab_size, session.tokens().len());
        let backend = &mut *self.backend();
        if let Some(k) = completion.decisive(session.tokens(), vocab_size).filter(|_| backend.selects) {
            let want = completion.want(k, backend.executor.draws());
            self.compute(backend, session, end, Output::Top(want))?;
            let token = completion.draw(session.tokens(), Logits::Top(&mut backend.top))?;
            if backend.top.ids.len() == vocab_size {
                // The executor gave all there is: from now on without the copy.
                (backend.selects, backend.top) = (false, TopLogits::default());
            }
            return Ok(token);
        }
        self.compute(backend, session, end, Output::Last)?;
        completion.draw(session.tokens(), Logits::All(&mut backend.logits))
    }

    /// Finds blocks and their memory, then runs the executor. If what was computed of the session is lost, it is computed
    /// again first.
    fn compute(
        &self,
        backend: &mut Backend,
        session: &mut Session,
        end: usize,
        mut output: Output<'_>,
    ) -> Result<(), EngineError> {
        let start = session.computed();
        match self.try_compute(backend, session, end, &mut output) {
            Err(error) if error.is_context_lost() => {}
            result => return result,
        }
        self.note_loss(backend);
        self.restore(backend, session, start)?;
        self.try_compute(backend, session, end, &mut output)
    }

    /// Computes the first `end` tokens of a session again if they were lost.
    fn restore(&self, backend: &mut Backend, session: &mut Session, end: usize) -> Result<(), EngineError> {
        session.renew();
        let chunk = backend.executor.info().max_batch_tokens.max(1);
        while session.computed() < end {
            let next = (session.computed() + chunk).min(end);
            self.try_compute(backend, session, next, &mut Output::None)?;
        }
        Ok(())
    }

    fn try_compute(
        &self,
        backend: &mut Backend,
        session: &mut Session,
        end: usize,
        output: &mut Output<'_>,
    ) -> Result<(), EngineError> {
        session.cover(end)?;
        self.reserve_memory(backend)?;
        session.run_copy(backend.executor())?;
        backend.forward(session, end, output)?;
        session.set_computed(end);
        Ok(())
    }

    /// One call for all waiting tokens of some sessions.
    fn compute_together(
        &self,
        backend: &mut Backend,
        sessions: &mut [(Session, LogitRows)],
        logits: &mut [f32],
    ) -> Result<(), EngineError> {
        for (session, _) in sessions.iter_mut() {
            session.cover(session.tokens().len())?;
        }
        self.reserve_memory(backend)?;
        for (session, _) in sessions.iter_mut() {
            session.run_copy(backend.executor())?;
        }
        let sequences: Vec<Sequence<'_>> = sessions.iter().map(|(s, logits)| waiting(s, *logits)).collect();
        backend.executor.forward(&Batch { sequences: &sequences }, logits)?;
        sessions.iter_mut().for_each(|(session, _)| session.set_computed(session.tokens().len()));
        Ok(())
    }

    /// If the executor has lost all keys and values, sessions learn it before they compute.
    pub(crate) fn note_loss(&self, backend: &mut Backend) {
        if backend.executor.take_loss() {
            backend.selects = true;
            lock(self.pool()).lose_contents();
        }
    }

    /// Does something that takes several forward calls and keeps its blocks between them; once more, if their content was lost.
    pub(crate) fn again_if_lost<T>(&self, mut run: impl FnMut() -> T) -> T {
        loop {
            let losses = lock(self.pool()).losses();
            let result = run();
            self.note_loss(&mut self.backend());
            if lock(self.pool()).losses() == losses {
                return result;
            }
        }
    }

    /// Lets the executor have memory for all blocks that are taken.
    pub(crate) fn reserve_memory(&self, backend: &mut Backend) -> Result<(), EngineError> {
        self.note_loss(backend);
        let mut pool = lock(self.pool());
        if let Some(count) = pool.missing_memory() {
            backend.executor.reserve_blocks(count)?;
            pool.set_reserved(count);
        }
        Ok(())
    }
}
