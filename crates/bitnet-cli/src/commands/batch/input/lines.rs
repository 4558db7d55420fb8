//! [`Lines`]: lines of any bytes, one at a time, in bounded memory.

use std::io::{BufRead, Read};

use super::{LARGEST, unreadable};
use crate::error::CliError;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// Its text, or why it has none.
    pub(super) text: Result<String, String>,
}

/// The lines of a file. A byte order mark before the first is left out, as are carriage returns at ends.
pub(super) struct Lines {
    name: String,
    source: Box<dyn BufRead + Send>,
    number: u64,
    ended: bool,
}

impl Lines {
    pub(super) fn new(name: String, source: Box<dyn BufRead + Send>) -> Self {
        Self { name, source, number: 0, ended: false }
    }

    fn read(&mut self) -> std::io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(LARGEST + 1).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let ends = bytes.last() == Some(&b'\n');
        if ends {
            bytes.pop();
        }
        let text = if bytes.len() as u64 > LARGEST {
            if !ends {
                self.source.skip_until(b'\n')?;
            }
            Err(format!("the line is longer than {} MiB", LARGEST >> 20))
        } else {
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
            if self.number == 1 && bytes.starts_with("\u{feff}".as_bytes()) {
                bytes.drain(..3);
            }
            text(bytes)
        };
        Ok(Some(Line { number: self.number, text }))
    }
}

/// Bytes as text.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("it is not UTF-8 text: byte {at} begins no character")
    })
}

impl Iterator for Lines {
    type Item = Result<Line, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.read();
        self.ended = !matches!(line, Ok(Some(_)));
        line.map_err(|error| unreadable(&self.name, &error)).transpose()
    }
}
