//! What a line of Markdown is, told by how it begins.

/// What the beginning of a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin<'a> {
    /// More of the line is needed.
    Wait,
    /// Nothing but spaces.
    Blank,
    /// A heading of a level, and the rest of the line.
    Heading(usize, &'a str),
    /// An entry of a list: the spaces before it, its mark, and the rest of the line.
    Item(usize, &'a str, &'a str),
    /// A quotation, and the rest of the line.
    Quote(&'a str),
    /// A line of a table, whole.
    Row,
    /// The beginning of a code block, and the name of its language.
    Fence(&'a str),
    /// A line across.
    Rule,
    /// Ordinary text, and the spaces before it.
    Text(usize, &'a str),
}

/// The fence that a line begins with: its character and length.
pub(super) fn fence(line: &str) -> Option<(char, usize)> {
    let line = line.trim_start_matches(' ');
    let first = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = line.chars().take_while(|&c| c == first).count();
    (length >= 3).then_some((first, length))
}

/// Reads the beginning of a line, or all of it if this is its `end`.
pub(super) fn begin(line: &str, end: bool) -> Begin<'_> {
    let text = line.trim_start_matches(' ');
    let indent = line.len() - text.len();
    let as_text = Begin::Text(indent, text);
    let wait = if end { as_text } else { Begin::Wait };
    let Some(first) = text.chars().next() else {
        return if end { Begin::Blank } else { Begin::Wait };
    };
    let run = text.chars().take_while(|&c| c == first).count();
    let behind = &text[run * first.len_utf8()..];
    match first {
        '|' if end => Begin::Row,
        '|' => Begin::Wait,
        '#' if behind.is_empty() => wait,
        '#' if run <= 6 && behind.starts_with(' ') => Begin::Heading(run, behind.trim_start()),
        '`' | '~' if run >= 3 && end && !behind.contains('`') => Begin::Fence(behind.trim()),
        '`' | '~' if behind.is_empty() || run >= 3 => wait,
        '-' | '*' | '_' if is_rule(text, first) => {
            if end {
                Begin::Rule
            } else {
                Begin::Wait
            }
        }
        '-' | '*' | '+' | '_' if behind.is_empty() && run <= 3 => wait,
        // A rule may still come of marks with spaces between them.
        '-' | '*' | '_' if !end && text.chars().all(|c| c == first || c == ' ') => Begin::Wait,
        '-' | '*' | '+' if run == 1 && behind.starts_with(' ') => {
            Begin::Item(indent, &text[..1], behind.trim_start())
        }
        '>' if behind.is_empty() && !end => Begin::Wait,
        '>' => Begin::Quote(text[1..].strip_prefix(' ').unwrap_or(&text[1..])),
        '0'..='9' => number(text, indent, end),
        _ => as_text,
    }
}

/// Whether a line has only marks, at least three, and spaces.
fn is_rule(text: &str, mark: char) -> bool {
    text.chars().filter(|&c| c == mark).count() >= 3 && text.chars().all(|c| c == mark || c == ' ')
}

/// An entry of a numbered list, or text.
fn number(text: &str, indent: usize, end: bool) -> Begin<'_> {
    let as_text = Begin::Text(indent, text);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 9 {
        return as_text;
    }
    let mut behind = text[digits..].chars();
    match (behind.next(), behind.next()) {
        (None, _) | (Some('.' | ')'), None) if !end => Begin::Wait,
        (Some('.' | ')'), Some(' ')) => {
            Begin::Item(indent, &text[..=digits], text[digits + 1..].trim_start())
        }
        _ => as_text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_what_they_are() {
        for (line, want) in [
            ("", Begin::Blank),
            ("  ", Begin::Blank),
            ("# A", Begin::Heading(1, "A")),
            ("### A b", Begin::Heading(3, "A b")),
            ("#tag", Begin::Text(0, "#tag")),
            ("####### x", Begin::Text(0, "####### x")),
            ("- a", Begin::Item(0, "-", "a")),
            ("  * a", Begin::Item(2, "*", "a")),
            ("10. a", Begin::Item(0, "10.", "a")),
            ("3) a", Begin::Item(0, "3)", "a")),
            ("3.5 is", Begin::Text(0, "3.5 is")),
            ("2024", Begin::Text(0, "2024")),
            ("-5 degrees", Begin::Text(0, "-5 degrees")),
            ("**bold** start", Begin::Text(0, "**bold** start")),
            ("> said", Begin::Quote("said")),
            ("| a | b |", Begin::Row),
            ("```rust", Begin::Fence("rust")),
            ("``` `", Begin::Text(0, "``` `")),
            ("`code` first", Begin::Text(0, "`code` first")),
            ("---", Begin::Rule),
            ("* * *", Begin::Rule),
            ("-", Begin::Text(0, "-")),
            ("    deep", Begin::Text(4, "deep")),
        ] {
            assert_eq!(begin(line, true), want, "{line:?}");
        }
    }

    #[test]
    fn a_beginning_is_decided_as_the_whole_line_would_be() {
        for line in
            ["# A b", "- a b", "12. a", "> x", "text", "**b** x", "--- x", "* * a", "``x``", "~a", "1a", "-x"]
        {
            let whole = std::mem::discriminant(&begin(line, true));
            for (at, _) in line.char_indices() {
                let early = begin(&line[..at], false);
                let same = early == Begin::Wait || std::mem::discriminant(&early) == whole;
                assert!(same, "{line:?} at {at}: {early:?}");
            }
        }
    }
}
