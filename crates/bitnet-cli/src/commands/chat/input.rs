//! What was typed, over several lines perhaps.
//!
//! A text goes on after a line that ends in a backslash, and from `"""` to the next `"""`.

use std::borrow::Cow;

const QUOTES: &str = "\"\"\"";

/// Something that was typed, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Typed {
    /// The text, without the signs that hold its lines together.
    pub(super) text: String,
    /// Whether it is something to say even if it begins with a slash.
    pub(super) literal: bool,
}

/// Puts lines together; `None` while more belongs to them.
pub(super) fn assemble(lines: &str) -> Option<Typed> {
    let (command, rest) = before_quotes(lines);
    let Some(quoted) = rest.strip_prefix(QUOTES) else {
        let open = lines.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
        return (!open).then(|| Typed { text: lines.replace("\\\n", "\n"), literal: false });
    };
    let (inner, behind) = quoted.split_once(QUOTES)?;
    let inner = inner.strip_prefix('\n').unwrap_or(inner);
    let inner = inner.strip_suffix('\n').unwrap_or(inner);
    Some(Typed { text: format!("{command}{inner}{}", behind.trim_end()), literal: command.is_empty() })
}

/// The same when nothing more will come.
pub(super) fn assemble_rest(lines: &str) -> Typed {
    assemble(lines).unwrap_or_else(|| match before_quotes(lines) {
        (_, rest) if rest.starts_with(QUOTES) => {
            assemble(&format!("{lines}{QUOTES}")).unwrap_or(Typed { text: String::new(), literal: true })
        }
        _ => Typed { text: lines.trim_end_matches('\\').to_owned(), literal: false },
    })
}

/// A command at the beginning, such as `/system `, and what follows it.
fn before_quotes(lines: &str) -> (&str, &str) {
    let start = lines.trim_start();
    if start.starts_with('/')
        && let Some(at) = start.find(QUOTES)
        && !start[..at].contains('\n')
        && start[..at].ends_with(' ')
    {
        return start.split_at(at);
    }
    ("", start)
}

/// Text with line ends as this program has them.
pub(super) fn unix_lines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &str) -> Option<(String, bool)> {
        assemble(lines).map(|typed| (typed.text, typed.literal))
    }

    #[test]
    fn lines_go_on_after_a_backslash() {
        assert_eq!(text("one"), Some(("one".to_owned(), false)));
        assert_eq!(text("one\\"), None);
        assert_eq!(text("one\\\ntwo"), Some(("one\ntwo".to_owned(), false)));
        assert_eq!(text("one\\\ntwo\\"), None);
        assert_eq!(
            text("a path: C:\\\\"),
            Some(("a path: C:\\\\".to_owned(), false)),
            "two stand for themselves"
        );
    }

    #[test]
    fn quotes_hold_everything() {
        assert_eq!(text("\"\"\""), None);
        assert_eq!(text("\"\"\"\none\n/two\\"), None);
        assert_eq!(text("\"\"\"\none\n/two\\\n\"\"\""), Some(("one\n/two\\".to_owned(), true)));
        assert_eq!(text("\"\"\"/exit\"\"\""), Some(("/exit".to_owned(), true)));
        assert_eq!(text("/system \"\"\"Be\nbrief.\"\"\""), Some(("/system Be\nbrief.".to_owned(), false)));
        assert_eq!(text("/system \"\"\"Be"), None);
        assert_eq!(text("say \"\"\"this"), Some(("say \"\"\"this".to_owned(), false)));
    }

    #[test]
    fn the_end_completes_what_is_open() {
        assert_eq!(assemble_rest("one\\").text, "one");
        assert_eq!(assemble_rest("\"\"\"\none\ntwo").text, "one\ntwo");
        assert_eq!(assemble_rest("plain").text, "plain");
        assert_eq!(unix_lines("a\r\nb"), "a\nb");
    }
}
