//! [`AddedTokens`]: the tokens that are cut out of a text before the vocabulary's own rules see it. Special ones only
//! when the caller asks; the others always.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::{Result, TextError};

/// A token taken whole.
#[derive(Clone, Debug)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) spelling: String,
    /// A control token.
    pub(super) special: bool,
    /// Takes the white space before it along.
    pub(super) lstrip: bool,
    /// Takes the white space after it along.
    pub(super) rstrip: bool,
    /// Does not count inside a word.
    pub(super) single_word: bool,
}

impl AddedToken {
    /// A token without conditions.
    pub(super) fn plain(id: u32, spelling: &str, special: bool) -> Self {
        let spelling = spelling.to_owned();
        Self { id, spelling, special, lstrip: false, rstrip: false, single_word: false }
    }
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// For the vocabulary's rules.
    Text(&'t str),
    /// An added token.
    Token(u32),
}

/// Some added tokens and the automaton that finds them.
struct Matcher {
    tokens: Vec<AddedToken>,
    automaton: AhoCorasick,
}

impl Matcher {
    fn new(tokens: Vec<AddedToken>, origin: &str) -> Result<Option<Self>> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|token| &token.spelling))
            .map_err(|error| TextError::invalid(origin, "added tokens", error.to_string()))?;
        Ok(Some(Self { tokens, automaton }))
    }

    fn split<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let mut at = 0;
        for found in self.automaton.find_iter(text) {
            let token = &self.tokens[found.pattern().as_usize()];
            // White space that an earlier token took along may hold the start of this one.
            if found.start() < at {
                continue;
            }
            let (before, after) = (&text[at..found.start()], &text[found.end()..]);
            let inside_word = text[..found.start()].ends_with(is_word) || after.starts_with(is_word);
            if token.single_word && inside_word {
                continue;
            }
            let before = if token.lstrip { before.trim_end() } else { before };
            let after = if token.rstrip { after.trim_start() } else { after };
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Token(token.id));
            at = text.len() - after.len();
        }
        if at < text.len() {
            parts.push(Part::Text(&text[at..]));
        }
        parts
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The added tokens of a vocabulary.
pub(super) struct AddedTokens {
    all: Option<Matcher>,
    ordinary: Option<Matcher>,
    special: Option<Matcher>,
}

impl AddedTokens {
    /// Tokens with an empty spelling are left out: they would be found everywhere.
    pub(super) fn new(mut tokens: Vec<AddedToken>, origin: &str) -> Result<Self> {
        tokens.retain(|token| !token.spelling.is_empty());
        let of = |special: bool| tokens.iter().filter(|token| token.special == special).cloned().collect();
        let (special, ordinary): (Vec<_>, Vec<_>) = (of(true), of(false));
        // Without ordinary ones, "all" would be the same automaton again.
        let all = if ordinary.is_empty() { Vec::new() } else { tokens };
        Ok(Self {
            all: Matcher::new(all, origin)?,
            ordinary: Matcher::new(ordinary, origin)?,
            special: Matcher::new(special, origin)?,
        })
    }

    /// Cuts out all added tokens, or only the ordinary ones.
    pub(super) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Part<'t>> {
        let matcher = match (parse_special, &self.all) {
            (true, Some(all)) => Some(all),
            (true, None) => self.special.as_ref(),
            (false, _) => self.ordinary.as_ref(),
        };
        split_by(matcher, text)
    }

    /// Cuts out the special tokens only.
    pub(super) fn split_special<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        split_by(self.special.as_ref(), text)
    }

    /// What a list of plain tokens cannot say about these, one sentence each.
    pub(super) fn conditions(&self) -> Vec<String> {
        let both = [&self.ordinary, &self.special];
        let tokens = both.into_iter().flatten().flat_map(|matcher| &matcher.tokens);
        tokens
            .filter(|token| token.lstrip || token.rstrip || token.single_word)
            .map(|token| {
                format!(
                    "\"{}\" no longer takes white space or word borders into account",
                    token.spelling.escape_debug()
                )
            })
            .collect()
    }

    /// The special tokens.
    pub(super) fn specials(&self) -> &[AddedToken] {
        self.special.as_ref().map_or(&[], |matcher| &matcher.tokens)
    }
}

fn split_by<'t>(matcher: Option<&Matcher>, text: &'t str) -> Vec<Part<'t>> {
    match matcher {
        Some(matcher) => matcher.split(text),
        None if text.is_empty() => Vec::new(),
        None => vec![Part::Text(text)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Part::{Text, Token};

    fn tokens() -> AddedTokens {
        let mask = AddedToken { lstrip: true, rstrip: true, ..AddedToken::plain(2, "<mask>", true) };
        let word = AddedToken { single_word: true, ..AddedToken::plain(3, "yes", false) };
        let list = vec![AddedToken::plain(0, "<s>", true), AddedToken::plain(1, "<s>>", true), mask, word];
        AddedTokens::new(list, "test").unwrap()
    }

    #[test]
    fn longest_at_the_leftmost_place() {
        assert_eq!(tokens().split("a<s>>b<s>", true), [Text("a"), Token(1), Text("b"), Token(0)]);
        assert_eq!(tokens().split("a<s>>b<s>", false), [Text("a<s>>b<s>")]);
        assert_eq!(tokens().split("", true), []);
    }

    #[test]
    fn conditions() {
        let added = tokens();
        assert_eq!(added.split("a  <mask> \n<mask>b", true), [Text("a"), Token(2), Token(2), Text("b")]);
        assert_eq!(added.split("yes, yesterday yes", false), [Token(3), Text(", yesterday "), Token(3)]);
        assert_eq!(added.split_special("yes<s>"), [Text("yes"), Token(0)]);
    }
}
