//! [`Splitter`]: cuts text into the pieces that byte-level BPE never merges across. Each rule is published as a
//! regular expression that ends in `\s+(?!\S)|\s+`; the look-ahead is done by hand here, so that the rest runs in
//! an automaton without backtracking.

use regex::Regex;

use crate::error::{Result, TextError};

/// The published rules. The names are those that GGUF files use in `tokenizer.ggml.pre`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitRule {
    /// GPT-2: words, numbers and punctuation, each with one leading space.
    Gpt2,
    /// Llama 3: contractions in either case, numbers in threes, punctuation with the newlines after it.
    Llama3,
    /// Qwen 2: as Llama 3, with single digits.
    Qwen2,
}

/// Names in `tokenizer.ggml.pre` and the rules they mean.
const NAMES: &[(&str, SplitRule)] = &[
    ("llama-bpe", SplitRule::Llama3),
    ("llama3", SplitRule::Llama3),
    ("llama-v3", SplitRule::Llama3),
    ("falcon3", SplitRule::Llama3),
    ("falcon_e", SplitRule::Llama3),
    ("qwen2", SplitRule::Qwen2),
    ("default", SplitRule::Gpt2),
    ("gpt-2", SplitRule::Gpt2),
];

/// What all rules end in.
const TAIL: &str = r"|\s+(?!\S)|\s+";

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
);

impl SplitRule {
    const ALL: [Self; 3] = [Self::Gpt2, Self::Llama3, Self::Qwen2];

    /// The expression without its tail.
    const fn head(self) -> &'static str {
        match self {
            Self::Gpt2 => GPT2,
            Self::Llama3 => LLAMA3,
            Self::Qwen2 => QWEN2,
        }
    }

    /// The published expression.
    pub(super) fn pattern(self) -> String {
        format!("{}{TAIL}", self.head())
    }

    /// The rule whose published expression this is.
    pub(super) fn from_pattern(pattern: &str) -> Option<Self> {
        let head = pattern.strip_suffix(TAIL)?;
        Self::ALL.into_iter().find(|rule| rule.head() == head)
    }

    /// The rule of a GGUF vocabulary. The official bitnet-b1.58-2B-4T file lacks the name although its vocabulary is
    /// Llama 3's, which its size tells.
    ///
    /// # Errors
    /// [`TextError::UnknownPreTokenizer`] for a name that is not known.
    pub(super) fn from_gguf(name: Option<&str>, vocab_size: usize, origin: &str) -> Result<Self> {
        let Some(name) = name else {
            return Ok(if vocab_size == LLAMA3_VOCAB { Self::Llama3 } else { Self::Gpt2 });
        };
        NAMES.iter().find(|(known, _)| *known == name).map(|&(_, rule)| rule).ok_or_else(|| {
            TextError::UnknownPreTokenizer {
                origin: origin.to_owned(),
                name: name.to_owned(),
                known: NAMES.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// The name under which messages show the rule.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
        }
    }

    /// Whether vocabularies with this rule take a piece that is a token whole, before any merge.
    pub(super) const fn takes_whole_tokens(self) -> bool {
        matches!(self, Self::Llama3)
    }
}

/// Tokens of the Llama 3 vocabulary, special ones included.
pub(super) const LLAMA3_VOCAB: usize = 128_256;

/// A compiled rule.
pub(super) struct Splitter {
    regex: Regex,
    rule: SplitRule,
}

impl Splitter {
    pub(super) fn new(rule: SplitRule) -> Self {
        let pattern = format!(r"{}|\s+", rule.head());
        let regex = Regex::new(&pattern).expect("the patterns are constants that a test compiles");
        Self { regex, rule }
    }

    /// The rule.
    pub(super) fn rule(&self) -> SplitRule {
        self.rule
    }

    /// The pieces of `text`, which together are `text`.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let found = self.regex.find_at(text, at)?;
            let mut end = found.end();
            // Only the last alternative matches what ends in white space, newlines aside where a rule knows them.
            // Being greedy it stops at the end of the text or before a character that is no space; there the
            // look-ahead leaves the last space to that character, unless it is the only one.
            let last = found.as_str().chars().next_back()?;
            let by_newline = matches!(last, '\r' | '\n') && self.rule != SplitRule::Gpt2;
            if end < text.len() && last.is_whitespace() && !by_newline {
                let shorter = end - last.len_utf8();
                if shorter > found.start() {
                    end = shorter;
                }
            }
            // The rules match every character, so nothing lies between two matches.
            let piece = &text[at..end];
            at = end;
            Some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(rule: SplitRule, text: &str) -> Vec<&str> {
        Splitter::new(rule).pieces(text).collect()
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        for rule in SplitRule::ALL {
            assert_eq!(split(rule, "a   b"), ["a", "  ", " b"]);
            assert_eq!(split(rule, "   "), ["   "]);
            assert_eq!(split(rule, ""), Vec::<&str>::new());
        }
        assert_eq!(
            split(SplitRule::Llama3, "x \n\n  y\u{a0}\u{a0}1"),
            ["x", " \n\n", " ", " y", "\u{a0}", "\u{a0}", "1"]
        );
        assert_eq!(split(SplitRule::Gpt2, "x\n\ny"), ["x", "\n", "\n", "y"]);
    }

    #[test]
    fn rules_differ_in_digits_and_contractions() {
        assert_eq!(split(SplitRule::Llama3, "I'LL 12345"), ["I", "'LL", " ", "123", "45"]);
        assert_eq!(split(SplitRule::Qwen2, "I'LL 123"), ["I", "'LL", " ", "1", "2", "3"]);
        assert_eq!(split(SplitRule::Gpt2, "I'LL 12345"), ["I", "'", "LL", " 12345"]);
    }

    #[test]
    fn a_megabyte_of_one_character_is_quick() {
        for rule in SplitRule::ALL {
            for character in [" ", "a", "\n", "'", "\u{3000}"] {
                let text = character.repeat(1 << 20);
                assert_eq!(split(rule, &text).concat(), text);
            }
        }
    }

    #[test]
    fn unknown_names_are_told_with_the_known_ones() {
        let error = SplitRule::from_gguf(Some("smaug-bpe"), 10, "m.gguf").unwrap_err().to_string();
        assert!(error.contains("smaug-bpe") && error.contains("llama-bpe, llama3"), "{error}");
        assert_eq!(SplitRule::from_gguf(None, LLAMA3_VOCAB, "").unwrap(), SplitRule::Llama3);
        assert_eq!(SplitRule::from_gguf(None, 50_257, "").unwrap(), SplitRule::Gpt2);
    }

    /// The same rules run by the `tokenizers` library with its backtracking look-ahead.
    fn oracle() -> impl Fn(SplitRule, &str) -> Vec<String> {
        use tokenizers::SplitDelimiterBehavior::Isolated;
        use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
        use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

        let compiled = SplitRule::ALL.map(|rule| {
            let pattern = SplitPattern::Regex(format!("{}{TAIL}", rule.head()));
            (rule, Split::new(pattern, Isolated, false).unwrap())
        });
        move |rule, text| {
            let mut pieces = PreTokenizedString::from(text);
            compiled.iter().find(|(other, _)| *other == rule).unwrap().1.pre_tokenize(&mut pieces).unwrap();
            pieces
                .get_splits(OffsetReferential::Original, OffsetType::Byte)
                .into_iter()
                .map(|(piece, ..)| piece.to_owned())
                .filter(|piece| !piece.is_empty())
                .collect()
        }
    }

    #[test]
    fn equals_the_published_expressions() {
        let spaces_and_words = "([ \t\r\n\u{a0}\u{3000}]{0,4}('(s|LL|ſ|x)?|[a-zéßЖ天ก\u{301}]{0,3}|[0-9½٣]{0,5}|[.!~🚀_]{0,3})){0,8}";
        let texts = prop_oneof![spaces_and_words, any::<String>()];
        let splitters = SplitRule::ALL.map(|rule| (rule, Splitter::new(rule)));
        let oracle = oracle();
        let config = ProptestConfig { failure_persistence: None, cases: 4000, ..ProptestConfig::default() };
        proptest!(config, |(text in texts)| {
            for (rule, splitter) in &splitters {
                prop_assert_eq!(splitter.pieces(&text).collect::<Vec<_>>(), oracle(*rule, &text));
            }
        });
    }
}
