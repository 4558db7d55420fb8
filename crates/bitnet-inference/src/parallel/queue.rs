//! [`Queue`]: inputs on their way to worker threads, and results on their way back; bounded on both sides.
//!
//! Workers wait with a condition variable, readers and writers either so or by their wakers. A worker begins nothing while
//! as many results wait to be read as may: a slow reader slows down the whole instead of filling memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{Completed, RejectReason, Rejected};
use crate::background::Cancel;
use crate::error::EngineError;

/// How much may be on the way, and how it is handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Inputs that may wait for a worker.
    pub(crate) inputs: usize,
    /// Results that may wait to be read before no input is begun any more.
    pub(crate) results: usize,
    /// Whether results come in the order of their inputs.
    pub(crate) ordered: bool,
    /// Most inputs that a worker takes at once.
    pub(crate) gather: usize,
    /// How long an input waits until so many are there.
    pub(crate) patience: Duration,
}

/// Counts of what went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) calls: u64,
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    pub(crate) unread: usize,
}

pub(crate) struct Queue<I, O> {
    state: Mutex<State<I, O>>,
    changed: Condvar,
    limits: Limits,
    /// Set when nobody wants results any more.
    pub(crate) cancel: Cancel,
}

struct State<I, O> {
    waiting: VecDeque<Waiting<I>>,
    /// Results by the numbers of their inputs, where order counts; else by those of their arrival.
    ready: BTreeMap<u64, Completed<O>>,
    counts: Counts,
    /// The key of the next result to be read.
    next: u64,
    /// Nothing comes any more.
    closed: bool,
    wakers: Vec<Waker>,
}

struct Waiting<I> {
    id: u64,
    input: I,
    since: Instant,
}

impl<I, O> Queue<I, O> {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            ready: BTreeMap::new(),
            counts: Counts::default(),
            next: 0,
            closed: false,
            wakers: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), limits, cancel: Cancel::new() }
    }

    /// Nothing panics between two changes of the state.
    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<I, O>>) -> MutexGuard<'a, State<I, O>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everyone that something has changed.
    fn tell(&self, mut state: MutexGuard<'_, State<I, O>>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Puts an input into the queue if there is room; returns its number.
    pub(crate) fn try_push(&self, input: I) -> Result<u64, Rejected<I>> {
        let mut state = self.lock();
        let reason = if state.closed {
            RejectReason::Closed
        } else if state.waiting.len() >= self.limits.inputs {
            RejectReason::Full { capacity: self.limits.inputs }
        } else {
            let id = state.push(input);
            self.tell(state);
            return Ok(id);
        };
        Err(Rejected { input, reason })
    }

    /// Puts the input that `held` has into the queue once there is room. Closed queues give it back.
    pub(crate) fn poll_push(
        &self,
        context: &mut Context<'_>,
        held: &mut Option<I>,
    ) -> Poll<Result<u64, Rejected<I>>> {
        let mut state = self.lock();
        if !state.closed && state.waiting.len() >= self.limits.inputs {
            state.register(context);
            return Poll::Pending;
        }
        drop(state);
        match held.take().map(|input| self.try_push(input)) {
            // Another writer was faster.
            Some(Err(Rejected { input, reason: RejectReason::Full { .. } })) => {
                *held = Some(input);
                self.lock().register(context);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }

    /// The inputs that a worker is to process next; `None` if there will be none any more. Waits.
    pub(crate) fn take(&self) -> Option<Vec<(u64, I)>> {
        let mut state = self.lock();
        loop {
            if self.cancel.is_cancelled() || (state.closed && state.waiting.is_empty()) {
                return None;
            }
            let Some(first) = state.waiting.front() else {
                state = self.wait(state);
                continue;
            };
            if state.ready.len() >= self.limits.results {
                state = self.wait(state);
                continue;
            }
            let waited = first.since.elapsed();
            let enough = state.closed || state.waiting.len() >= self.limits.gather;
            if !enough && let Some(rest) = self.limits.patience.checked_sub(waited).filter(|r| !r.is_zero()) {
                let waited = self.changed.wait_timeout(state, rest);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let count = state.waiting.len().min(self.limits.gather);
            let items: Vec<(u64, I)> = state.waiting.drain(..count).map(|w| (w.id, w.input)).collect();
            state.counts.running += items.len();
            state.counts.calls += 1;
            self.tell(state);
            return Some(items);
        }
    }

    /// Takes the results of inputs that a worker had.
    pub(crate) fn done(&self, results: impl IntoIterator<Item = (u64, Result<O, EngineError>)>) {
        let mut state = self.lock();
        for (id, result) in results {
            state.counts.running -= 1;
            let key = if self.limits.ordered { id } else { state.counts.completed };
            state.counts.completed += 1;
            state.counts.failed += u64::from(result.is_err());
            state.ready.insert(key, Completed { id, result });
        }
        self.tell(state);
    }

    /// The next result. `None` once the queue is closed and all results were read.
    pub(crate) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Option<Completed<O>>> {
        let mut state = self.lock();
        match state.pop() {
            Some(Some(completed)) => {
                self.tell(state);
                Poll::Ready(Some(completed))
            }
            Some(None) => Poll::Ready(None),
            None => {
                state.register(context);
                Poll::Pending
            }
        }
    }

    /// The next result if it is there already.
    pub(crate) fn try_pop(&self) -> Option<Completed<O>> {
        let mut state = self.lock();
        let completed = state.pop().flatten();
        if completed.is_some() {
            self.tell(state);
        }
        completed
    }

    /// Lets nothing in any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.tell(state);
    }

    /// Lets nothing in any more, begins nothing, and gives the inputs that were not begun back.
    pub(crate) fn abandon(&self) -> Vec<(u64, I)> {
        let mut state = self.lock();
        state.closed = true;
        let items: Vec<(u64, I)> = state.waiting.drain(..).map(|w| (w.id, w.input)).collect();
        // Their results will not come: nobody may wait for them.
        self.tell(state);
        items
    }

    /// All results that are there, whatever is missing between them.
    pub(crate) fn drain(&self) -> Vec<Completed<O>> {
        let mut state = self.lock();
        let ready = std::mem::take(&mut state.ready);
        self.tell(state);
        ready.into_values().collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { waiting: state.waiting.len(), unread: state.ready.len(), ..state.counts }
    }

    /// Whether nothing can be put in any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl<I, O> State<I, O> {
    fn push(&mut self, input: I) -> u64 {
        let id = self.counts.submitted;
        self.counts.submitted += 1;
        self.waiting.push_back(Waiting { id, input, since: Instant::now() });
        id
    }

    /// The next result; `Some(None)` if there will be none any more, `None` if it must be waited for.
    fn pop(&mut self) -> Option<Option<Completed<O>>> {
        if let Some(completed) = self.ready.remove(&self.next) {
            self.next += 1;
            return Some(Some(completed));
        }
        let on_the_way = !self.waiting.is_empty() || self.counts.running > 0;
        (self.closed && !on_the_way).then_some(None)
    }

    fn register(&mut self, context: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            self.wakers.push(context.waker().clone());
        }
    }
}
