//! [`SentencePiece`]: BPE as SentencePiece does it. Characters merge in order of the score of what they make; a
//! character without a token becomes its bytes; spaces are written U+2581.

use aho_corasick::{AhoCorasick, MatchKind};

use super::merge::{Merger, NONE, Symbol};
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
    /// Whether spaces at the ends go and several in a row count as one.
    collapses_spaces: bool,
    /// Whether several unknown characters in a row become one unknown token.
    fuses_unknown: bool,
    /// Finds the pieces that are taken whole, and their ids.
    user_defined: Option<(AhoCorasick, Vec<u32>)>,
}

/// What only the model file itself tells.
#[derive(Debug)]
pub(super) struct Rules {
    /// Whether spaces at the ends go and several in a row count as one.
    pub(super) collapses_spaces: bool,
    /// Whether several unknown characters in a row become one unknown token.
    pub(super) fuses_unknown: bool,
    /// Pieces that are taken whole wherever they occur, also within words.
    pub(super) user_defined: Vec<u32>,
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
        Self {
            priorities,
            byte_tokens,
            unknown,
            add_space_prefix,
            collapses_spaces: false,
            fuses_unknown: false,
            user_defined: None,
        }
    }

    /// The same with other rules.
    ///
    /// # Errors
    /// If there are too many pieces to look for.
    pub(super) fn with_rules(mut self, vocabulary: &Vocabulary, rules: Rules) -> Result<Self, String> {
        self.collapses_spaces = rules.collapses_spaces;
        self.fuses_unknown = rules.fuses_unknown;
        let mut ids = rules.user_defined;
        ids.retain(|&id| vocabulary.spelling(id).is_some_and(|spelling| !spelling.is_empty()));
        if !ids.is_empty() {
            let spellings = ids.iter().filter_map(|&id| vocabulary.spelling(id));
            let mut builder = AhoCorasick::builder();
            let finder = builder.match_kind(MatchKind::LeftmostLongest).build(spellings);
            self.user_defined = Some((finder.map_err(|error| error.to_string())?, ids));
        }
        Ok(self)
    }

    /// A text as the vocabulary spells it.
    fn spell(&self, text: &str) -> String {
        let mut spelled = String::with_capacity(text.len() + SPACE.len_utf8());
        if !self.collapses_spaces {
            if self.add_space_prefix {
                spelled.push(SPACE);
            }
            spelled.extend(text.chars().map(|character| if character == ' ' { SPACE } else { character }));
            return spelled;
        }
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if self.add_space_prefix || !spelled.is_empty() {
                spelled.push(SPACE);
            }
            spelled.push_str(word);
        }
        // The library takes spaces off the end after it has spelled them.
        spelled.truncate(spelled.trim_end_matches(SPACE).len());
        spelled
    }

    /// Appends the symbols of a spelled text: characters, and pieces that are taken whole.
    fn cut(&self, vocabulary: &Vocabulary, spelled: &str, merger: &mut Merger) {
        let push_characters = |text: &str, merger: &mut Merger| {
            let mut buffer = [0; 4];
            for character in text.chars() {
                let encoded = character.encode_utf8(&mut buffer).as_bytes();
                merger.push(encoded.len() as u32, find(vocabulary, encoded).unwrap_or(NONE));
            }
        };
        let mut at = 0;
        if let Some((finder, ids)) = &self.user_defined {
            for found in finder.find_iter(spelled) {
                push_characters(&spelled[at..found.start()], merger);
                merger.push(found.len() as u32, ids[found.pattern().as_usize()]);
                at = found.end();
            }
        }
        push_characters(&spelled[at..], merger);
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
        let spelled = self.spell(text);
        let bytes = spelled.as_bytes();
        merger.clear();
        self.cut(vocabulary, &spelled, merger);
        let frozen =
            |symbol: &Symbol| self.user_defined.is_some() && vocabulary.kind(symbol.id) == TokenKind::Added;
        merger.run(|left, right| {
            if frozen(left) || frozen(right) {
                return None;
            }
            let id = find(vocabulary, &bytes[left.start as usize..(right.start + right.len) as usize])?;
            Some((*self.priorities.get(id as usize)?, id))
        });
        // Whether the last token stands for unknown characters of this text.
        let mut was_unknown = false;
        for symbol in merger.symbols() {
            if symbol.id != NONE {
                was_unknown = false;
                out.push(symbol.id);
                continue;
            }
            let before = out.len();
            let character = &bytes[symbol.start as usize..][..symbol.len as usize];
            let is_unknown = self.fall_back(character, out)?;
            if is_unknown && was_unknown && self.fuses_unknown {
                out.truncate(before);
            }
            was_unknown = is_unknown;
        }
        Ok(())
    }

    /// Appends the byte tokens of a character, or the unknown token where one of them is missing; returns which.
    fn fall_back(&self, character: &[u8], out: &mut Vec<u32>) -> Result<bool> {
        let before = out.len();
        out.extend(character.iter().map(|&byte| self.byte_tokens[usize::from(byte)]));
        if out[before..].contains(&NONE) {
            out.truncate(before);
            let what = || format!("\"{}\"", String::from_utf8_lossy(character));
            out.push(self.unknown.ok_or_else(|| TextError::Unencodable { what: what() })?);
            return Ok(true);
        }
        Ok(false)
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
