//! [`Recorder`]: what a terminal shows, and from when until when.

use std::time::Duration;

use vt100::{Cell, Color, Parser};

/// Changes that are nearer to each other than this are shown together.
const FRAME: Duration = Duration::from_millis(90);

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

/// A row of the terminal for as long as it did not change.
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

/// A terminal that remembers.
pub(super) struct Recorder {
    parser: Parser,
    now: Duration,
    /// When the screen was last looked at.
    seen: Duration,
    /// What each row shows, and since when.
    shown: Vec<(Vec<Span>, Duration)>,
    lines: Vec<Line>,
}

impl Recorder {
    pub(super) fn new(rows: u16, columns: u16) -> Self {
        let shown = vec![(Vec::new(), Duration::ZERO); usize::from(rows)];
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

    /// Notes which rows have changed.
    fn look(&mut self) {
        self.seen = self.now;
        for row in 0..u16::try_from(self.shown.len()).unwrap_or(u16::MAX) {
            let spans = self.spans(row);
            let (old, since) = &mut self.shown[usize::from(row)];
            if *old != spans {
                let spans = std::mem::replace(old, spans);
                let from = std::mem::replace(since, self.now);
                self.lines.push(Line { row, spans, from, until: Some(self.now) });
            }
        }
    }

    /// A row as pieces of one look; blanks at its end left out.
    fn spans(&self, row: u16) -> Vec<Span> {
        let screen = self.parser.screen();
        let mut spans: Vec<Span> = Vec::new();
        for column in 0..screen.size().1 {
            let Some(cell) = screen.cell(row, column) else { continue };
            if cell.is_wide_continuation() {
                continue;
            }
            let (style, text) = (style(cell), if cell.has_contents() { cell.contents() } else { " " });
            match spans.last_mut() {
                Some(span) if span.style == style => span.text.push_str(text),
                _ => spans.push(Span { column, text: text.to_owned(), style }),
            }
        }
        while let Some(last) = spans.last_mut() {
            last.text.truncate(last.text.trim_end().len());
            if !last.text.is_empty() {
                break;
            }
            spans.pop();
        }
        // Blanks between pieces need no piece of their own.
        spans.retain(|span| !span.text.trim().is_empty());
        spans
    }

    /// The session, with its end shown for some time.
    pub(super) fn finish(mut self, end: Duration) -> Recording {
        self.look();
        let (rows, columns) = self.parser.screen().size();
        let last = self.shown.into_iter().zip(0..).map(|((spans, from), row)| Line {
            row,
            spans,
            from,
            until: None,
        });
        let mut lines = self.lines;
        lines.extend(last);
        lines.retain(|line| !line.spans.is_empty() && line.until != Some(line.from));
        Recording { rows, columns, lines, length: self.now + end }
    }
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
                (0, "one".to_owned(), second, Some(2 * second)),
                (0, "one two".to_owned(), 2 * second, None),
                (1, "red plain".to_owned(), 2 * second, None),
            ]
        );
        assert_eq!(recording.lines[2].spans[0].style.color, Some(1));
        assert_eq!((recording.lines[2].spans[1].column, recording.length), (3, 3 * second));
    }
}
