//! [`Wrap`]: styled text cut into lines between words, while it is being written.

use console::{Style, measure_text_width};

/// Writes words to lines of a width. A word shows when it is complete; wide characters are words of their own.
#[derive(Debug, Default)]
pub(super) struct Wrap {
    /// Columns of a line; `None` leaves long lines to the terminal.
    width: Option<usize>,
    /// Columns that are taken of the current line.
    column: usize,
    /// Spaces before the lines that a long line is cut into.
    indent: usize,
    /// Spaces before the word.
    spaces: usize,
    /// The word under way, with its styles.
    word: String,
    word_width: usize,
}

impl Wrap {
    pub(super) fn new(width: Option<usize>) -> Self {
        Self { width: width.filter(|&width| width >= 20), ..Self::default() }
    }

    /// Columns of a line.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Adds text of one line.
    pub(super) fn text(&mut self, out: &mut String, text: &str, style: &Style) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c == ' ' {
                self.end_word(out);
                self.spaces += 1;
                rest = &rest[1..];
                continue;
            }
            let mut bytes = [0; 4];
            if measure_text_width(c.encode_utf8(&mut bytes)) > 1 {
                let (wide, behind) = rest.split_at(c.len_utf8());
                self.add(wide, style);
                self.end_word(out);
                rest = behind;
                continue;
            }
            let ends = |(_, other): &(usize, char)| *other == ' ' || *other >= '\u{1100}';
            let end = rest.char_indices().skip(1).find(ends).map_or(rest.len(), |(at, _)| at);
            self.add(&rest[..end], style);
            rest = &rest[end..];
        }
    }

    fn add(&mut self, text: &str, style: &Style) {
        self.word += &style.apply_to(text).to_string();
        self.word_width += measure_text_width(text);
    }

    /// Writes the word under way, on a new line if this one has no room.
    fn end_word(&mut self, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let end = self.column + self.spaces + self.word_width;
        if self.width.is_some_and(|width| end > width) && self.column > self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', self.indent));
            self.column = self.indent;
        } else {
            out.extend(std::iter::repeat_n(' ', self.spaces));
            self.column += self.spaces;
        }
        *out += &self.word;
        self.column += self.word_width;
        (self.spaces, self.word_width) = (0, 0);
        self.word.clear();
    }

    /// Cuts what follows of this line so that it begins below what comes next.
    pub(super) fn hang(&mut self, out: &mut String) {
        self.end_word(out);
        let most = self.width.map_or(usize::MAX, |width| width / 2);
        self.indent = (self.column + self.spaces).min(most);
    }

    /// Ends the line.
    pub(super) fn newline(&mut self, out: &mut String) {
        self.flush(out);
        out.push('\n');
        (self.column, self.indent) = (0, 0);
    }

    /// Writes all there is.
    pub(super) fn flush(&mut self, out: &mut String) {
        self.end_word(out);
        // Spaces at the end of a line are for nobody.
        self.spaces = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(width: usize, chunks: &[&str]) -> String {
        let (mut wrap, mut out) = (Wrap::new(Some(width)), String::new());
        for chunk in chunks {
            wrap.text(&mut out, chunk, &Style::new());
        }
        wrap.newline(&mut out);
        out
    }

    #[test]
    fn lines_are_cut_between_words_whatever_the_chunks() {
        let text = "the quick brown fox jumps over the lazy dog";
        let want = "the quick brown fox\njumps over the lazy\ndog\n";
        assert_eq!(wrapped(20, &[text]), want);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(wrapped(20, &letters.iter().map(String::as_str).collect::<Vec<_>>()), want);
        let long = "x".repeat(30);
        assert_eq!(wrapped(20, &["a ", &long, " b"]), format!("a\n{long}\nb\n"));
    }

    #[test]
    fn wide_characters_break_anywhere() {
        let out = wrapped(20, &[&"語".repeat(12)]);
        assert_eq!(out, format!("{}\n{}\n", "語".repeat(10), "語".repeat(2)));
    }

    #[test]
    fn lines_hang_below_what_stands_before_them() {
        let (mut wrap, mut out) = (Wrap::new(Some(20)), String::new());
        wrap.text(&mut out, "12. ", &Style::new());
        wrap.hang(&mut out);
        wrap.text(&mut out, "one two three four five", &Style::new());
        wrap.newline(&mut out);
        assert_eq!(out, "12. one two three\n    four five\n");
    }
}
