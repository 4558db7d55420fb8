//! [`Recorder`]: what a terminal shows, and from when until when.

use std::time::Duration;

use vt100::{Cell, Color, Parser};

/// Changes that are nearer to each other than this are shown together.
const FRAME: Duration = Duration::from_millis(120);

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style {
    pub(super) color: Option<u8>,
    pub(super) bold: bool,
    pub(super) dim: bool,
    pub(super) italic: bool,
}

/// A piece of text of one look, from a column on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) column: u16,
    pub(super) text: String,
    pub(super) style: Style,
}

/// A letter in its column.
type Letter = (u16, String, Style);

/// A row of the terminal, or what was written behind it later, for as long as it did not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) row: u16,
    pub(super) spans: Vec<Span>,
    pub(super) from: Duration,
    /// None: until the end.
    pub(super) until: Option<Duration>,
}

/// A whole session.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) lines: Vec<Line>,
    pub(super) length: Duration,
}

/// A row: what it shows, and how many letters of it since when.
#[derive(Debug, Clone, Default)]
struct Row {
    letters: Vec<Letter>,
    parts: Vec<(usize, Duration)>,
}

/// A terminal that remembers.
pub(super) struct Recorder {
    parser: Parser,
    now: Duration,
    /// When the screen was last looked at.
    seen: Duration,
    shown: Vec<Row>,
    lines: Vec<Line>,
}

impl Recorder {
    pub(super) fn new(rows: u16, columns: u16) -> Self {
        let shown = vec![Row::default(); usize::from(rows)];
        Self {
            parser: Parser::new(rows, columns, 0),
            now: Duration::ZERO,
            seen: Duration::ZERO,
            shown,
            lines: Vec::new(),
        }
    }

    /// Time passes.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.now - self.seen >= FRAME {
            self.look();
        }
    }

    /// Writes to the terminal.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.parser.process(bytes);
    }

    /// Shows the prompt of a shell.
    pub(super) fn prompt(&mut self) {
        self.write(b"\x1b[1;32m$\x1b[0m ");
    }

    /// Clears the screen.
    pub(super) fn clear(&mut self) {
        self.write(b"\x1b[2J\x1b[H");
    }

    /// Notes which rows have changed. What is only written behind a row leaves the row as it is.
    fn look(&mut self) {
        self.seen = self.now;
        for row in 0..u16::try_from(self.shown.len()).unwrap_or(u16::MAX) {
            let new = self.letters(row);
            let old = &mut self.shown[usize::from(row)];
            if old.letters == new {
                continue;
            }
            if !new.starts_with(&old.letters) {
                self.lines.extend(lines(row, old, Some(self.now)));
                old.parts.clear();
            }
            old.parts.push((new.len(), self.now));
            old.letters = new;
        }
    }

    /// What a row shows, without blanks.
    fn letters(&self, row: u16) -> Vec<Letter> {
        let screen = self.parser.screen();
        let cells = (0..screen.size().1).filter_map(|column| Some((column, screen.cell(row, column)?)));
        let shown = cells.filter(|(_, cell)| !cell.contents().trim().is_empty());
        shown.map(|(column, cell)| (column, cell.contents().to_owned(), style(cell))).collect()
    }

    /// The session, with its end shown for some time.
    pub(super) fn finish(mut self, end: Duration) -> Recording {
        self.look();
        let (rows, columns) = self.parser.screen().size();
        let mut all = self.lines;
        for (shown, row) in self.shown.iter().zip(0..) {
            all.extend(lines(row, shown, None));
        }
        all.retain(|line| line.until != Some(line.from));
        Recording { rows, columns, lines: all, length: self.now + end }
    }
}

/// The parts of a row, each with the time since when it is there.
fn lines(row: u16, shown: &Row, until: Option<Duration>) -> Vec<Line> {
    let begins = std::iter::once(0).chain(shown.parts.iter().map(|(end, _)| *end));
    let parts = begins.zip(&shown.parts).filter(|(begin, (end, _))| begin < end);
    parts
        .map(|(begin, &(end, from))| Line { row, spans: spans(&shown.letters[begin..end]), from, until })
        .collect()
}

/// Letters as pieces of one look. A single blank between words belongs to them.
fn spans(letters: &[Letter]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0;
    for (column, text, style) in letters {
        match spans.last_mut() {
            Some(span) if span.style == *style && *column <= next + 1 => {
                if *column > next {
                    span.text.push(' ');
                }
                span.text.push_str(text);
            }
            _ => spans.push(Span { column: *column, text: text.clone(), style: *style }),
        }
        next = column + 1;
    }
    spans
}

fn style(cell: &Cell) -> Style {
    let color = match cell.fgcolor() {
        Color::Idx(index) if index < 16 => Some(index),
        _ => None,
    };
    Style { color, bold: cell.bold(), dim: cell.dim(), italic: cell.italic() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_remembered_with_their_times() {
        let mut recorder = Recorder::new(3, 20);
        let second = Duration::from_secs(1);
        recorder.write(b"one");
        recorder.wait(second);
        recorder.write(b" two\r\n\x1b[31mred\x1b[0m plain");
        recorder.wait(second);
        let recording = recorder.finish(second);
        let told: Vec<(u16, String, Duration, Option<Duration>)> = recording
            .lines
            .iter()
            .map(|line| {
                let text = line.spans.iter().map(|span| span.text.as_str()).collect::<String>();
                (line.row, text, line.from, line.until)
            })
            .collect();
        assert_eq!(
            told,
            [
                (0, "one".to_owned(), second, None),
                (0, "two".to_owned(), 2 * second, None),
                (1, "redplain".to_owned(), 2 * second, None),
            ]
        );
        assert_eq!(recording.lines[2].spans[0].style.color, Some(1));
        assert_eq!((recording.lines[2].spans[1].column, recording.length), (4, 3 * second));
    }

    #[test]
    fn what_is_overwritten_goes() {
        let mut recorder = Recorder::new(2, 20);
        let second = Duration::from_secs(1);
        recorder.write(b"10 %");
        recorder.wait(second);
        recorder.write(b"\r20 %");
        recorder.wait(second);
        recorder.clear();
        let recording = recorder.finish(second);
        let told: Vec<_> =
            recording.lines.iter().map(|line| (line.spans[0].text.as_str(), line.until)).collect();
        assert_eq!(told, [("10 %", Some(2 * second))]);
    }
}
