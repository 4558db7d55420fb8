//! [`StopStrings`]: ends a stream of text at the first of several strings. Text that may be the beginning of one is held
//! back until that is decided.

/// What [`StopStrings::push`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that belongs to the result.
    pub emit: String,
    /// The stop string that ended the text. Everything after it is dropped, in this and all later chunks.
    pub matched: Option<String>,
}

/// Watches a text for stop strings, whatever the chunks in which it comes.
///
/// The text ends as soon as a stop string is complete; if several are complete at the same character, the longest
/// counts. What is emitted is everything before the place where that string begins.
#[derive(Clone, Debug)]
pub struct StopStrings {
    strings: Vec<Watched>,
    /// The end of the text so far that is not emitted: as long as the longest match under way.
    held: String,
    matched: Option<String>,
}

/// A string that is looked for in a stream of bytes, with the state of the search (Knuth, Morris and Pratt's).
#[derive(Clone, Debug)]
pub struct Watched {
    string: String,
    /// For each prefix, by its length - 1: length of the longest shorter prefix that it ends in.
    borders: Vec<usize>,
    /// Bytes of the string that the text so far ends in.
    matched: usize,
}

impl Watched {
    /// Looks for `string`, which must not be empty.
    pub fn new(string: String) -> Self {
        let bytes = string.as_bytes();
        let mut borders = vec![0; bytes.len()];
        let mut length = 0;
        for end in 1..bytes.len() {
            length = extend(bytes, &borders, length, bytes[end]);
            borders[end] = length;
        }
        Self { string, borders, matched: 0 }
    }

    /// The string.
    pub fn string(&self) -> &str {
        &self.string
    }

    /// How many bytes of the string the text so far ends in.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Begins a new text.
    pub fn reset(&mut self) {
        self.matched = 0;
    }

    /// Takes the next byte of the text; returns whether the string is complete. After that a new text must
    /// [begin](Self::reset).
    pub fn push(&mut self, byte: u8) -> bool {
        self.matched = extend(self.string.as_bytes(), &self.borders, self.matched, byte);
        self.matched == self.string.len()
    }
}

/// Length of the longest prefix of `string` that a text ends in after `byte`, if it ended in `length` bytes of it
/// before. `length` is less than the string's.
fn extend(string: &[u8], borders: &[usize], mut length: usize, byte: u8) -> usize {
    while length > 0 && string[length] != byte {
        length = borders[length - 1];
    }
    length + usize::from(string[length] == byte)
}

impl StopStrings {
    /// Watches for these strings. Empty ones are ignored.
    pub fn new(strings: Vec<String>) -> Self {
        let strings = strings.into_iter().filter(|string| !string.is_empty()).map(Watched::new).collect();
        Self { strings, held: String::new(), matched: None }
    }

    /// Takes the next chunk of the text. After a match every further chunk is dropped and the match reported again.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.matched.is_some() {
            return StopOutcome { emit: String::new(), matched: self.matched.clone() };
        }
        self.held.push_str(text);
        let before = self.held.len() - text.len();
        for (index, byte) in text.bytes().enumerate() {
            let mut longest: Option<&Watched> = None;
            for watched in &mut self.strings {
                if watched.push(byte) && longest.is_none_or(|other| other.string.len() < watched.string.len())
                {
                    longest = Some(watched);
                }
            }
            if let Some(watched) = longest {
                let mut emit = std::mem::take(&mut self.held);
                emit.truncate(before + index + 1 - watched.string.len());
                self.matched = Some(watched.string.clone());
                return StopOutcome { emit, matched: self.matched.clone() };
            }
        }
        let under_way = self.strings.iter().map(|watched| watched.matched).max().unwrap_or(0);
        let keep_from = self.held.len() - under_way;
        let held = self.held.split_off(keep_from);
        StopOutcome { emit: std::mem::replace(&mut self.held, held), matched: None }
    }

    /// Ends the text: returns what was held back, unless a stop string has matched.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
