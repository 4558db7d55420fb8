//! Separates Rust source into code, comments and literals, so that the rules see only what they are about.
//!
//! [`Source`] is the result. This is no parser: it knows comments, strings, characters and lifetimes, and nothing of
//! the grammar. Source that does not compile gives some answer, never a panic.

/// One Rust file, split into layers of the same length as its text.
///
/// In each layer every byte that belongs to another layer is a space, and line breaks are kept, so that offsets and
/// line numbers mean the same in all of them.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text without the content of comments, strings and characters.
    pub(crate) code: String,
    /// The comments alone, documentation included.
    pub(crate) comments: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// Splits `text`.
    pub(crate) fn new(text: &str) -> Self {
        let mut lexer = Lexer { bytes: text.as_bytes(), at: 0, code: blank(text), comments: blank(text) };
        lexer.run();
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        Self { code: into_text(lexer.code), comments: into_text(lexer.comments), line_starts }
    }

    /// The number, from 1, of the line that holds the byte at `offset`.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// The identifiers and keywords of the code with their offsets, in order.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        words(&self.code)
    }
}

/// The identifiers, keywords and numbers of `text` with their offsets, in order.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let begin = rest + text[rest..].find(is_word_character)?;
        let length = text[begin..].find(|c| !is_word_character(c)).unwrap_or(text.len() - begin);
        rest = begin + length;
        Some((begin, &text[begin..rest]))
    })
}

fn is_word_character(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// `text` with everything but line breaks replaced by spaces, byte for byte.
fn blank(text: &str) -> Vec<u8> {
    text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { byte } else { b' ' }).collect()
}

fn into_text(layer: Vec<u8>) -> String {
    String::from_utf8(layer).expect("regions begin and end at ASCII characters or whole words")
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.peek(0) {
            let begin = self.at;
            match byte {
                b'/' if self.peek(1) == Some(b'/') => {
                    self.skip_line_comment();
                    self.keep_comment(begin);
                }
                b'/' if self.peek(1) == Some(b'*') => {
                    self.skip_block_comment();
                    self.keep_comment(begin);
                }
                b'"' => self.skip_string(),
                b'\'' => self.character_or_lifetime(),
                _ if is_word_byte(byte) => self.word_or_prefixed_literal(),
                _ => self.keep_code(1),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn keep_code(&mut self, length: usize) {
        let end = (self.at + length).min(self.bytes.len());
        self.code[self.at..end].copy_from_slice(&self.bytes[self.at..end]);
        self.at = end;
    }

    fn keep_comment(&mut self, begin: usize) {
        self.comments[begin..self.at].copy_from_slice(&self.bytes[begin..self.at]);
    }

    fn skip_line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// A string with escapes, from its opening quote.
    fn skip_string(&mut self) {
        self.at += 1;
        self.skip_to_closing(b'"');
    }

    /// To behind the next `quote` that no backslash escapes.
    fn skip_to_closing(&mut self, quote: u8) {
        while let Some(byte) = self.peek(0) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                break;
            }
        }
        self.at = self.at.min(self.bytes.len());
    }

    /// A raw string from its first `#` or quote; `hashes` of them close it.
    fn skip_raw_string(&mut self, hashes: usize) {
        self.at += hashes + 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'"' && (0..hashes).all(|ahead| self.peek(ahead) == Some(b'#')) {
                self.at += hashes;
                return;
            }
        }
    }

    /// From a single quote: a character (`'x'`, `'\n'`) or a lifetime or label (`'a`).
    fn character_or_lifetime(&mut self) {
        let Some(first) = self.peek(1) else { return self.keep_code(1) };
        if first == b'\\' {
            self.at += 1;
            self.skip_to_closing(b'\'');
            return;
        }
        let width = match first {
            0x00..0x80 => 1,
            0x80..0xE0 => 2,
            0xE0..0xF0 => 3,
            _ => 4,
        };
        if self.peek(1 + width) == Some(b'\'') {
            self.at += width + 2;
        } else {
            self.keep_code(1);
        }
    }

    /// A word, unless it is the prefix of a literal: `r"…"`, `br#"…"#`, `b'x'`, `c"…"`.
    fn word_or_prefixed_literal(&mut self) {
        let length = self.bytes[self.at..].iter().take_while(|&&byte| is_word_byte(byte)).count();
        let hashes = self.bytes[self.at + length..].iter().take_while(|&&byte| byte == b'#').count();
        let word = &self.bytes[self.at..self.at + length];
        let opens_string = self.peek(length + hashes) == Some(b'"');
        match word {
            b"r" | b"br" | b"cr" if opens_string => {
                self.at += length;
                self.skip_raw_string(hashes);
            }
            b"b" | b"c" if opens_string && hashes == 0 => {
                self.at += length;
                self.skip_string();
            }
            b"b" if self.peek(length) == Some(b'\'') => {
                self.at += length;
                self.character_or_lifetime();
            }
            _ => self.keep_code(length),
        }
    }
}

/// Letters, digits, underscore, and every byte of a non-ASCII character.
fn is_word_byte(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code layer with runs of spaces made one, for short expectations.
    fn code(text: &str) -> String {
        Source::new(text).code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_are_not_code() {
        assert_eq!(code("a // { unsafe\nb"), "a b");
        assert_eq!(code("a /* { /* nested } */ still */ b"), "a b");
        assert_eq!(code("//! fn\n/// println!\nfn x() {}"), "fn x() {}");
        assert_eq!(code("a / b"), "a / b");
    }

    #[test]
    fn strings_are_not_code() {
        assert_eq!(code(r#"f("{ \" } \\", g)"#), "f( , g)");
        assert_eq!(code("f(r\"\\\", g)"), "f( , g)");
        assert_eq!(code(r####"f(r##"a "# } "##, g)"####), "f( , g)");
        assert_eq!(code(r##"f(b"}", c"}", br#"}"#, cr#"}"#)"##), "f( , , , )");
        assert_eq!(code("f(\"// no comment\") // yes"), "f( )");
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        assert_eq!(code("f('{', '\\'', b'}', '\\u{7d}', 'é', '🚀')"), "f( , , , , , )");
        assert_eq!(code("fn f<'a>(x: &'a str) { 'outer: loop { break 'outer } }").matches('\'').count(), 4);
        assert_eq!(code("'\"' \"'\""), "");
        assert_eq!(code("('\"', x)"), "( , x)");
    }

    #[test]
    fn raw_identifiers_and_prefix_letters_stay_code() {
        assert_eq!(code("r#type + br + bar\"s\""), "r#type + br + bar");
        assert_eq!(code("let größe = 1;"), "let größe = 1;");
    }

    #[test]
    fn layers_keep_offsets_and_lines() {
        let text = "let a = \"x\ny\"; // Größe\nlet b = 'é';\r\nend";
        let source = Source::new(text);
        assert_eq!(source.code.len(), text.len());
        assert_eq!(source.comments.trim(), "// Größe");
        let offset = source.code.find("end").unwrap();
        assert_eq!(&text[offset..], "end");
        assert_eq!(source.line(offset), 4);
        assert_eq!(source.line(0), 1);
        assert_eq!(source.line(text.find('\n').unwrap()), 1);
        assert_eq!(source.line(text.find('y').unwrap()), 2);
    }

    #[test]
    fn unfinished_source_ends_quietly() {
        for text in ["\"open", "r#\"open", "/* open", "'", "'\\", "b'", "\"\\", "r###", "'é"] {
            assert_eq!(Source::new(text).code.len(), text.len(), "{text}");
        }
    }

    #[test]
    fn words_come_with_offsets() {
        let source = Source::new("fn a_b(x: u8) { \"no\" }");
        let found: Vec<_> = source.words().collect();
        assert_eq!(found, [(0, "fn"), (3, "a_b"), (7, "x"), (10, "u8")]);
    }
}
