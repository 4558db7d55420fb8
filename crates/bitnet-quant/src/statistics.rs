//! [`TritCounts`]: how trits are distributed, and how many bits they need at least.

use std::ops::AddAssign;

use crate::{Result, TernaryMatrix};

/// Trits of a group: as many as a byte can hold.
const GROUP: usize = 5;
/// Groups that there are.
const GROUPS: usize = 243;

/// Counts of trits, alone and in groups of five neighbours of a row.
#[derive(Clone, PartialEq, Eq)]
pub struct TritCounts {
    /// Groups by the number that their trits are the digits of, the first trit the highest, −1 as 0.
    groups: Box<[u64; GROUPS]>,
    /// Trits at the ends of rows that are no whole groups.
    rest: [u64; 3],
}

impl Default for TritCounts {
    fn default() -> Self {
        Self { groups: Box::new([0; GROUPS]), rest: [0; 3] }
    }
}

impl TritCounts {
    /// Counts the trits of a matrix.
    ///
    /// # Errors
    /// As [`TernaryMatrix::decode_row`].
    pub fn of(matrix: &TernaryMatrix) -> Result<Self> {
        let mut counts = Self::default();
        let mut row = vec![0i8; matrix.cols()];
        for number in 0..matrix.rows() {
            matrix.decode_row(number, &mut row)?;
            counts.add_row(&row);
        }
        Ok(counts)
    }

    /// Counts the trits of a row.
    ///
    /// # Panics
    /// If one of them is none.
    pub fn add_row(&mut self, row: &[i8]) {
        let digit = |trit: &i8| usize::from((trit + 1).cast_unsigned());
        let (groups, rest) = row.as_chunks::<GROUP>();
        for group in groups {
            assert!(group.iter().all(|trit| (-1..=1).contains(trit)), "these are no trits: {group:?}");
            self.groups[group.iter().fold(0, |number, trit| 3 * number + digit(trit))] += 1;
        }
        for trit in rest {
            self.rest[digit(trit)] += 1;
        }
    }

    /// How many trits are −1, 0 and +1.
    pub fn counts(&self) -> [u64; 3] {
        let mut counts = self.rest;
        for (number, &found) in self.groups.iter().enumerate() {
            let mut digits = number;
            for _ in 0..GROUP {
                counts[digits % 3] += found;
                digits /= 3;
            }
        }
        counts
    }

    /// How many trits there are.
    pub fn total(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// The shares of −1, 0 and +1; zeros if there are no trits.
    pub fn shares(&self) -> [f64; 3] {
        let counts = self.counts();
        let total = counts.iter().sum::<u64>().max(1) as f64;
        counts.map(|count| count as f64 / total)
    }

    /// Bits a trit that a code needs at least which codes each trit by itself: at most log2 3, about 1.585.
    pub fn entropy(&self) -> f64 {
        entropy(&self.counts())
    }

    /// Bits a trit that a code needs at least which codes five neighbours of a row together; less than
    /// [`entropy`](Self::entropy) if neighbours tell about each other. `None` if there are too few groups to tell.
    pub fn group_entropy(&self) -> Option<f64> {
        // The estimate is too low by about GROUPS / (2 ln 2 * groups) bits a group.
        let enough = self.groups.iter().sum::<u64>() >= 10 * GROUPS as u64;
        enough.then(|| entropy(&self.groups[..]) / GROUP as f64)
    }
}

impl AddAssign<&Self> for TritCounts {
    fn add_assign(&mut self, other: &Self) {
        for (a, b) in self.groups.iter_mut().zip(&other.groups[..]) {
            *a += b;
        }
        for (a, b) in self.rest.iter_mut().zip(other.rest) {
            *a += b;
        }
    }
}

impl std::fmt::Debug for TritCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TritCounts").field(&self.counts()).finish()
    }
}

/// Shannon's entropy of what was counted, in bits.
fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    let bits = |count: &u64| {
        let share = *count as f64 / total;
        -share * share.log2()
    };
    counts.iter().filter(|count| **count > 0).map(bits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trits_are_counted_in_groups_and_at_the_ends_of_rows() {
        let mut counts = TritCounts::default();
        assert_eq!((counts.total(), counts.shares(), counts.entropy()), (0, [0.0; 3], 0.0));
        counts.add_row(&[1, 1, 0, -1, 0, 0, 1]);
        counts.add_row(&[-1]);
        assert_eq!(counts.counts(), [2, 3, 3]);
        let twice = {
            let mut twice = counts.clone();
            twice += &counts;
            twice
        };
        assert_eq!((twice.counts(), twice.shares()), ([4, 6, 6], counts.shares()));
        assert_eq!(counts.group_entropy(), None, "one group tells nothing");
    }

    #[test]
    fn entropies_are_those_of_known_sources() {
        let mut same = TritCounts::default();
        same.add_row(&[0; 15_000]);
        assert_eq!((same.entropy(), same.group_entropy()), (0.0, Some(0.0)));
        // Every group equally often: nothing to be gained from neighbours.
        let mut even = TritCounts::default();
        for number in (0..GROUPS).cycle().take(20 * GROUPS) {
            even.add_row(&[81, 27, 9, 3, 1].map(|place| (number / place % 3) as i8 - 1));
        }
        assert!((even.entropy() - 3f64.log2()).abs() < 1e-12);
        assert!((even.group_entropy().unwrap() - 3f64.log2()).abs() < 1e-12);
        // The first of five tells the others.
        let mut tied = TritCounts::default();
        for trit in [-1, 0, 1].into_iter().cycle().take(3 * GROUPS * 10) {
            tied.add_row(&[trit; GROUP]);
        }
        assert!((tied.entropy() - 3f64.log2()).abs() < 1e-12);
        assert!((tied.group_entropy().unwrap() - 3f64.log2() / 5.0).abs() < 1e-12);
    }
}
