//! [`Best`]: the best logits that threads of a search have found so far.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Logits of a hidden row that there is room for from the start, so that steady decoding
/// does not allocate.
const BEST: usize = 1024;

/// The best logits of a hidden row that any thread has computed so far, the worst of them on top: as [`in_order`].
#[derive(Default)]
pub(crate) struct Best(BinaryHeap<Reverse<i32>>);

/// Turns the bits of a float into an integer of the same order, and back.
fn in_order(bits: i32) -> i32 {
    bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
}

impl Best {
    /// Forgets what was there.
    pub(crate) fn begin(&mut self) {
        self.0.clear();
        self.0.reserve(BEST);
    }

    /// Takes logits into account; returns the threshold.
    pub(crate) fn add(&mut self, logits: &[f32], k: usize) -> f32 {
        for logit in logits {
            let logit = Reverse(in_order(logit.to_bits().cast_signed()));
            if self.0.len() < k {
                self.0.push(logit);
            } else if let Some(mut worst) = self.0.peek_mut()
                && logit < *worst
            {
                *worst = logit;
            }
        }
        self.threshold(k)
    }

    /// The k-th best logit; negative infinity if there are fewer.
    pub(crate) fn threshold(&self, k: usize) -> f32 {
        match self.0.peek() {
            Some(worst) if self.0.len() >= k => f32::from_bits(in_order(worst.0).cast_unsigned()),
            _ => f32::NEG_INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_order() {
        let mut best = Best::default();
        assert_eq!(best.add(&[1.0, -2.0], 3), f32::NEG_INFINITY);
        assert_eq!(best.add(&[-0.0], 3), -2.0);
        assert_eq!(best.add(&[-3.0, -1.5, -1e-30], 3).to_bits(), (-1e-30f32).to_bits());
        assert_eq!(best.add(&[f32::MAX, 1.0], 3), 1.0);
    }
}
