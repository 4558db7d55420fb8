//! How work is shared out among the threads: the strips of a product, the heads of attention.
//!
//! Each thread starts on a contiguous share, which it reads in one sequential stream. The last part of every share is
//! handed out in small pieces to whoever comes first: cores are rarely equally fast at any one moment (other programs,
//! other virtual machines), and a barrier waits for the slowest. Which thread computes a strip does not change a bit.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::pool::{Team, share};

/// Strips in a piece.
const PIECE: usize = 4;

/// The ranges of strips that this thread is to compute, one after the other.
pub(crate) struct Ranges<'a> {
    count: usize,
    /// Strips of a piece.
    piece: usize,
    threads: usize,
    /// The thread's own first part, until it was given out.
    first: Option<Range<usize>>,
    /// Pieces given out so far, over all threads.
    next_piece: &'a AtomicUsize,
}

/// Where thread `index`'s share is cut: before it is its own, after it is for all.
fn cut(count: usize, piece: usize, index: usize, threads: usize) -> (usize, Range<usize>) {
    let whole = share(count, index, threads);
    let own = if threads == 1 { whole.len() } else { whole.len() * 3 / 4 / piece * piece };
    (whole.start, whole.start + own..whole.end)
}

impl<'a> Ranges<'a> {
    /// For one product of `count` strips; `next_piece` is shared by the team and starts at 0 for each product.
    pub(crate) fn new(team: &Team<'_>, count: usize, next_piece: &'a AtomicUsize) -> Self {
        Self::of(team.index(), team.threads(), (count, PIECE), next_piece)
    }

    /// For work in pieces of one: `count` units, each worth many strips.
    pub(crate) fn singly(team: &Team<'_>, count: usize, next_piece: &'a AtomicUsize) -> Self {
        Self::of(team.index(), team.threads(), (count, 1), next_piece)
    }

    fn of(index: usize, threads: usize, (count, piece): (usize, usize), next_piece: &'a AtomicUsize) -> Self {
        let (start, rest) = cut(count, piece, index, threads);
        Self { count, piece, threads, first: Some(start..rest.start), next_piece }
    }
}

impl Iterator for Ranges<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        if let Some(first) = self.first.take()
            && !first.is_empty()
        {
            return Some(first);
        }
        let mut piece = self.next_piece.fetch_add(1, Ordering::Relaxed);
        for index in 0..self.threads {
            let (_, rest) = cut(self.count, self.piece, index, self.threads);
            let pieces = rest.len().div_ceil(self.piece);
            if piece < pieces {
                let start = rest.start + piece * self.piece;
                return Some(start..rest.end.min(start + self.piece));
            }
            piece -= pieces;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strip_is_given_out_once_whoever_is_fast() {
        for (threads, piece) in (1..6).flat_map(|threads| [(threads, 1), (threads, PIECE)]) {
            for count in [0, 1, 3, 4, 16, 33, 160, 433] {
                let next_piece = AtomicUsize::new(0);
                let mut threads: Vec<Ranges<'_>> =
                    (0..threads).map(|i| Ranges::of(i, threads, (count, piece), &next_piece)).collect();
                let mut times = vec![0; count];
                // Threads take turns of different lengths until nothing is left for any of them.
                let mut busy = true;
                while busy {
                    busy = false;
                    for (i, ranges) in threads.iter_mut().enumerate() {
                        for range in ranges.take(1 + i * i) {
                            busy = true;
                            range.for_each(|strip| times[strip] += 1);
                        }
                    }
                }
                assert!(times.iter().all(|&t| t == 1), "{count}: {times:?}");
            }
        }
    }
}
