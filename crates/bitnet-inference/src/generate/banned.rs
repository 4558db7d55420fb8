//! [`BannedStrings`]: strings that a generated text never contains.
//!
//! Tokens whose text may be the beginning of a banned string are held back until that is decided. When a banned string
//! is complete, the text goes back to before the token in which it began, that token is excluded at this place, and
//! another is drawn. What was given out is never taken back, since it cannot be part of a banned string any more.

use std::sync::Arc;

use bitnet_text::{Tokenizer, Watched};

/// A token that is held back.
#[derive(Debug, Clone, Copy)]
struct Held {
    token: u32,
    /// Bytes of its text.
    len: usize,
    /// The sampler's state before it was drawn.
    before: f64,
}

/// What a token means for the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// So many generated tokens are certain now.
    Certain(usize),
    /// A banned string is complete: only so many generated tokens stay. The sampler goes back to `state`.
    Back {
        /// Tokens that stay.
        keep: usize,
        /// The sampler's state after them.
        state: f64,
    },
}

/// Watches the generated tokens of one text.
#[derive(Debug, Clone)]
pub(super) struct BannedStrings {
    tokenizer: Arc<Tokenizer>,
    strings: Vec<Watched>,
    held: Vec<Held>,
    /// Generated tokens that were released.
    released: usize,
    /// Tokens that were found to lead to a banned string, with their places among the generated ones, ascending.
    dead_ends: Vec<(usize, u32)>,
    /// Whether to go back by one token only.
    stepwise: bool,
}

/// What a token contributes to a text.
fn text_of(tokenizer: &Tokenizer, token: u32) -> &[u8] {
    if tokenizer.is_special(token) { &[] } else { tokenizer.token_bytes(token).unwrap_or_default() }
}

impl BannedStrings {
    /// Watches for these strings, none of which is empty.
    pub(super) fn new(strings: &[String], tokenizer: Arc<Tokenizer>) -> Self {
        let strings = strings.iter().cloned().map(Watched::new).collect();
        Self {
            tokenizer,
            strings,
            held: Vec::with_capacity(64),
            released: 0,
            dead_ends: Vec::with_capacity(64),
            stepwise: false,
        }
    }

    /// Goes back only by the token that completes a banned string, and further where that leaves nothing. Where a grammar
    /// leaves few ways to go on, this misses none.
    pub(super) fn stepwise(mut self) -> Self {
        self.stepwise = true;
        self
    }

    /// Tokens below `vocab_size` that contain a whole banned string: they need not be tried.
    pub(super) fn never(&self, vocab_size: usize) -> Vec<u32> {
        let banned = |token: &u32| {
            let text = text_of(&self.tokenizer, *token);
            let contains =
                |s: &[u8]| text.len() >= s.len() && text.windows(s.len()).any(|window| window == s);
            self.strings.iter().any(|watched| contains(watched.string().as_bytes()))
        };
        (0..vocab_size as u32).filter(banned).collect()
    }

    /// Tokens that cannot come next, after `drawn` generated ones.
    pub(super) fn excluded(&self, drawn: usize) -> impl Iterator<Item = u32> + '_ {
        self.dead_ends.iter().rev().take_while(move |end| end.0 == drawn).map(|end| end.1)
    }

    /// Takes the next token; `before` is the sampler's state before it was drawn.
    pub(super) fn push(&mut self, token: u32, before: f64) -> Verdict {
        let len = text_of(&self.tokenizer, token).len();
        self.held.push(Held { token, len, before });
        match self.scan(self.held.len() - 1) {
            Some(length) => self.back(length),
            None => self.release(),
        }
    }

    /// Looks through the text of the held tokens from `first` on. The first place at which a banned string is complete ends
    /// it: gives the bytes from the beginning of that string to the end of the last token, for the shortest there.
    fn scan(&mut self, first: usize) -> Option<usize> {
        for held in &self.held[first..] {
            for (index, &byte) in text_of(&self.tokenizer, held.token).iter().enumerate() {
                let mut shortest: Option<usize> = None;
                for watched in &mut self.strings {
                    if watched.push(byte) {
                        let len = watched.string().len();
                        shortest = Some(shortest.map_or(len, |other| other.min(len)));
                    }
                }
                if let Some(len) = shortest {
                    return Some(len + held.len - (index + 1));
                }
            }
        }
        None
    }

    /// Goes back to before the token that holds the byte `bytes` before the end.
    fn back(&mut self, bytes: usize) -> Verdict {
        let mut left = 0;
        let mut first = self.held.len();
        while first > 0 && left < bytes {
            first -= 1;
            left += self.held[first].len;
        }
        self.cut(if self.stepwise { self.held.len() - 1 } else { first })
    }

    /// Goes back by one token, as none is possible behind it. `None`: the last token was released.
    pub(super) fn back_one(&mut self) -> Option<Verdict> {
        let last = self.held.len().checked_sub(1).filter(|_| self.stepwise)?;
        Some(self.cut(last))
    }

    /// Goes back to before the held token `first`, which was a dead end.
    fn cut(&mut self, first: usize) -> Verdict {
        let Held { token, before, .. } = self.held[first];
        self.held.truncate(first);
        let keep = self.released + first;
        self.dead_ends.retain(|end| end.0 <= keep);
        self.dead_ends.push((keep, token));
        // The search begins anew with what stays: nothing before it can be part of a banned string.
        self.strings.iter_mut().for_each(Watched::reset);
        let again = self.scan(0);
        debug_assert!(again.is_none(), "tokens that were kept contain no banned string");
        Verdict::Back { keep, state: before }
    }

    /// Releases the tokens that end before what may be the beginning of a banned string.
    fn release(&mut self) -> Verdict {
        let mut open = self.strings.iter().map(Watched::matched).max().unwrap_or(0);
        let mut keep = self.held.len();
        while keep > 0 && open > 0 {
            keep -= 1;
            open = open.saturating_sub(self.held[keep].len);
        }
        self.held.drain(..keep);
        self.released += keep;
        let released = self.released;
        self.dead_ends.retain(|end| end.0 >= released);
        Verdict::Certain(released)
    }
}
