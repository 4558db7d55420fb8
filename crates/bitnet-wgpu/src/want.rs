//! How what a call gives is put together from what the device computes.

use bitnet_model::{RowWant, TopLogits, TopWant};

use crate::scratch::MAX_TOP;

/// How a row's logits come to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way<'a> {
    /// All, and all are wanted.
    All,
    /// All, of which those that count are given: more are wanted than the device looks for.
    Filter(TopWant<'a>),
    /// The largest, found on the device.
    Top(TopWant<'a>),
}

impl<'a> Way<'a> {
    /// How what a row wants comes.
    pub(crate) fn of(want: RowWant<'a>) -> Self {
        match want.top() {
            None => Way::All,
            Some(top) if top.k <= MAX_TOP => Way::Top(top),
            Some(top) => Way::Filter(top),
        }
    }

    /// Whether all logits of the row come to the host.
    pub(crate) fn is_full(self) -> bool {
        !matches!(self, Way::Top(_))
    }
}

/// Where the next results go.
pub(crate) struct Sink<'a> {
    pub(crate) hidden: &'a mut [f32],
    pub(crate) logits: &'a mut [f32],
    pub(crate) top: &'a mut [TopLogits],
    /// Whether all numbers were finite.
    pub(crate) finite: bool,
}

impl Sink<'_> {
    /// Takes hidden states.
    pub(crate) fn hidden(&mut self, values: &[f32]) {
        let (out, rest) = std::mem::take(&mut self.hidden).split_at_mut(values.len());
        self.finite &= values.iter().all(|v| v.is_finite());
        out.copy_from_slice(values);
        self.hidden = rest;
    }

    /// Takes all logits of a row.
    pub(crate) fn full(&mut self, way: Way<'_>, values: &[f32]) {
        self.finite &= values.iter().all(|v| v.is_finite());
        match way {
            Way::All => {
                let (out, rest) = std::mem::take(&mut self.logits).split_at_mut(values.len());
                out.copy_from_slice(values);
                self.logits = rest;
            }
            Way::Filter(want) | Way::Top(want) => {
                let Some(top) = self.next_top() else { return };
                top.ids.clear();
                top.ids.extend((0..values.len() as u32).filter(|&token| want.allows(token)));
                top.logits.clear();
                top.logits.extend(top.ids.iter().map(|&token| values[token as usize]));
            }
        }
    }

    /// Takes what the device found: how many, whether something is not a number, tokens, bits of logits.
    pub(crate) fn found(&mut self, words: &[u32]) {
        let &[count, broken, ref rest @ ..] = words else { return };
        self.finite &= broken == 0;
        let (ids, logits) = rest.split_at(rest.len() / 2);
        let count = (count as usize).min(ids.len());
        let Some(top) = self.next_top() else { return };
        top.ids.clear();
        top.ids.extend_from_slice(&ids[..count]);
        top.logits.clear();
        top.logits.extend(logits[..count].iter().map(|&bits| f32::from_bits(bits)));
    }

    /// Takes what the device found near the largest logits: how many, whether something is not a number, two words for the
    /// device, tokens and bits of logits in pairs. The `k` largest are given; of equal ones the first tokens.
    pub(crate) fn near(&mut self, k: usize, words: &[u32]) {
        let &[count, broken, _, _, ref pairs @ ..] = words else { return };
        self.finite &= broken == 0;
        let mut pairs: Vec<[u32; 2]> = pairs.as_chunks().0.iter().take(count as usize).copied().collect();
        let Some(top) = self.next_top() else { return };
        let better = |a: &[u32; 2], b: &[u32; 2]| {
            f32::from_bits(b[1]).total_cmp(&f32::from_bits(a[1])).then(a[0].cmp(&b[0]))
        };
        let k = k.max(1);
        if k < pairs.len() {
            pairs.select_nth_unstable_by(k - 1, better);
            pairs.truncate(k);
        }
        pairs.sort_unstable_by_key(|pair| pair[0]);
        top.ids.clear();
        top.ids.extend(pairs.iter().map(|pair| pair[0]));
        top.logits.clear();
        top.logits.extend(pairs.iter().map(|pair| f32::from_bits(pair[1])));
    }

    fn next_top(&mut self) -> Option<&mut TopLogits> {
        let (first, rest) = std::mem::take(&mut self.top).split_first_mut()?;
        self.top = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_model::TokenSet;

    #[test]
    fn results_go_where_they_are_wanted() {
        let wants = [
            RowWant::All,
            RowWant::Top(TopWant { k: 2, allowed: None }),
            RowWant::Top(TopWant { k: MAX_TOP + 1, allowed: Some(TokenSet::new(&[0b101])) }),
        ];
        let ways = wants.map(Way::of);
        assert!(ways[0] == Way::All && matches!(ways[1], Way::Top(_)) && ways[2].is_full());
        let (mut logits, mut top) = (vec![0.0; 3], vec![TopLogits::default(); 2]);
        let mut sink = Sink { hidden: &mut [], logits: &mut logits, top: &mut top, finite: true };
        sink.full(ways[0], &[1.0, 2.0, 3.0]);
        sink.found(&[2, 0, 1, 2, 9, 5.0f32.to_bits(), 6.0f32.to_bits(), 0]);
        sink.full(ways[2], &[7.0, 8.0, 9.0]);
        assert!(sink.finite);
        sink.hidden(&[]);
        sink.found(&[0, 1]);
        assert!(!sink.finite);
        let mut more = [TopLogits::default()];
        sink.top = &mut more;
        sink.near(2, &[3, 0, 9, 9, 7, 1.0f32.to_bits(), 5, 1.0f32.to_bits(), 6, 4.0f32.to_bits(), 1, 0]);
        assert_eq!(more[0], TopLogits { ids: vec![5, 6], logits: vec![1.0, 4.0] });
        assert_eq!(logits, [1.0, 2.0, 3.0]);
        assert_eq!(top[0], TopLogits { ids: vec![1, 2], logits: vec![5.0, 6.0] });
        assert_eq!(top[1], TopLogits { ids: vec![0, 2], logits: vec![7.0, 9.0] });
    }
}
