//! What stands within a line of Markdown: emphasis, code, links.

/// How a piece of a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Look {
    pub(super) bold: bool,
    pub(super) italic: bool,
    pub(super) strike: bool,
    pub(super) code: bool,
    pub(super) link: bool,
    pub(super) address: bool,
}

/// Text of one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) look: Look,
}

/// Bytes that wait for the end of something; what takes longer is text as it stands.
const PATIENCE: usize = 400;

/// Reads a line as far as it is certain, all of it if this is its `end`; `previous` stands before it. Gives the bytes that
/// were read.
pub(super) fn scan(line: &str, previous: Option<char>, look: Look, end: bool, out: &mut Vec<Piece>) -> usize {
    let mut at = 0;
    while let Some(found) = line[at..].find(['\\', '`', '*', '_', '~', '[']) {
        plain(&line[at..at + found], look, out);
        at += found;
        let before = line[..at].chars().next_back().or(previous);
        match mark(&line[at..], before, look, end, out) {
            Mark::Read(bytes) => at += bytes,
            Mark::Text(bytes) => {
                plain(&line[at..at + bytes], look, out);
                at += bytes;
            }
            Mark::Wait if line.len() - at > PATIENCE => {
                let bytes = line[at..].chars().next().map_or(0, char::len_utf8);
                plain(&line[at..at + bytes], look, out);
                at += bytes;
            }
            Mark::Wait => return at,
        }
    }
    plain(&line[at..], look, out);
    line.len()
}

/// What a character with a meaning turned out to be.
enum Mark {
    /// It was understood with so many bytes.
    Read(usize),
    /// So many bytes are text.
    Text(usize),
    /// What follows decides.
    Wait,
}

fn plain(text: &str, look: Look, out: &mut Vec<Piece>) {
    match out.last_mut() {
        _ if text.is_empty() => {}
        Some(last) if last.look == look => last.text += text,
        _ => out.push(Piece { text: text.to_owned(), look }),
    }
}

fn mark(text: &str, before: Option<char>, look: Look, end: bool, out: &mut Vec<Piece>) -> Mark {
    let first = text.as_bytes()[0];
    match first {
        b'\\' => match text[1..].chars().next() {
            Some(c) if c.is_ascii_punctuation() => {
                plain(&text[1..2], look, out);
                Mark::Read(2)
            }
            None if !end => Mark::Wait,
            _ => Mark::Text(1),
        },
        b'[' => link(text, look, end, out),
        _ => span(text, before, look, end, out),
    }
}

/// `[text](address)`.
fn link(text: &str, look: Look, end: bool, out: &mut Vec<Piece>) -> Mark {
    let undecided = if end { Mark::Text(1) } else { Mark::Wait };
    let Some(close) = text.find(']') else { return undecided };
    match text.as_bytes().get(close + 1) {
        None => return undecided,
        Some(b'(') => {}
        Some(_) => return Mark::Text(1),
    }
    let Some(length) = text[close + 2..].find(')') else { return undecided };
    let (title, address) = (&text[1..close], &text[close + 2..close + 2 + length]);
    if title.is_empty() || address.contains(' ') {
        return Mark::Text(1);
    }
    scan(title, None, Look { link: true, ..look }, true, out);
    if title != address {
        plain(" (", Look { address: true, ..look }, out);
        plain(address, Look { address: true, ..look }, out);
        plain(")", Look { address: true, ..look }, out);
    }
    Mark::Read(close + 3 + length)
}

/// What is between two runs of the same mark: code, emphasis, text struck through.
fn span(text: &str, before: Option<char>, look: Look, end: bool, out: &mut Vec<Piece>) -> Mark {
    let mark = text.as_bytes()[0];
    let run = text.bytes().take_while(|&b| b == mark).count();
    let Some(next) = text[run..].chars().next() else {
        return if end { Mark::Text(run) } else { Mark::Wait };
    };
    let inner = match (mark, run) {
        (b'`', _) => Look { code: true, ..look },
        (b'~', 2) => Look { strike: true, ..look },
        (b'*' | b'_', 1) => Look { italic: true, ..look },
        (b'*' | b'_', 2) => Look { bold: true, ..look },
        (b'*' | b'_', 3) => Look { bold: true, italic: true, ..look },
        _ => return Mark::Text(run),
    };
    let within_word = mark == b'_' && before.is_some_and(char::is_alphanumeric);
    if mark != b'`' && (next.is_whitespace() || within_word) {
        return Mark::Text(run);
    }
    match closing(text, run, end) {
        Some(close) if mark == b'`' => {
            plain(code(&text[run..close]), inner, out);
            Mark::Read(close + run)
        }
        Some(close) => {
            scan(&text[run..close], None, inner, true, out);
            Mark::Read(close + run)
        }
        None if end => Mark::Text(run),
        None => Mark::Wait,
    }
}

/// Where the run begins that closes the one at the beginning of `text`.
fn closing(text: &str, run: usize, end: bool) -> Option<usize> {
    let mark = text.as_bytes()[0];
    let mut at = run;
    while let Some(found) = text[at..].find(char::from(mark)) {
        let start = at + found;
        let length = text[start..].bytes().take_while(|&b| b == mark).count();
        let (before, after) = (text[..start].chars().next_back(), text[start + length..].chars().next());
        // Whether more of the mark follows, or a letter, is not known yet.
        let is_known = after.is_some() || end;
        let fits = match mark {
            b'`' => length == run,
            // Two marks are those of other emphasis within this.
            _ if run == 1 && length == 2 => false,
            b'_' => length >= run && !after.is_some_and(char::is_alphanumeric),
            _ => length >= run,
        };
        let behind_text = mark == b'`' || before.is_some_and(|c| !c.is_whitespace() && c != '\\');
        if fits && behind_text && start > run {
            // Of a longer run, as behind emphasis in emphasis, the last marks are those that close.
            return is_known.then_some(start + length - run);
        }
        at = start + length;
    }
    None
}

/// The text of a code span, without the spaces that keep backticks away from its ends.
fn code(text: &str) -> &str {
    match text.strip_prefix(' ').and_then(|text| text.strip_suffix(' ')) {
        Some(inner) if !inner.trim().is_empty() => inner,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces as text, each look with a letter.
    fn read(line: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(scan(line, None, Look::default(), true, &mut out), line.len());
        let show = |piece: &Piece| {
            let look = piece.look;
            let letters = [
                (look.bold, 'b'),
                (look.italic, 'i'),
                (look.strike, 's'),
                (look.code, 'c'),
                (look.link, 'l'),
                (look.address, 'a'),
            ];
            let letters: String = letters.iter().filter(|(on, _)| *on).map(|(_, c)| *c).collect();
            if letters.is_empty() { piece.text.clone() } else { format!("<{letters}:{}>", piece.text) }
        };
        out.iter().map(show).collect()
    }

    #[test]
    fn marks_are_understood() {
        for (line, want) in [
            ("a **bold** b", "a <b:bold> b"),
            ("*it* and __b__ and _i_", "<i:it> and <b:b> and <i:i>"),
            ("***both***", "<bi:both>"),
            ("**a *b* c**", "<b:a ><bi:b><b: c>"),
            ("*a **b** c*", "<i:a ><bi:b><i: c>"),
            ("~~old~~ ~new~", "<s:old> ~new~"),
            ("`x *y*` ``a`b``", "<c:x *y*> <c:a`b>"),
            ("see [the page](http://x.y) now", "see <l:the page><a: (http://x.y)> now"),
            (r"\*not\*", "*not*"),
        ] {
            assert_eq!(read(line), want, "{line}");
        }
    }

    #[test]
    fn what_is_no_mark_stays_text() {
        for line in [
            "2 * 3 * 4",
            "snake_case_name",
            "a ** b",
            "open *only",
            "open `only",
            "[x] done",
            "[a](b c)",
            "****",
            "C:\\dir",
            "~5 to ~7",
            "end *",
            "[open",
        ] {
            assert_eq!(read(line), line);
        }
    }

    #[test]
    fn nothing_is_lost_or_decided_too_early_in_chunks() {
        let line = "a **bold *both* b** `code ` x_y_z [t](u) *open and 語 \\* end ~~s~~ ***";
        let whole = {
            let mut out = Vec::new();
            scan(line, None, Look::default(), true, &mut out);
            out
        };
        for cut in 1..6 {
            let (mut rest, mut out, mut previous) = (String::new(), Vec::new(), None);
            let chars: Vec<char> = line.chars().collect();
            for chunk in chars.chunks(cut) {
                rest.extend(chunk);
                let read = scan(&rest, previous, Look::default(), false, &mut out);
                previous = rest[..read].chars().next_back().or(previous);
                rest.drain(..read);
            }
            scan(&rest, previous, Look::default(), true, &mut out);
            assert_eq!(out, whole, "chunks of {cut}");
        }
    }
}
