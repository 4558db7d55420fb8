//! How what a call gives is made of what the device computes. Logits lie in memory that host and device share, so the
//! largest are found by the host.

use std::cmp::Ordering;

use bitnet_model::{TopLogits, TopWant, Want};

/// Where results go.
pub(crate) struct Sink<'a> {
    want: Want<'a>,
    /// Rows that were given.
    row: usize,
    /// Values of them in the slice of logits or hidden states, and elements of the largest.
    at: usize,
    tops: usize,
    /// Whether all numbers were finite.
    pub(crate) finite: bool,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(want: Want<'a>) -> Self {
        Self { want, row: 0, at: 0, tops: 0, finite: true }
    }

    /// Whether logits are wanted, not hidden states.
    pub(crate) fn wants_logits(&self) -> bool {
        matches!(self.want, Want::Logits(..))
    }

    /// Takes the next rows.
    pub(crate) fn take(&mut self, values: &[f32], width: usize) {
        self.finite &= values.iter().all(|value| value.is_finite());
        match &mut self.want {
            Want::Hidden(out) => {
                out[self.at..self.at + values.len()].copy_from_slice(values);
                self.at += values.len();
            }
            Want::Logits(wants, logits, top) => {
                for row in values.chunks_exact(width) {
                    match wants.row(self.row).top() {
                        None => {
                            logits[self.at..self.at + width].copy_from_slice(row);
                            self.at += width;
                        }
                        Some(want) => {
                            largest(row, want, &mut top[self.tops]);
                            self.tops += 1;
                        }
                    }
                    self.row += 1;
                }
            }
        }
    }
}

/// The largest logits of the tokens that count.
fn largest(row: &[f32], want: TopWant<'_>, top: &mut TopLogits) {
    top.ids.clear();
    top.ids.extend((0..row.len() as u32).filter(|&token| want.allows(token)));
    let k = want.k.max(1);
    if top.ids.len() > k {
        let logit = |token: &u32| row[*token as usize];
        let order = |a: &u32, b: &u32| -> Ordering { logit(b).total_cmp(&logit(a)).then(a.cmp(b)) };
        top.ids.select_nth_unstable_by(k - 1, order);
        top.ids.truncate(k);
        top.ids.sort_unstable();
    }
    top.logits.clear();
    top.logits.extend(top.ids.iter().map(|&token| row[token as usize]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_model::{RowWant, RowWants, TokenSet};

    #[test]
    fn results_go_where_they_are_wanted() {
        let wants = [
            RowWant::All,
            RowWant::Top(TopWant { k: 2, allowed: None }),
            RowWant::Top(TopWant { k: 9, allowed: Some(TokenSet::new(&[0b101])) }),
        ];
        let (mut logits, mut top) = (vec![0.0; 3], vec![TopLogits::default(); 2]);
        let mut sink = Sink::new(Want::Logits(RowWants::Each(&wants), &mut logits, &mut top));
        assert!(sink.wants_logits());
        sink.take(&[1.0, 2.0, 3.0, 5.0, 4.0, 5.0], 3);
        sink.take(&[7.0, 8.0, 9.0], 3);
        assert!(sink.finite);
        sink.take(&[], 3);
        assert_eq!(logits, [1.0, 2.0, 3.0]);
        assert_eq!(top[0], TopLogits { ids: vec![0, 2], logits: vec![5.0, 5.0] });
        assert_eq!(top[1], TopLogits { ids: vec![0, 2], logits: vec![7.0, 9.0] });
        let mut hidden = vec![0.0; 2];
        let mut sink = Sink::new(Want::Hidden(&mut hidden));
        sink.take(&[1.0], 2);
        sink.take(&[f32::NAN], 2);
        assert!(!sink.finite && hidden[0] == 1.0);
    }
}
