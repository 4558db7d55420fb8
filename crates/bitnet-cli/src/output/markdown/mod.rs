//! [`Markdown`]: text on a terminal while it is being written, its Markdown as styles.
//!
//! A line is read as far as it is certain what it is ([`line`]) and what is in it ([`inline`]); what may still change its
//! meaning waits, so nothing that was written is ever taken back. [`wrap`] cuts long lines between words, [`table`] draws
//! tables when they are complete. Control characters are left out: a model must not steer the terminal.

mod inline;
mod line;
mod table;
mod wrap;

use console::Style;

use self::inline::{Look, Piece};
use self::line::{Begin, begin, fence};
use self::wrap::Wrap;

/// Spaces before the lines of a code block.
const CODE_INDENT: &str = "    ";

/// What the line under way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not known yet.
    Start,
    /// Text in a look.
    Text(Look),
    /// A line of a code block that ends at such a fence; whether it has begun to show.
    Code { fence: (char, usize), shows: bool },
}

/// Takes text and gives what to write to a terminal.
#[derive(Debug)]
pub(crate) struct Markdown {
    /// Whether marks are understood; otherwise lines are only cut.
    styles: bool,
    wrap: Wrap,
    state: State,
    /// What waits of the line under way.
    held: String,
    /// What stands before it on the line.
    previous: Option<char>,
    table: Vec<String>,
}

impl Markdown {
    /// With `styles`, or only cut into lines of this width.
    pub(crate) fn new(width: Option<usize>, styles: bool) -> Self {
        let state = if styles { State::Start } else { State::Text(Look::default()) };
        let (held, previous, table) = (String::new(), None, Vec::new());
        Self { styles, wrap: Wrap::new(width), state, held, previous, table }
    }

    /// Takes more text.
    pub(crate) fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut parts = text.split('\n');
        if let Some(first) = parts.next() {
            self.part(&mut out, first, false);
        }
        for part in parts {
            self.part(&mut out, "", true);
            self.part(&mut out, part, false);
        }
        out
    }

    /// Ends the text.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        if !self.held.is_empty() || self.state != State::Start {
            self.part(&mut out, "", true);
            out.pop();
        }
        self.draw_table(&mut out);
        self.wrap.flush(&mut out);
        out
    }

    /// Takes a part of a line, or its end.
    fn part(&mut self, out: &mut String, text: &str, end: bool) {
        self.held.extend(text.chars().filter_map(|c| match c {
            '\t' => Some('\t'),
            c if c.is_control() => None,
            c => Some(c),
        }));
        match self.state {
            State::Start => self.start(out, end),
            State::Text(look) => self.inline(out, look, end),
            State::Code { fence, shows } => self.code(out, fence, shows, end),
        }
    }

    /// Finds out what the line is.
    fn start(&mut self, out: &mut String, end: bool) {
        let held = std::mem::take(&mut self.held);
        let found = begin(&held, end);
        if !matches!(found, Begin::Wait | Begin::Row) {
            self.draw_table(out);
        }
        let (look, rest) = match found {
            Begin::Wait => {
                self.held = held;
                return;
            }
            Begin::Row => return self.table.push(held),
            Begin::Blank => return out.push('\n'),
            Begin::Rule => {
                let width = self.wrap.width().unwrap_or(40).min(40);
                *out += &styled(&"─".repeat(width), Look { address: true, ..Look::default() });
                return out.push('\n');
            }
            Begin::Fence(language) => {
                if !language.is_empty() {
                    let look = Look { address: true, ..Look::default() };
                    *out += &format!("{CODE_INDENT}{}\n", styled(language, look));
                }
                let fence = fence(&held).unwrap_or(('`', 3));
                self.state = State::Code { fence, shows: false };
                return;
            }
            Begin::Heading(level, rest) => (Look { bold: true, link: level == 1, ..Look::default() }, rest),
            Begin::Item(indent, mark, rest) => {
                let mark = if matches!(mark, "-" | "*" | "+") { "•" } else { mark };
                self.prefix(out, &format!("{}{mark} ", " ".repeat(indent)), &Style::new());
                (Look::default(), rest)
            }
            Begin::Quote(rest) => {
                self.prefix(out, "│ ", &Style::new().dim().force_styling(true));
                (Look { italic: true, ..Look::default() }, rest)
            }
            Begin::Text(indent, rest) => {
                self.prefix(out, &" ".repeat(indent), &Style::new());
                (Look::default(), rest)
            }
        };
        self.held = rest.to_owned();
        self.state = State::Text(look);
        self.inline(out, look, end);
    }

    /// Writes what stands before the text of a line, whose further lines hang below it.
    fn prefix(&mut self, out: &mut String, text: &str, style: &Style) {
        self.wrap.text(out, text, style);
        self.wrap.hang(out);
    }

    /// Writes what is certain of a line of text.
    fn inline(&mut self, out: &mut String, look: Look, end: bool) {
        let mut pieces = Vec::new();
        let read = if self.styles {
            inline::scan(&self.held, self.previous, look, end, &mut pieces)
        } else {
            pieces.push(Piece { text: self.held.clone(), look });
            self.held.len()
        };
        self.previous = self.held[..read].chars().next_back().or(self.previous);
        self.held.drain(..read);
        for piece in pieces {
            self.wrap.text(out, &piece.text, &style(piece.look));
        }
        if end {
            self.wrap.newline(out);
            self.previous = None;
            self.state = if self.styles { State::Start } else { State::Text(Look::default()) };
        }
    }

    /// Writes a line of code, unless it ends the block.
    fn code(&mut self, out: &mut String, open: (char, usize), shows: bool, end: bool) {
        let may_close = |line: &str| {
            let text = line.trim_start_matches(' ');
            text.trim_end().chars().all(|c| c == open.0)
        };
        if !shows && may_close(&self.held) {
            if !end {
                return;
            }
            if fence(&self.held).is_some_and(|(_, length)| length >= open.1) {
                self.held.clear();
                self.state = State::Start;
                return;
            }
        }
        if !shows && !self.held.is_empty() {
            *out += CODE_INDENT;
        }
        if !self.held.is_empty() {
            *out += &styled(&self.held, Look { code: true, ..Look::default() });
            self.held.clear();
        }
        self.state = State::Code { fence: open, shows: !end };
        if end {
            out.push('\n');
        }
    }

    fn draw_table(&mut self, out: &mut String) {
        if !self.table.is_empty() {
            *out += &table::draw(&std::mem::take(&mut self.table), self.wrap.width());
        }
    }
}

fn style(look: Look) -> Style {
    let on = |style: Style, on: bool, f: fn(Style) -> Style| if on { f(style) } else { style };
    let mut style = Style::new().force_styling(true);
    style = on(style, look.bold, Style::bold);
    style = on(style, look.italic, Style::italic);
    style = on(style, look.strike, Style::strikethrough);
    style = on(style, look.code, Style::cyan);
    style = on(style, look.link, Style::underlined);
    on(style, look.address, Style::dim)
}

fn styled(text: &str, look: Look) -> String {
    style(look).apply_to(text).to_string()
}

#[cfg(test)]
mod tests;
