//! [`Automaton`]: the regular parts of a grammar as state machines over characters.

use std::collections::HashSet;

use super::class::Class;
use super::tree::{Grammar, Node, NodeId};

/// Largest automaton that is made.
const MOST_STATES: usize = 1500;

/// A nondeterministic automaton without empty moves. State 0 is the start; nothing leads back to it.
#[derive(Debug)]
pub(super) struct Automaton {
    /// By state: which characters lead where.
    moves: Vec<Vec<(Class, usize)>>,
    /// By state: the first bytes of the characters that lead on.
    leads: Vec<Class>,
    accepting: Vec<bool>,
}

/// An automaton in the making, with empty moves.
struct Builder<'g> {
    grammar: &'g Grammar,
    moves: Vec<Vec<(Class, usize)>>,
    empty: Vec<Vec<usize>>,
}

impl Automaton {
    /// That of a regular tree; `None` if it would be too large.
    pub(super) fn of(grammar: &Grammar, node: NodeId) -> Option<Self> {
        let mut builder = Builder { grammar, moves: Vec::new(), empty: Vec::new() };
        let start = builder.state();
        let end = builder.build(node, start)?;
        let states = 0..builder.moves.len();
        let reached: Vec<Vec<usize>> = states.map(|state| builder.reached(state)).collect();
        let gathered =
            |reached: &Vec<usize>| reached.iter().flat_map(|&s| builder.moves[s].iter().cloned()).collect();
        let moves: Vec<Vec<(Class, usize)>> = reached.iter().map(gathered).collect();
        let leads = |moves: &Vec<(Class, usize)>| {
            let mut all = Class::default();
            for (class, _) in moves {
                all.add(&class.leads());
            }
            all
        };
        Some(Self {
            leads: moves.iter().map(leads).collect(),
            moves,
            accepting: reached.iter().map(|reached| reached.contains(&end)).collect(),
        })
    }

    /// Whether a text that this automaton accepts may be followed by a character of `follow` with whose first byte `longer`
    /// would still be on its way. Takes from `budget`; if that is used up, the answer is yes.
    pub(super) fn cut_short(&self, longer: &Self, follow: &Class, budget: &mut usize) -> bool {
        let follow = follow.leads();
        let mut seen = HashSet::from([(0, 0)]);
        let mut open = vec![(0, 0)];
        while let Some((a, b)) = open.pop() {
            let work = self.moves[a].len() * longer.moves[b].len() + 1;
            let Some(left) = budget.checked_sub(work) else {
                *budget = 0;
                return true;
            };
            *budget = left;
            if a != 0 && self.accepting[a] && longer.leads[b].meets(&follow) {
                return true;
            }
            for (class, to) in &self.moves[a] {
                for (other, longer_to) in &longer.moves[b] {
                    if class.meets(other) && seen.insert((*to, *longer_to)) {
                        open.push((*to, *longer_to));
                    }
                }
            }
        }
        false
    }
}

impl Builder<'_> {
    fn state(&mut self) -> usize {
        self.moves.push(Vec::new());
        self.empty.push(Vec::new());
        self.moves.len() - 1
    }

    /// Adds a tree behind the state `from`; gives the state behind it.
    fn build(&mut self, node: NodeId, from: usize) -> Option<usize> {
        if self.moves.len() > MOST_STATES {
            return None;
        }
        let grammar = self.grammar;
        match &grammar.nodes[node] {
            Node::Chars(class) => Some(self.step(from, class.clone())),
            Node::Text(text) => Some(text.chars().fold(from, |from, c| self.step(from, Class::of(c)))),
            Node::Rule(rule) => self.build(grammar.body(*rule), from),
            Node::Token(_) => None,
            Node::Seq(parts) => parts.iter().try_fold(from, |from, &part| self.build(part, from)),
            Node::Alt(parts) => {
                let end = self.state();
                for &part in parts {
                    let last = self.build(part, from)?;
                    self.empty[last].push(end);
                }
                Some(end)
            }
            Node::Repeat(part, min, max) => self.repeat(*part, *min, *max, from),
        }
    }

    fn step(&mut self, from: usize, class: Class) -> usize {
        let to = self.state();
        self.moves[from].push((class, to));
        to
    }

    fn repeat(&mut self, part: NodeId, min: u32, max: Option<u32>, from: usize) -> Option<usize> {
        // A state of its own, as loops lead back to it.
        let mut last = self.state();
        self.empty[from].push(last);
        for _ in 0..min {
            last = self.build(part, last)?;
        }
        let Some(max) = max else {
            let again = self.state();
            self.empty[last].push(again);
            let end = self.build(part, again)?;
            self.empty[end].push(again);
            return Some(again);
        };
        let end = self.state();
        self.empty[last].push(end);
        for _ in min..max {
            // Parts that match nothing add no moves, so that states are counted here.
            let next = self.state();
            let behind = self.build(part, last)?;
            self.empty[behind].push(next);
            self.empty[next].push(end);
            last = next;
        }
        Some(end)
    }

    /// The states that are reached from a state by empty moves, itself included.
    fn reached(&self, state: usize) -> Vec<usize> {
        let (mut reached, mut next) = (vec![state], 0);
        let mut seen = HashSet::from([state]);
        while next < reached.len() {
            reached.extend(self.empty[reached[next]].iter().copied().filter(|state| seen.insert(*state)));
            next += 1;
        }
        reached
    }
}
