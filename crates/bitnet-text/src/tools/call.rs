//! [`CallScanner`]: reads `{"name": .., "arguments": ..}` character by character, so that the arguments can be passed on
//! while they are being written.

/// The text is not such an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotACall;

/// What a field of the object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    /// One that calls may have and nobody needs.
    Known,
    Foreign,
}

/// Where in the object the next character stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Open,
    KeyOrEnd,
    Key,
    Colon,
    Value,
    Inside,
    CommaOrEnd,
    Done,
}

/// Reads one call.
#[derive(Debug)]
pub(super) struct CallScanner {
    place: Place,
    field: Field,
    key: String,
    /// The value being read, as it is written.
    value: String,
    depth: usize,
    in_string: bool,
    escaped: bool,
    name: Option<String>,
    arguments: String,
    /// The arguments have begun, so that what is there of them can be passed on.
    has_arguments: bool,
    foreign: bool,
    /// There is no object around the arguments.
    bare_arguments: bool,
}

impl CallScanner {
    /// Expects the whole object.
    pub(super) fn new() -> Self {
        Self {
            place: Place::Open,
            field: Field::Foreign,
            key: String::new(),
            value: String::new(),
            depth: 0,
            in_string: false,
            escaped: false,
            name: None,
            arguments: String::new(),
            has_arguments: false,
            foreign: false,
            bare_arguments: false,
        }
    }

    /// Expects the arguments of a function whose name is known.
    pub(super) fn arguments_of(name: String) -> Self {
        let (place, field) = (Place::Value, Field::Arguments);
        Self { place, field, name: Some(name), bare_arguments: true, ..Self::new() }
    }

    /// The function, once it is known.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What is there of the arguments.
    pub(super) fn arguments(&self) -> &str {
        &self.arguments
    }

    /// Whether the arguments have begun.
    pub(super) fn has_arguments(&self) -> bool {
        self.has_arguments
    }

    /// Whether a field occurred that no call has.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whether the object is complete.
    pub(super) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Takes the next character.
    pub(super) fn push(&mut self, c: char) -> Result<(), NotACall> {
        let space = c.is_ascii_whitespace();
        self.place = match (self.place, c) {
            (Place::Key | Place::Inside, _) => return self.inside(c),
            (place, _) if space => place,
            (Place::Open, '{') => Place::KeyOrEnd,
            (Place::KeyOrEnd, '"') => {
                self.key.clear();
                Place::Key
            }
            (Place::KeyOrEnd | Place::CommaOrEnd, '}') => Place::Done,
            (Place::Colon, ':') => Place::Value,
            (Place::CommaOrEnd, ',') => Place::KeyOrEnd,
            (Place::Value, _) => return self.begin_value(c),
            _ => return Err(NotACall),
        };
        Ok(())
    }

    fn begin_value(&mut self, c: char) -> Result<(), NotACall> {
        self.value.clear();
        (self.depth, self.in_string) = match c {
            '"' => (0, true),
            '{' | '[' => (1, false),
            '-' | '0'..='9' | 't' | 'f' | 'n' => (0, false),
            _ => return Err(NotACall),
        };
        if self.field == Field::Name && c != '"' {
            return Err(NotACall);
        }
        if self.field == Field::Arguments && c == '{' {
            (self.has_arguments, self.arguments) = (true, String::new());
        }
        self.place = Place::Inside;
        self.take(c);
        Ok(())
    }

    /// Adds a character to the value, or to the arguments, which need no copy.
    fn take(&mut self, c: char) {
        let passes_on = self.field == Field::Arguments && self.has_arguments;
        if passes_on { self.arguments.push(c) } else { self.value.push(c) }
    }

    /// Takes a character of a name or a value.
    fn inside(&mut self, c: char) -> Result<(), NotACall> {
        if self.place == Place::Key {
            match c {
                '"' => {
                    self.field = field(&self.key);
                    self.foreign |= self.field == Field::Foreign;
                    self.place = Place::Colon;
                }
                '\\' => return Err(NotACall),
                _ => self.key.push(c),
            }
            return Ok(());
        }
        if self.in_string {
            self.take(c);
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => return Ok(()),
            }
            return if !self.in_string && self.depth == 0 { self.end_value() } else { Ok(()) };
        }
        if self.depth == 0 {
            // A number, true, false or null ends before what follows it.
            if c.is_ascii_alphanumeric() || "+-.".contains(c) {
                self.take(c);
                return Ok(());
            }
            self.end_value()?;
            return self.push(c);
        }
        self.take(c);
        match c {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth -= 1,
            _ => {}
        }
        if self.depth == 0 { self.end_value() } else { Ok(()) }
    }

    fn end_value(&mut self) -> Result<(), NotACall> {
        match self.field {
            Field::Name => {
                let name: String = serde_json::from_str(&self.value).map_err(|_| NotACall)?;
                if name.is_empty() {
                    return Err(NotACall);
                }
                self.name = Some(name);
            }
            Field::Arguments if !self.has_arguments => {
                // Some models write the object as a string, and null where there are no arguments.
                let text = serde_json::from_str::<Option<String>>(&self.value).map_err(|_| NotACall)?;
                self.arguments = text.filter(|text| !text.is_empty()).unwrap_or_else(|| "{}".to_owned());
                self.has_arguments = true;
            }
            Field::Arguments | Field::Known | Field::Foreign => {}
        }
        self.place = if self.bare_arguments { Place::Done } else { Place::CommaOrEnd };
        Ok(())
    }
}

fn field(key: &str) -> Field {
    match key {
        "name" => Field::Name,
        "arguments" | "parameters" => Field::Arguments,
        "id" | "type" | "call_id" => Field::Known,
        _ => Field::Foreign,
    }
}
