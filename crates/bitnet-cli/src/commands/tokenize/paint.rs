//! Tokens for people: in colours on a terminal, a line each elsewhere.

use std::fmt::Write as _;

use bitnet_text::Tokenizer;
use console::Style;

use super::Tokens;

/// Backgrounds of the 256 colours that dark letters are easy to read on; neighbours have different ones.
const GROUNDS: [u8; 5] = [194, 223, 189, 225, 159];
/// Black of the 256 colours, which schemes do not change.
const INK: u8 = 16;
/// Ground and letters of special tokens.
const SPECIAL: (u8, u8) = (53, 231);

/// The pieces one after the other, and under them the ids in the same colours.
pub(super) fn painted(tokens: &Tokens<'_>) -> String {
    let (mut pieces, mut ids) = (String::new(), String::new());
    for (index, &id) in tokens.ids.iter().enumerate() {
        let (ground, ink) = match tokens.tokenizer.is_special(id) {
            true => SPECIAL,
            false => (GROUNDS[index % GROUNDS.len()], INK),
        };
        let style = Style::new().on_color256(ground).color256(ink);
        let shown = visible(tokens.tokenizer, id);
        // A background that runs over the end of a line would colour the rest of it.
        for line in shown.split_inclusive('\n') {
            let text = line.strip_suffix('\n');
            pieces += &style.apply_to(text.unwrap_or(line)).to_string();
            pieces += if text.is_some() { "\n" } else { "" };
        }
        let _ = write!(ids, "{} ", style.apply_to(id));
    }
    let end = if pieces.ends_with('\n') || pieces.is_empty() { "" } else { "\n" };
    format!("{pieces}{end}\n{}\n", ids.trim_end())
}

/// A piece with its white space made visible; line breaks stay line breaks.
fn visible(tokenizer: &Tokenizer, id: u32) -> String {
    spelled(tokenizer.token_bytes(id).unwrap_or_default(), |c| match c {
        ' ' => Some("·"),
        '\t' => Some("→"),
        '\n' => Some("↵\n"),
        _ => None,
    })
}

/// Id, tab and piece, with escapes, a line each.
pub(super) fn lines(tokens: &Tokens<'_>) -> String {
    let mut out = String::new();
    for &id in &tokens.ids {
        let _ = writeln!(out, "{id}\t{}", escaped(tokens.tokenizer.token_bytes(id).unwrap_or_default()));
    }
    out
}

/// Bytes as text on one line, from which they can be told.
fn escaped(bytes: &[u8]) -> String {
    spelled(bytes, |c| (c == '\\').then_some("\\\\"))
}

/// Bytes as text: characters as `special` says, else control characters and bytes that are no character escaped.
fn spelled(bytes: &[u8], special: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match special(c) {
                Some(text) => out += text,
                None if c.is_control() => out.extend(c.escape_default()),
                None => out.push(c),
            }
        }
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_on_their_line() {
        assert_eq!(escaped(b" a\tb\n\\"), " a\\tb\\n\\\\");
        assert_eq!(escaped("é".as_bytes()), "é");
        assert_eq!(escaped(&"é".as_bytes()[..1]), "\\xC3");
        assert_eq!(escaped(&[b'a', 0xFF, 0x1B]), "a\\xFF\\u{1b}");
    }
}
