//! [`ToolParser`]: takes calls out of a text while it is being generated.

use super::ToolFormat;
use super::call::CallScanner;

/// A part of a text with calls in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text that belongs to no call; never empty.
    Text(String),
    /// A call begins.
    Call {
        /// Its number, from 0.
        index: usize,
        /// The function.
        name: String,
    },
    /// A part of the call's arguments, as JSON; never empty.
    Arguments {
        /// The number of the call.
        index: usize,
        /// The part.
        json: String,
    },
}

/// What surrounds a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Around {
    /// Nothing: only a function of the request makes it a call.
    Nothing,
    /// Only a mark before it.
    Mark,
    /// A begin and an end tag.
    Tags,
    /// A list.
    List,
}

#[derive(Debug)]
enum State {
    /// Ordinary text.
    Text,
    /// Behind a mark, before a call.
    Marked,
    /// In the name of a function, before its arguments.
    Name(String),
    /// In a call.
    Call(Box<CallScanner>, Around),
    /// Behind a call.
    Behind(Around),
    /// Nothing is wanted any more.
    Closed,
}

/// Takes calls out of a text, whatever the chunks in which it comes. What looked like a call and is none comes out as text.
#[derive(Debug)]
pub struct ToolParser {
    format: ToolFormat,
    names: Vec<String>,
    single: bool,
    state: State,
    /// Text that may become something else: white space before a call, the beginning of a mark.
    held: String,
    /// The text of the call under way, while it may still turn out to be none.
    raw: String,
    /// Bytes of its arguments that were passed on; `None` while it is not certain.
    sent: Option<usize>,
    /// Something other than white space has come.
    begun: bool,
    calls: usize,
    events: Vec<ToolEvent>,
}

impl ToolParser {
    /// Expects calls of this form; `names` are the functions of the request.
    pub fn new(format: ToolFormat, names: Vec<String>) -> Self {
        Self {
            format,
            names,
            single: false,
            state: State::Text,
            held: String::new(),
            raw: String::new(),
            sent: None,
            begun: false,
            calls: 0,
            events: Vec::new(),
        }
    }

    /// Takes one call only; what follows it is dropped.
    #[must_use]
    pub fn single(mut self) -> Self {
        self.single = true;
        self
    }

    /// Expects a text that [`ToolFormat::grammar`] allows.
    #[must_use]
    pub fn forced(mut self) -> Self {
        if self.format == ToolFormat::Mistral {
            self.state = State::Marked;
        }
        self
    }

    /// How many calls have begun.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Whether nothing that may follow is wanted.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes the next piece of the text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        for c in text.chars() {
            self.take(c);
        }
        std::mem::take(&mut self.events)
    }

    /// Hears of a special token, which the text lacks.
    pub fn special(&mut self, spelling: &str) -> Vec<ToolEvent> {
        if self.format.marks().contains(&spelling) { self.push(spelling) } else { Vec::new() }
    }

    /// Ends the text and returns what was held back.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let raw = std::mem::take(&mut self.raw);
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Call(..) | State::Name(_) | State::Marked if self.sent.is_none() => self.text(&raw),
            State::Behind(_) => {
                self.held.clear();
                self.text(&raw);
            }
            _ => {}
        }
        let held = std::mem::take(&mut self.held);
        if self.calls == 0 || !held.trim().is_empty() {
            self.text(&held);
        }
        std::mem::take(&mut self.events)
    }

    fn text(&mut self, text: &str) {
        match self.events.last_mut() {
            _ if text.is_empty() => {}
            Some(ToolEvent::Text(last)) => last.push_str(text),
            _ => self.events.push(ToolEvent::Text(text.to_owned())),
        }
    }

    fn take(&mut self, c: char) {
        match &mut self.state {
            State::Closed => {}
            State::Text => {
                self.held.push(c);
                self.look();
            }
            State::Marked => {
                self.raw.push(c);
                self.behind_mark(c);
            }
            State::Name(name) => {
                self.raw.push(c);
                if c == '{' {
                    let name = name.trim_end().trim_end_matches("[ARGS]").trim().to_owned();
                    self.state = State::Call(Box::new(CallScanner::arguments_of(name)), Around::Mark);
                    self.scan(c);
                } else if c == '\n' || name.len() > 256 {
                    self.give_up();
                } else {
                    name.push(c);
                }
            }
            State::Call(..) => {
                if self.sent.is_none() {
                    self.raw.push(c);
                }
                self.scan(c);
            }
            State::Behind(around) => {
                let around = *around;
                self.behind_call(c, around);
            }
        }
    }

    /// Decides about the text that is held.
    fn look(&mut self) {
        let mark = self.format.marks()[0];
        loop {
            let open = self.held.trim_start();
            let bare = !self.begun && self.format != ToolFormat::Mistral && open.starts_with('{');
            if open.is_empty() || (mark.starts_with(open) && open.len() < mark.len()) {
                return;
            }
            self.begun = true;
            if bare {
                self.raw = std::mem::take(&mut self.held);
                self.begin(Around::Nothing);
                return;
            }
            if open == mark {
                self.raw = std::mem::take(&mut self.held);
                self.sent = None;
                self.state = State::Marked;
                return;
            }
            // Whatever is held, no mark begins at its first character.
            let first = open.chars().next().map_or(0, char::len_utf8);
            let rest = self.held.split_off(self.held.len() - open.len() + first);
            let text = std::mem::replace(&mut self.held, rest);
            self.text(&text);
        }
    }

    /// Begins a call with the character that opens it.
    fn begin(&mut self, around: Around) {
        self.sent = None;
        self.state = State::Call(Box::new(CallScanner::new()), around);
        self.scan('{');
    }

    fn behind_mark(&mut self, c: char) {
        let around = if self.format == ToolFormat::Tagged { Around::Tags } else { Around::Mark };
        match (self.format, c) {
            _ if c.is_whitespace() => {}
            (_, '{') => self.begin(around),
            (ToolFormat::Mistral, '[') => self.state = State::Behind(Around::List),
            (ToolFormat::Mistral, _) if c.is_alphanumeric() || c == '_' => {
                self.state = State::Name(c.to_string());
            }
            _ => self.give_up(),
        }
    }

    /// What was read since the mark is text after all.
    fn give_up(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        self.text(&raw);
        self.state = State::Text;
    }

    /// Takes a character of a call.
    fn scan(&mut self, c: char) {
        let State::Call(scanner, around) = &mut self.state else { return };
        let around = *around;
        let failed = scanner.push(c).is_err();
        let done = scanner.is_done();
        if self.sent.is_none() {
            let named = scanner.name().filter(|_| scanner.has_arguments() || done);
            let unmarked = around == Around::Nothing;
            let foreign = unmarked && scanner.is_foreign();
            let unknown = named.is_some_and(|name| unmarked && !self.names.iter().any(|n| n == name));
            if failed || foreign || unknown || (done && named.is_none()) {
                self.give_up();
                return;
            }
            if let Some(name) = named {
                self.events.push(ToolEvent::Call { index: self.calls, name: name.to_owned() });
                self.calls += 1;
                self.sent = Some(0);
                self.raw.clear();
            }
        }
        if let Some(sent) = &mut self.sent {
            let State::Call(scanner, _) = &self.state else { return };
            let index = self.calls - 1;
            let missing = done && !scanner.has_arguments();
            let json = if missing { "{}" } else { &scanner.arguments()[*sent..] };
            *sent = scanner.arguments().len();
            match self.events.last_mut() {
                _ if json.is_empty() => {}
                Some(ToolEvent::Arguments { json: last, .. }) => last.push_str(json),
                _ => self.events.push(ToolEvent::Arguments { index, json: json.to_owned() }),
            }
            if failed || done {
                self.sent = None;
                self.state = if self.single { State::Closed } else { State::Behind(around) };
            }
        }
    }

    /// Takes a character behind a call.
    fn behind_call(&mut self, c: char, around: Around) {
        let separators = match around {
            Around::Nothing | Around::Mark => ";,",
            Around::List => ",",
            Around::Tags => "",
        };
        if around == Around::Tags {
            self.held.push(c);
            let [begin, end] = [super::CALL_BEGIN, super::CALL_END];
            let open = self.held.trim_start();
            if open.is_empty() || open != end && (end.starts_with(open) || begin.starts_with(open)) {
                if open == begin {
                    self.raw = std::mem::take(&mut self.held);
                    self.state = State::Marked;
                }
                return;
            }
            self.state = State::Text;
            if open == end {
                self.held.clear();
            } else {
                self.look();
            }
            return;
        }
        // Before the first call of a list, what was read since the mark may still be text.
        let open = !self.raw.is_empty();
        match c {
            _ if c.is_whitespace() || separators.contains(c) => {
                if open {
                    self.raw.push(c);
                }
            }
            '{' => {
                self.raw.push(c);
                self.begin(around);
            }
            ']' if around == Around::List => {
                if open {
                    self.raw.push(c);
                }
                self.give_up();
            }
            _ => {
                self.give_up();
                self.held.push(c);
                self.look();
            }
        }
    }
}
