//! The merge loop that all BPE vocabularies share: starting from single characters or bytes, the best pair of
//! neighbours becomes one symbol, again and again, the leftmost first among equals. With a heap of candidates over a
//! linked list it takes n log n steps, so that a megabyte without a break is no problem.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Id of a symbol that is no token of the vocabulary, and index of no symbol.
pub(super) const NONE: u32 = u32::MAX;

/// A piece of the text, `len` bytes from `start`; `len` 0 once it is part of its left neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Offset of the first byte.
    pub(super) start: u32,
    /// Length in bytes.
    pub(super) len: u32,
    /// The token, or [`NONE`].
    pub(super) id: u32,
    previous: u32,
    next: u32,
}

/// A possible merge, ordered by priority (smaller is better) and then from left to right.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    right: u32,
    len: u32,
    id: u32,
}

/// The symbols of one text and the merges that wait, kept between texts for their memory.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Begins a text.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol of `len` bytes.
    pub(super) fn push(&mut self, len: u32, id: u32) {
        let index = self.symbols.len() as u32;
        let (start, previous) = match self.symbols.last_mut() {
            Some(last) => {
                last.next = index;
                (last.start + last.len, index - 1)
            }
            None => (0, NONE),
        };
        self.symbols.push(Symbol { start, len, id, previous, next: NONE });
    }

    /// Merges until nothing can be merged. `candidate` tells for two neighbours the priority and the id of what they
    /// make together, if that is a token.
    pub(super) fn run(&mut self, candidate: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for left in 1..self.symbols.len() as u32 {
            self.propose(left - 1, left, &candidate);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let (left, right) = (self.symbols[best.left as usize], self.symbols[best.right as usize]);
            // One of the two has been merged since this was proposed.
            if left.len == 0 || left.next != best.right || left.len + right.len != best.len {
                continue;
            }
            self.symbols[best.left as usize] =
                Symbol { len: best.len, id: best.id, next: right.next, ..left };
            self.symbols[best.right as usize].len = 0;
            if right.next != NONE {
                self.symbols[right.next as usize].previous = best.left;
                self.propose(best.left, right.next, &candidate);
            }
            if left.previous != NONE {
                self.propose(left.previous, best.left, &candidate);
            }
        }
    }

    fn propose(
        &mut self,
        left: u32,
        right: u32,
        candidate: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) {
        let (first, second) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((priority, id)) = candidate(first, second) {
            let len = first.len + second.len;
            self.queue.push(Reverse(Candidate { priority, left, right, len, id }));
        }
    }

    /// What is left, from left to right.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: look at all pairs, merge the best, start again.
    fn naive(text: &[u8], vocabulary: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = text.iter().map(|&byte| vec![byte]).collect();
        loop {
            let rank = |pair: &[Vec<u8>]| vocabulary.iter().position(|token| *token == pair.concat());
            let best = parts.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min();
            let Some((_, at)) = best else { return parts };
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn equals_the_definition(text in "[abc]{0,24}", ranks in proptest::collection::vec("[abc]{2,5}", 0..14)) {
            let vocabulary: Vec<&[u8]> = ranks.iter().map(String::as_bytes).collect();
            let mut merger = Merger::default();
            text.bytes().for_each(|_| merger.push(1, NONE));
            merger.run(|left, right| {
                let span = left.start as usize..(right.start + right.len) as usize;
                let rank = vocabulary.iter().position(|token| *token == &text.as_bytes()[span.clone()])?;
                Some((rank as u32, rank as u32))
            });
            let parts: Vec<Vec<u8>> = merger
                .symbols()
                .map(|symbol| text.as_bytes()[symbol.start as usize..][..symbol.len as usize].to_vec())
                .collect();
            prop_assert_eq!(parts, naive(text.as_bytes(), &vocabulary));
        }
    }
}
