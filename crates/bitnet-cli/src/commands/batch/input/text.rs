//! Rows of text files: lines, paragraphs, or the file as a whole.

use super::lines::{Line, Lines};
use super::{Content, Entries, Entry, LARGEST};
use crate::args::TextMode;
use crate::error::CliError;

/// The rows of a text.
pub(super) fn entries(lines: Lines, mode: TextMode) -> Entries {
    match mode {
        TextMode::Line => Box::new(lines.filter(|line| !is_blank(line)).map(|line| {
            line.map(|Line { number, text }| Entry { place: Some(number), content: text.map(Content::Text) })
        })),
        TextMode::Paragraph => Box::new(Blocks { lines, whole: false, ended: false }),
        TextMode::File => Box::new(Blocks { lines, whole: true, ended: false }),
    }
}

fn is_blank(line: &Result<Line, CliError>) -> bool {
    matches!(line, Ok(Line { text: Ok(text), .. }) if text.trim().is_empty())
}

/// Several lines as one row: up to a blank one, or all of them.
struct Blocks {
    lines: Lines,
    whole: bool,
    ended: bool,
}

impl Iterator for Blocks {
    type Item = Result<Entry, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let mut block: Option<(u64, Result<String, String>)> = None;
        loop {
            let blank = match self.lines.next() {
                None => {
                    self.ended = true;
                    break;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Some(line) if !self.whole && is_blank(&line) => true,
                Some(Ok(line)) => {
                    block = Some(joined(block, line));
                    false
                }
            };
            if blank && block.is_some() {
                break;
            }
        }
        let place = |number| (!self.whole).then_some(number);
        match block {
            Some((number, text)) => {
                Some(Ok(Entry { place: place(number), content: text.map(Content::Text) }))
            }
            // A file is a row also if there is nothing in it.
            None if self.whole => {
                Some(Ok(Entry { place: None, content: Err("the file is empty".to_owned()) }))
            }
            None => None,
        }
    }
}

/// A block with one more line. A line that is none makes the whole block none.
fn joined(block: Option<(u64, Result<String, String>)>, line: Line) -> (u64, Result<String, String>) {
    let Some((number, so_far)) = block else { return (line.number, line.text) };
    let text = so_far.and_then(|mut so_far| {
        let more = line.text.map_err(|error| format!("line {}: {error}", line.number))?;
        if (so_far.len() + more.len()) as u64 >= LARGEST {
            return Err(format!("the text is longer than {} MiB", LARGEST >> 20));
        }
        so_far.push('\n');
        so_far.push_str(&more);
        Ok(so_far)
    });
    (number, text)
}
