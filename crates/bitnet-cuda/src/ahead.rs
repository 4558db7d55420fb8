//! [`Ahead`]: which steps are launched before their inputs are known, and what becomes of them.
//!
//! A *step* is a run of a graph that gets its inputs from the mailbox; steps have numbers in the order of their launches. While
//! one is computed, the same graph may be launched once more, *ahead*. It is *waiting* then, for at most one call: the next
//! call wants the same graph and gives it its inputs, or anything else is to happen, which cancels it first. What waits too long
//! gives up by itself, on the device.
//!
//! A step that is cancelled costs the device as much time as one that counts. So nothing is launched ahead before some steps
//! of the same graph followed each other; how many is learnt from what became of earlier ones.

use crate::gpu::GraphId;

/// Steps of the same graph before one is launched ahead: at least, and at most.
const PATIENCE: [u32; 2] = [8, 256];
/// Steps after one that gave up in which none is launched ahead: calls come too slowly.
const REST: u32 = 50;

/// What the host knows of steps.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Number of the last step that was launched.
    launched: u64,
    /// The graph of that step, if it waits for its inputs.
    waiting: Option<GraphId>,
    /// The graph of the steps before, as long as nothing else happened, and how many there were.
    last: Option<GraphId>,
    streak: u32,
    patience: u32,
    /// Steps until something may be launched ahead again.
    rest: u32,
    /// Steps that were launched ahead, and those of them that came to nothing.
    pub(crate) counts: [u64; 2],
}

/// What a step needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Inputs only: the step of this number waits for them.
    Inputs(u64),
    /// A launch, which will have this number.
    Launch(u64),
}

impl Ahead {
    pub(crate) fn new() -> Self {
        Self {
            launched: 0,
            waiting: None,
            last: None,
            streak: 0,
            patience: PATIENCE[0],
            rest: 0,
            counts: [0; 2],
        }
    }

    /// What a step of this graph needs. No other graph may be waiting.
    pub(crate) fn next(&self, graph: GraphId) -> Next {
        debug_assert!(self.waiting.is_none_or(|waiting| waiting == graph), "what waits was cancelled");
        if self.waiting == Some(graph) {
            Next::Inputs(self.launched)
        } else {
            Next::Launch(self.launched + 1)
        }
    }

    /// Whether a step waits that is of another graph.
    pub(crate) fn hinders(&self, graph: GraphId) -> bool {
        self.waiting.is_some_and(|waiting| waiting != graph)
    }

    /// A step of this graph has got its inputs, and was launched if it was not before.
    pub(crate) fn begun(&mut self, graph: GraphId, next: Next) {
        let (Next::Inputs(number) | Next::Launch(number)) = next;
        self.launched = number;
        self.waiting = None;
        self.streak = if self.last == Some(graph) { self.streak + 1 } else { 1 };
        self.last = Some(graph);
        self.rest = self.rest.saturating_sub(1);
    }

    /// Whether a further step of the same graph is worth to be launched ahead.
    pub(crate) fn pays(&self) -> bool {
        self.waiting.is_none() && self.rest == 0 && self.streak >= self.patience
    }

    /// A further step of the same graph was launched ahead.
    pub(crate) fn launched_ahead(&mut self) {
        self.launched += 1;
        self.waiting = self.last;
        self.counts[0] += 1;
    }

    /// A step that was launched ahead did not get its inputs in time.
    pub(crate) fn gave_up(&mut self) {
        self.counts[1] += 1;
        self.slow();
    }

    /// Something took so long that nothing is gained by launching ahead.
    pub(crate) fn slow(&mut self) {
        self.rest = REST;
    }

    /// Something else is to happen: the number of the step that waits, to be told so.
    pub(crate) fn cancel(&mut self) -> Option<u64> {
        let streak = std::mem::take(&mut self.streak);
        self.last = None;
        self.waiting.take()?;
        self.counts[1] += 1;
        let paid = streak >= 2 * self.patience;
        self.patience = if paid { self.patience / 2 } else { self.patience * 2 };
        self.patience = self.patience.clamp(PATIENCE[0], PATIENCE[1]);
        Some(self.launched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPHS: [GraphId; 2] = [GraphId(7), GraphId(8)];

    fn steps(ahead: &mut Ahead, graph: GraphId, count: u32) {
        for _ in 0..count {
            step(ahead, graph);
        }
    }

    /// A step as the queue makes it; what it needed.
    fn step(ahead: &mut Ahead, graph: GraphId) -> Next {
        if ahead.hinders(graph) {
            ahead.cancel();
        }
        let next = ahead.next(graph);
        ahead.begun(graph, next);
        if ahead.pays() {
            ahead.launched_ahead();
        }
        next
    }

    #[test]
    fn steps_are_launched_ahead_once_enough_followed_each_other() {
        let mut ahead = Ahead::new();
        let first = u64::from(PATIENCE[0]);
        for number in 1..=first {
            assert_eq!(step(&mut ahead, GRAPHS[0]), Next::Launch(number));
        }
        for number in first + 1..first + 20 {
            assert_eq!(step(&mut ahead, GRAPHS[0]), Next::Inputs(number));
        }
    }

    #[test]
    fn what_waits_is_cancelled_once_and_its_number_is_not_used_again() {
        let mut ahead = Ahead::new();
        steps(&mut ahead, GRAPHS[0], PATIENCE[0]);
        let waiting = u64::from(PATIENCE[0]) + 1;
        assert!(ahead.hinders(GRAPHS[1]) && !ahead.hinders(GRAPHS[0]));
        assert_eq!(ahead.cancel(), Some(waiting));
        assert_eq!(ahead.cancel(), None);
        assert_eq!(step(&mut ahead, GRAPHS[1]), Next::Launch(waiting + 1));
        assert!(!ahead.pays(), "the other graph has only begun");
    }

    #[test]
    fn batches_that_change_often_make_it_wait_longer() {
        let mut ahead = Ahead::new();
        let mut wasted = 0;
        for round in 0..200 {
            // Always as many steps as the first patience wants.
            steps(&mut ahead, GRAPHS[round % 2], PATIENCE[0]);
            wasted += u32::from(ahead.cancel().is_some());
        }
        assert_eq!(wasted, 1);
        steps(&mut ahead, GRAPHS[0], 1000);
        assert!(ahead.cancel().is_some());
        assert_eq!(ahead.patience, PATIENCE[0], "a long text makes up for it");
    }

    #[test]
    fn slow_calls_end_it_for_a_while() {
        let mut ahead = Ahead::new();
        steps(&mut ahead, GRAPHS[0], 2 * PATIENCE[0]);
        ahead.slow();
        let number = ahead.launched;
        assert_eq!(step(&mut ahead, GRAPHS[0]), Next::Inputs(number), "what is there is still used");
        for i in 1..u64::from(REST) {
            assert_eq!(step(&mut ahead, GRAPHS[0]), Next::Launch(number + i));
        }
        assert_eq!(step(&mut ahead, GRAPHS[0]), Next::Inputs(number + u64::from(REST)));
    }
}
