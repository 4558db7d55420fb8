//! [`Class`]: a set of characters.

/// Ranges of code points, both ends included, ascending, with gaps between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Class(Vec<(u32, u32)>);

/// The last code point.
const LAST: u32 = char::MAX as u32;

impl Class {
    /// Every character.
    pub(super) fn any() -> Self {
        Self(vec![(0, LAST)])
    }

    pub(super) fn of(c: char) -> Self {
        Self(vec![(u32::from(c), u32::from(c))])
    }

    /// The characters of some ranges.
    pub(super) fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// All other characters.
    pub(super) fn negated(&self) -> Self {
        let mut ranges = Vec::with_capacity(self.0.len() + 1);
        let mut next = 0;
        for &(start, end) in &self.0 {
            if start > next {
                ranges.push((next, start - 1));
            }
            next = end + 1;
        }
        if next <= LAST {
            ranges.push((next, LAST));
        }
        Self(ranges)
    }

    pub(super) fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both have a character.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            if x.0 <= y.1 && y.0 <= x.1 {
                return true;
            }
            if x.1 < y.1 {
                a.next();
            } else {
                b.next();
            }
        }
        false
    }

    /// The first bytes of the characters in UTF-8.
    pub(super) fn leads(&self) -> Self {
        // Up to which code point characters have a form, by how much their code is shifted for its first byte, and what is
        // added there.
        const FORMS: [(u32, u32, u32); 4] =
            [(0x7F, 0, 0), (0x7FF, 6, 0xC0), (0xFFFF, 12, 0xE0), (LAST, 18, 0xF0)];
        let mut leads = Vec::new();
        for &(start, end) in &self.0 {
            let mut start = start;
            for (last, shift, mark) in FORMS {
                if start <= last && start <= end {
                    leads.push((mark | start >> shift, mark | end.min(last) >> shift));
                    start = last + 1;
                }
            }
        }
        Self::from_ranges(leads)
    }

    /// Takes in another set; tells whether that changed anything.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        if other.0.iter().all(|range| self.0.iter().any(|own| own.0 <= range.0 && range.1 <= own.1)) {
            return false;
        }
        let mut ranges = std::mem::take(&mut self.0);
        ranges.extend_from_slice(&other.0);
        *self = Self::from_ranges(ranges);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let class = Class::from_ranges(vec![(97, 99), (48, 57), (100, 110)]);
        assert_eq!(class.ranges(), [(48, 57), (97, 110)]);
        assert_eq!(class.negated().ranges(), [(0, 47), (58, 96), (111, LAST)]);
        assert_eq!(class.negated().negated(), class);
        assert!(
            class.meets(&Class::of('m')) && !class.meets(&Class::of('z')) && !class.meets(&class.negated())
        );
        let mut grown = class.clone();
        assert!(!grown.add(&Class::of('b')) && grown.add(&Class::of('z')));
        assert!(grown.meets(&Class::of('z')));
        assert!(Class::any().negated().is_empty());
    }

    #[test]
    fn first_bytes() {
        for class in
            [Class::any(), Class::of('è'), Class::from_ranges(vec![(0x70, 0x805), (0xFFFE, 0x1_0001)])]
        {
            let mut leads = [false; 256];
            let chars =
                class.ranges().iter().flat_map(|&(start, end)| start..=end).filter_map(char::from_u32);
            chars.for_each(|c| leads[c.encode_utf8(&mut [0; 4]).as_bytes()[0] as usize] = true);
            let found: Vec<u32> =
                class.leads().ranges().iter().flat_map(|&(start, end)| start..=end).collect();
            let want: Vec<u32> = (0..256).filter(|&byte| leads[byte as usize]).collect();
            assert_eq!(found, want);
        }
    }
}
