//! [`Vocabulary`]: what each id is called, which bytes it stands for and of which kind it is. Both tables are one
//! contiguous buffer; the index from spelling to id ([`Lookup`]) stores ids only, so nothing is held twice.

use std::hash::{BuildHasher, RandomState};

use crate::error::{Result, TextError};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// No token has this id.
    Absent,
    /// Text.
    Normal,
    /// A control token, never produced from ordinary text.
    Special,
    /// Taken whole wherever its spelling occurs in text.
    Added,
    /// One byte, for characters that have no token of their own.
    Byte,
    /// Listed but never produced.
    Unused,
}

/// Byte strings numbered from 0, in one buffer.
#[derive(Default)]
pub(super) struct Strings {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    /// Appends a string made by `write`, which may only append to the buffer.
    fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.ends.push(self.data.len());
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.data.get(start..end)
    }
}

/// A hash table from byte string to id over some [`Strings`]. The hash is keyed at random, so that no file can be
/// made whose strings all collide.
pub(super) struct Lookup {
    slots: Vec<u32>,
    hasher: RandomState,
}

/// Marks a free slot; no vocabulary has that many tokens.
const FREE: u32 = u32::MAX;

impl Lookup {
    /// An empty table with room for `count` strings.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { slots: vec![FREE; (count * 2).next_power_of_two().max(16)], hasher: RandomState::new() }
    }

    /// The slot that holds `key`, or the free one where it belongs.
    fn slot(&self, strings: &Strings, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(key) as usize & mask;
        while self.slots[slot] != FREE && strings.get(self.slots[slot] as usize) != Some(key) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Adds string `id` of `strings`. Where an equal string is there already, it stays and its id is returned.
    pub(super) fn insert(&mut self, strings: &Strings, id: u32) -> Option<u32> {
        let slot = strings.get(id as usize).map(|key| self.slot(strings, key))?;
        if self.slots[slot] == FREE {
            self.slots[slot] = id;
            return None;
        }
        Some(self.slots[slot])
    }

    pub(super) fn find(&self, strings: &Strings, key: &[u8]) -> Option<u32> {
        Some(self.slots[self.slot(strings, key)]).filter(|&id| id != FREE)
    }
}

/// Names, bytes and kinds of all tokens, by id.
pub(super) struct Vocabulary {
    spellings: Strings,
    bytes: Strings,
    kinds: Vec<TokenKind>,
    by_spelling: Lookup,
    longest: usize,
}

impl Vocabulary {
    /// An empty vocabulary with room for `count` tokens.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            spellings: Strings::default(),
            bytes: Strings::default(),
            kinds: Vec::with_capacity(count),
            by_spelling: Lookup::with_capacity(count),
            longest: 0,
        }
    }

    /// Gives the next id to a token. `bytes` appends what the token stands for. Of several tokens with one spelling
    /// the first is found by name.
    pub(super) fn push(&mut self, spelling: &str, kind: TokenKind, bytes: impl FnOnce(&mut Vec<u8>)) {
        let id = self.kinds.len() as u32;
        self.spellings.push_with(|data| data.extend_from_slice(spelling.as_bytes()));
        self.bytes.push_with(bytes);
        self.kinds.push(kind);
        self.longest = self.longest.max(self.bytes(id).map_or(0, <[u8]>::len)).max(spelling.len());
        if kind != TokenKind::Absent {
            self.by_spelling.insert(&self.spellings, id);
        }
    }

    /// One more than the largest id.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Absent)
    }

    /// Makes a listed token a special one.
    pub(super) fn make_special(&mut self, id: u32) {
        if let Some(kind) = self.kinds.get_mut(id as usize).filter(|kind| **kind != TokenKind::Absent) {
            *kind = TokenKind::Special;
        }
    }

    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        if self.kind(id) == TokenKind::Absent { None } else { self.bytes.get(id as usize) }
    }

    pub(super) fn spelling(&self, id: u32) -> Option<&str> {
        if self.kind(id) == TokenKind::Absent {
            return None;
        }
        self.spellings.get(id as usize).and_then(|spelling| std::str::from_utf8(spelling).ok())
    }

    pub(super) fn find(&self, spelling: &[u8]) -> Option<u32> {
        if spelling.len() > self.longest { None } else { self.by_spelling.find(&self.spellings, spelling) }
    }

    /// The table of bytes by id, for an index of one's own.
    pub(super) fn byte_strings(&self) -> &Strings {
        &self.bytes
    }

    /// Length in bytes of the longest token or spelling: nothing longer need be looked up.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Ids of all tokens of a kind.
    pub(super) fn ids_of(&self, kind: TokenKind) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.kinds).filter(move |&(_, &other)| other == kind).map(|(id, _)| id)
    }
}

/// Whether a spelling has the form that control tokens have everywhere, such as `<|eot_id|>`. Files have been
/// published that list such tokens as ordinary ones; taking them for text would let a user write them.
pub(crate) fn looks_like_control(spelling: &str) -> bool {
    spelling.strip_prefix("<|").and_then(|rest| rest.strip_suffix("|>")).is_some_and(|name| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    })
}

/// Refuses ids that would make a table far larger than the file that lists them.
pub(super) fn check_id_range(origin: &str, field: &str, largest: u32, count: usize) -> Result<()> {
    let limit = count.saturating_mul(4).saturating_add(65_536);
    if (largest as usize) < limit {
        return Ok(());
    }
    Err(TextError::invalid(origin, field, format!("id {largest} is far beyond the {count} tokens listed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_spelling_and_by_id() {
        let mut vocabulary = Vocabulary::with_capacity(4);
        vocabulary.push("Ġa", TokenKind::Normal, |out| out.extend_from_slice(b" a"));
        vocabulary.push("", TokenKind::Absent, |_| ());
        vocabulary.push("<|x|>", TokenKind::Special, |out| out.extend_from_slice(b"<|x|>"));
        assert_eq!(vocabulary.find("Ġa".as_bytes()), Some(0));
        assert_eq!(vocabulary.find(b"<|x|>"), Some(2));
        assert_eq!(vocabulary.find(b""), None);
        assert_eq!(vocabulary.bytes(0), Some(&b" a"[..]));
        assert_eq!((vocabulary.bytes(1), vocabulary.spelling(1), vocabulary.bytes(3)), (None, None, None));
        assert_eq!(vocabulary.ids_of(TokenKind::Special).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn control_look() {
        for yes in ["<|eot_id|>", "<|a|>", "<|im-end|>"] {
            assert!(looks_like_control(yes), "{yes}");
        }
        for no in ["<||>", "<|>", "<|", "<| |>", "<|a|> ", "x<|a|>", "<think>"] {
            assert!(!looks_like_control(no), "{no}");
        }
    }
}
