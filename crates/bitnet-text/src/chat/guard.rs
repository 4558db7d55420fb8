//! [`Guard`]: keeps messages from writing special tokens. Before a template is run, each spelling of a special token
//! in a message is broken by a character that occurs nowhere else, and so is an ending that other text could complete
//! to one; when the prompt is cut into tokens and text, the character is taken out of the text again. Templates may
//! trim, cut and join messages in between.

use aho_corasick::AhoCorasick;

use super::ChatMessage;
use crate::error::{Result, TextError};

/// The private-use areas: characters that mean nothing and are found in hardly any text.
const PRIVATE_USE: [std::ops::RangeInclusive<char>; 2] = ['\u{E000}'..='\u{F8FF}', '\u{F0000}'..='\u{FFFFD}'];

/// A character that occurs in none of the messages, and what it protects.
pub(super) struct Guard<'a> {
    specials: &'a [&'a str],
    finder: AhoCorasick,
    sentinel: char,
}

impl<'a> Guard<'a> {
    /// Chooses a character that occurs neither in the messages nor in `taken`.
    pub(super) fn new(specials: &'a [&'a str], messages: &[ChatMessage], taken: &[&str]) -> Result<Self> {
        let failed = |message: &str| TextError::Encode { message: message.to_owned() };
        let texts = messages.iter().flat_map(|message| [message.role.as_str(), message.content.as_str()]);
        let used: std::collections::HashSet<char> = texts
            .chain(taken.iter().copied())
            .chain(specials.iter().copied())
            .flat_map(str::chars)
            .filter(|character| PRIVATE_USE.iter().any(|range| range.contains(character)))
            .collect();
        let sentinel = PRIVATE_USE
            .into_iter()
            .flatten()
            .find(|character| !used.contains(character))
            .ok_or_else(|| failed("the messages use every private-use character; remove some"))?;
        let finder = AhoCorasick::new(specials).map_err(|error| failed(&error.to_string()))?;
        Ok(Self { specials, finder, sentinel })
    }

    /// The messages with every special token in them broken.
    pub(super) fn protect(&self, messages: &[ChatMessage]) -> Vec<ChatMessage> {
        messages
            .iter()
            .map(|message| ChatMessage {
                role: self.broken(&message.role, false),
                content: self.broken(&message.content, true),
            })
            .collect()
    }

    /// Puts the sentinel behind the first character of every special token in `text`, overlapping ones included; with
    /// `open_end`, also of what begins one at the end.
    fn broken(&self, text: &str, open_end: bool) -> String {
        let mut starts: Vec<usize> =
            self.finder.find_overlapping_iter(text).map(|found| found.start()).collect();
        if open_end {
            // A template may trim the end before it goes on.
            for ending in [text, text.trim_end()] {
                starts.extend(self.open_starts(ending));
            }
        }
        starts.sort_unstable();
        starts.dedup();
        let mut broken = String::with_capacity(text.len() + starts.len() * self.sentinel.len_utf8());
        let mut at = 0;
        for start in starts {
            let after = start + text[start..].chars().next().map_or(0, char::len_utf8);
            broken.push_str(&text[at..after]);
            broken.push(self.sentinel);
            at = after;
        }
        broken.push_str(&text[at..]);
        broken
    }

    /// Where the last characters of `text` begin a special token without ending it.
    fn open_starts(&self, text: &str) -> impl Iterator<Item = usize> {
        let longest = self.specials.iter().map(|special| special.len()).max().unwrap_or(0);
        let from = text.ceil_char_boundary(text.len().saturating_sub(longest));
        text[from..]
            .char_indices()
            .map(move |(offset, _)| from + offset)
            .filter(|&start| self.specials.iter().any(|special| special.starts_with(&text[start..])))
    }

    /// A text as it was before.
    pub(super) fn release(&self, text: &str) -> String {
        text.replace(self.sentinel, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIALS: [&str; 3] = ["<|eot_id|>", "<s>", "<<s>>"];

    #[test]
    fn breaks_what_is_special_and_what_may_become_so() {
        let message = |content: &str| [ChatMessage::user(content)];
        for (content, broken) in [
            ("a<|eot_id|>b", "a<#|eot_id|>b"),
            ("<<s>>", "<#<#s>>"),
            ("x <|eo \n", "x <#|eo \n"),
            ("x <", "x <#"),
            ("", ""),
            ("<|eot_id", "<#|eot_id"),
            ("a < b", "a < b"),
        ] {
            let messages = message(content);
            let guard = Guard::new(&SPECIALS, &messages, &[]).unwrap();
            let protected = guard.protect(&messages)[0].content.clone();
            assert_eq!(protected, broken.replace('#', "\u{E000}"), "{content}");
            assert_eq!(guard.release(&protected), content);
        }
    }

    #[test]
    fn the_sentinel_is_a_character_that_nobody_uses() {
        let messages = [ChatMessage::user("\u{E000}<s>\u{E001}")];
        let guard = Guard::new(&SPECIALS, &messages, &["\u{E002}"]).unwrap();
        assert_eq!(guard.sentinel, '\u{E003}');
        let protected = guard.protect(&messages)[0].content.clone();
        assert_eq!(guard.release(&protected), messages[0].content);
    }
}
