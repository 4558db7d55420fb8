//! [`TextWindows`]: how a long text is cut so that every token is predicted once.

use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};

/// Where the token that begins a text is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextStart {
    /// Before every window.
    #[default]
    EachWindow,
    /// Before the text, where it takes the place of a token in the first window.
    Once,
    /// Nowhere.
    Never,
}

/// How a text is cut. A window begins `stride` tokens behind the one before; of its tokens those are scored that no
/// window before it had, so every token counts once, with at least `size - stride` tokens before it but in the first window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextWindows {
    /// Tokens of a window; a token that is put before each comes on top of them.
    pub size: usize,
    /// From the begin of one window to that of the next, 1 to `size`. `size`: windows do not overlap.
    pub stride: usize,
    /// Where the token that begins a text is put, if the model has one.
    pub start: TextStart,
}

impl TextWindows {
    /// Windows that do not overlap, each behind the token that begins a text.
    pub fn new(size: usize) -> Self {
        Self { size, stride: size, start: TextStart::default() }
    }

    /// Sets [`stride`](Self::stride).
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Sets [`start`](Self::start).
    #[must_use]
    pub fn start(mut self, start: TextStart) -> Self {
        self.start = start;
        self
    }

    /// Checks that an engine can compute such windows.
    pub(super) fn check(&self, engine: &InferenceEngine) -> Result<(), EngineError> {
        let first = usize::from(self.start == TextStart::EachWindow && engine.defaults().bos.is_some());
        let (name, value, allowed) = if self.size == 0 || self.size + first > engine.context() {
            let allowed = "at least 1, and with the token that begins a text no longer than the context";
            ("window", self.size, allowed)
        } else if self.stride == 0 || self.stride > self.size {
            ("stride", self.stride, "from 1 to the tokens of a window")
        } else {
            return Ok(());
        };
        Err(ParameterError { name, value: value.to_string(), allowed }.into())
    }

    /// Cuts `tokens`.
    pub(super) fn cut(&self, mut tokens: Vec<u32>, bos: Option<u32>) -> Cut {
        let bos = bos.filter(|_| self.start != TextStart::Never);
        let mut offset = 0;
        if let (TextStart::Once, Some(bos)) = (self.start, bos) {
            tokens.insert(0, bos);
            offset = 1;
        }
        let each = bos.filter(|_| self.start == TextStart::EachWindow);
        Cut { tokens, each, offset, form: *self, begin: 0, scored: 0, done: false }
    }
}

/// One window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// What is computed.
    pub(super) input: Vec<u32>,
    /// From where on its tokens are scored, 1 or more.
    pub(super) from: usize,
    /// Place in the text of the first scored token.
    pub(super) position: usize,
}

/// The windows of a text, first to last.
#[derive(Debug)]
pub(super) struct Cut {
    tokens: Vec<u32>,
    /// What is put before each window.
    each: Option<u32>,
    /// Tokens at the front that are not the text's.
    offset: usize,
    form: TextWindows,
    begin: usize,
    /// Tokens that windows had already.
    scored: usize,
    done: bool,
}

impl Cut {
    /// All tokens of the text.
    pub(super) fn text(&self) -> &[u32] {
        &self.tokens[self.offset..]
    }

    /// Whether every token of the text is scored. Where nothing is put before them, windows that do not overlap leave out
    /// their first.
    pub(super) fn scores_all(&self) -> bool {
        self.each.is_some() || self.offset > 0 && (self.form.stride < self.form.size || self.windows() == 1)
    }

    /// How many tokens of a text are needed for one to be scored.
    pub(super) fn needed(&self) -> usize {
        if self.each.is_some() || self.offset > 0 { 1 } else { 2 }
    }

    /// How many windows there are.
    pub(super) fn windows(&self) -> usize {
        let rest = self.tokens.len().saturating_sub(self.form.size);
        usize::from(!self.tokens.is_empty()) + rest.div_ceil(self.form.stride)
    }
}

impl Iterator for Cut {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        if self.done || self.tokens.is_empty() {
            return None;
        }
        let end = (self.begin + self.form.size).min(self.tokens.len());
        let input: Vec<u32> =
            self.each.into_iter().chain(self.tokens[self.begin..end].iter().copied()).collect();
        let before = usize::from(self.each.is_some());
        // Nothing predicts the first token of all.
        let from = (before + self.scored - self.begin).max(1);
        let position = self.begin + from - before - self.offset;
        (self.scored, self.done) = (end, end == self.tokens.len());
        self.begin += self.form.stride;
        Some(Window { input, from, position })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(windows: TextWindows, tokens: u32, bos: Option<u32>) -> Vec<(Vec<u32>, usize, usize)> {
        let cut = windows.cut((0..tokens).collect(), bos);
        let count = cut.windows();
        let all: Vec<_> = cut.map(|w| (w.input, w.from, w.position)).collect();
        assert_eq!(all.len(), count);
        all
    }

    #[test]
    fn windows_without_overlap_are_chunks() {
        let w = TextWindows::new(2);
        assert_eq!(cut(w, 5, Some(9)), [(vec![9, 0, 1], 1, 0), (vec![9, 2, 3], 1, 2), (vec![9, 4], 1, 4)]);
        assert_eq!(cut(w, 5, None), [(vec![0, 1], 1, 1), (vec![2, 3], 1, 3), (vec![4], 1, 5)]);
        assert!(cut(w, 0, Some(9)).is_empty());
    }

    #[test]
    fn windows_that_overlap_score_what_is_new() {
        let w = TextWindows::new(3).stride(2).start(TextStart::Once);
        assert_eq!(cut(w, 5, Some(9)), [(vec![9, 0, 1], 1, 0), (vec![1, 2, 3], 1, 2), (vec![3, 4], 1, 4)]);
        let w = w.start(TextStart::EachWindow);
        assert_eq!(cut(w, 5, Some(9)), [(vec![9, 0, 1, 2], 1, 0), (vec![9, 2, 3, 4], 2, 3)]);
        assert_eq!(cut(w.start(TextStart::Never), 4, Some(9)), [(vec![0, 1, 2], 1, 1), (vec![2, 3], 1, 3)]);
    }

    proptest! {
        #[test]
        fn every_token_is_scored_once(size in 1usize..9, stride in 1usize..9, tokens in 0u32..40, start in 0..3) {
            let start = [TextStart::EachWindow, TextStart::Once, TextStart::Never][start as usize];
            let windows = TextWindows::new(size).stride(stride.min(size)).start(start);
            let mut scored = Vec::new();
            for (input, from, position) in cut(windows, tokens, Some(99)) {
                prop_assert!(from >= 1 && input.len() <= size + usize::from(start == TextStart::EachWindow));
                for (i, &token) in input[from.min(input.len())..].iter().enumerate() {
                    prop_assert_eq!(token as usize, position + i);
                    scored.push(token);
                }
            }
            // Without a token before it, and with windows side by side, the first token of a window is context only.
            if start == TextStart::EachWindow || start == TextStart::Once && stride < size {
                prop_assert_eq!(scored, (0..tokens).collect::<Vec<_>>());
            } else {
                prop_assert!(scored.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }
}
