//! [`SentencePiece`]: BPE as SentencePiece does it. Characters merge in order of the score of what they make; a
//! character without a token becomes its bytes; spaces are written U+2581.

use super::merge::{Merger, NONE};
use super::vocab::{TokenKind, Vocabulary};
use crate::error::{Result, TextError};

/// How SentencePiece vocabularies spell a space.
pub(super) const SPACE: char = '\u{2581}';

/// The encoder of a SentencePiece BPE vocabulary.
pub(super) struct SentencePiece {
    /// Place in the order of merges by id: smaller for a higher score.
    priorities: Vec<u32>,
    /// Token of each byte, or [`NONE`].
    byte_tokens: [u32; 256],
    unknown: Option<u32>,
    /// Whether a text is read as if a space stood before it.
    add_space_prefix: bool,
}

impl SentencePiece {
    /// `scores` has one finite number a token.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        scores: &[f32],
        unknown: Option<u32>,
        add_space_prefix: bool,
    ) -> Self {
        let mut byte_tokens = [NONE; 256];
        for id in vocabulary.ids_of(TokenKind::Byte) {
            if let Some(&[byte]) = vocabulary.bytes(id) {
                byte_tokens[usize::from(byte)] = id;
            }
        }
        let priorities = scores.iter().map(|&score| priority(score)).collect();
        Self { priorities, byte_tokens, unknown, add_space_prefix }
    }

    /// The scores of all `count` tokens.
    pub(super) fn scores(&self, count: usize) -> Vec<f32> {
        (0..count).map(|id| self.priorities.get(id).map_or(0.0, |&priority| score(priority))).collect()
    }

    /// Whether a text is read as if a space stood before it.
    pub(super) fn adds_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// What stands for characters without a token.
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
        if text.is_empty() {
            return Ok(());
        }
        let mut spelled = String::with_capacity(text.len() + SPACE.len_utf8());
        if self.add_space_prefix {
            spelled.push(SPACE);
        }
        spelled.extend(text.chars().map(|character| if character == ' ' { SPACE } else { character }));

        let bytes = spelled.as_bytes();
        merger.clear();
        let mut buffer = [0; 4];
        for character in spelled.chars() {
            let encoded = character.encode_utf8(&mut buffer).as_bytes();
            merger.push(encoded.len() as u32, find(vocabulary, encoded).unwrap_or(NONE));
        }
        merger.run(|left, right| {
            let id = find(vocabulary, &bytes[left.start as usize..(right.start + right.len) as usize])?;
            Some((*self.priorities.get(id as usize)?, id))
        });
        for symbol in merger.symbols() {
            if symbol.id == NONE {
                self.fall_back(&bytes[symbol.start as usize..][..symbol.len as usize], out)?;
            } else {
                out.push(symbol.id);
            }
        }
        Ok(())
    }

    /// Appends the byte tokens of a character, or the unknown token where one of them is missing.
    fn fall_back(&self, character: &[u8], out: &mut Vec<u32>) -> Result<()> {
        let before = out.len();
        out.extend(character.iter().map(|&byte| self.byte_tokens[usize::from(byte)]));
        if out[before..].contains(&NONE) {
            out.truncate(before);
            let what = || format!("\"{}\"", String::from_utf8_lossy(character));
            out.push(self.unknown.ok_or_else(|| TextError::Unencodable { what: what() })?);
        }
        Ok(())
    }
}

/// The token of ordinary text with this spelling.
fn find(vocabulary: &Vocabulary, spelling: &[u8]) -> Option<u32> {
    vocabulary.find(spelling).filter(|&id| vocabulary.kind(id) == TokenKind::Normal)
}

/// Maps a higher score to a smaller number, keeping the order of all finite scores.
fn priority(score: f32) -> u32 {
    // Adding zero makes a negative zero positive.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// The score that [`priority`] maps to this number.
fn score(priority: u32) -> f32 {
    let ascending = !priority;
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_order_like_scores() {
        let scores = [f32::MAX, 3.5, 1e-40, 0.0, -1e-40, -1.0, -2.0, -1e9, f32::MIN];
        assert!(scores.windows(2).all(|pair| priority(pair[0]) < priority(pair[1])));
        assert_eq!(priority(0.0), priority(-0.0));
        assert_eq!(scores.map(|s| score(priority(s))), scores);
    }
}
