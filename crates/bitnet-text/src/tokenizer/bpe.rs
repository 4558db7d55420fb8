//! [`ByteBpe`]: byte-level BPE over a [`Vocabulary`], with merges given as a list of pairs (`tokenizer.json`, GGUF) or
//! implied by ranks (tiktoken).

use std::collections::HashMap;

use super::merge::{Merger, NONE};
use super::split::{SplitRule, Splitter};
use super::vocab::{Lookup, TokenKind, Vocabulary};
use crate::error::{Result, TextError};

/// Which neighbours merge, and in what order.
pub(super) enum Merges {
    /// Pair of ids to (place in the list, id of the result).
    Pairs(HashMap<(u32, u32), (u32, u32)>),
    /// Any two whose bytes together are a token; the token's id is the place in the order.
    Ranks,
}

/// The encoder of a byte-level vocabulary.
pub(super) struct ByteBpe {
    splitter: Splitter,
    merges: Merges,
    by_bytes: Lookup,
    /// Token of each single byte, or [`NONE`].
    byte_tokens: [u32; 256],
    /// Whether a piece that is a token is taken whole.
    whole_tokens: bool,
    unknown: Option<u32>,
}

impl ByteBpe {
    /// Builds the index of `vocabulary`'s bytes. `unknown` stands for bytes without a token.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        rule: SplitRule,
        merges: Merges,
        whole_tokens: bool,
        unknown: Option<u32>,
    ) -> Self {
        let mut by_bytes = Lookup::with_capacity(vocabulary.len());
        for id in vocabulary.ids_of(TokenKind::Normal) {
            by_bytes.insert(vocabulary.byte_strings(), id);
        }
        let mut byte_tokens = [NONE; 256];
        for (byte, token) in (0_u8..=255).zip(&mut byte_tokens) {
            *token = by_bytes.find(vocabulary.byte_strings(), &[byte]).unwrap_or(NONE);
        }
        Self { splitter: Splitter::new(rule), merges, by_bytes, byte_tokens, whole_tokens, unknown }
    }

    /// The rule by which text is split.
    pub(super) fn rule(&self) -> SplitRule {
        self.splitter.rule()
    }

    /// Which neighbours merge.
    pub(super) fn merges(&self) -> &Merges {
        &self.merges
    }

    /// What stands for bytes without a token.
    pub(super) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        for piece in self.splitter.pieces(text) {
            let bytes = piece.as_bytes();
            if self.whole_tokens
                && let Some(id) = self.find(vocabulary, bytes)
            {
                out.push(id);
                continue;
            }
            self.encode_piece(vocabulary, bytes, merger, out)?;
        }
        Ok(())
    }

    fn encode_piece(
        &self,
        vocabulary: &Vocabulary,
        bytes: &[u8],
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        merger.clear();
        for &byte in bytes {
            merger.push(1, self.byte_tokens[usize::from(byte)]);
        }
        match &self.merges {
            Merges::Pairs(pairs) => merger.run(|left, right| pairs.get(&(left.id, right.id)).copied()),
            Merges::Ranks => merger.run(|left, right| {
                let together = &bytes[left.start as usize..(right.start + right.len) as usize];
                self.find(vocabulary, together).map(|id| (id, id))
            }),
        }
        for symbol in merger.symbols() {
            match (symbol.id, self.unknown) {
                (NONE, Some(unknown)) => out.push(unknown),
                (NONE, None) => {
                    let what = format!("byte 0x{:02X}", bytes[symbol.start as usize]);
                    return Err(TextError::Unencodable { what });
                }
                (id, _) => out.push(id),
            }
        }
        Ok(())
    }

    /// The ordinary token that stands for these bytes.
    pub(super) fn find(&self, vocabulary: &Vocabulary, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > vocabulary.longest() {
            return None;
        }
        self.by_bytes.find(vocabulary.byte_strings(), bytes)
    }
}

/// Resolves a list of merges against a vocabulary. Where a pair is listed twice its first place counts.
/// Merges that make a special token are left out.
///
/// # Errors
/// [`TextError::Invalid`] naming the first merge whose parts or result are no tokens.
pub(super) fn resolve_merges<'a>(
    vocabulary: &Vocabulary,
    count: usize,
    merges: impl Iterator<Item = (&'a str, &'a str)>,
    field: &str,
    origin: &str,
) -> Result<Merges> {
    let mut pairs = HashMap::with_capacity(count);
    let mut joined = String::new();
    for (rank, (left, right)) in (0_u32..).zip(merges) {
        let find = |spelling: &str| {
            vocabulary.find(spelling.as_bytes()).ok_or_else(|| {
                let problem =
                    format!("\"{left} {right}\" names \"{spelling}\", which is not in the vocabulary");
                TextError::invalid(origin, format!("{field}[{rank}]"), problem)
            })
        };
        let pair = (find(left)?, find(right)?);
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let result = find(&joined)?;
        // A merge must not be a way from ordinary text to a control token.
        if vocabulary.kind(result) != TokenKind::Special {
            pairs.entry(pair).or_insert((rank, result));
        }
    }
    Ok(Merges::Pairs(pairs))
}
