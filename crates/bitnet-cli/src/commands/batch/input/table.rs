//! Rows of CSV and TSV files.

use std::collections::HashSet;
use std::io::Read;

use csv::ByteRecord;
use serde_json::{Map, Value};

use super::lines::text;
use super::{Content, Entry, Reader, unreadable};
use crate::error::CliError;

/// Begins to read a table: the first line has the names of its columns. An empty file is a table without rows.
pub(super) fn read(name: &str, bytes: Box<dyn Read + Send>, delimiter: u8) -> Result<Reader, CliError> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(bytes);
    let head = reader.byte_headers().map_err(|error| unreadable(name, &error))?.clone();
    let columns = columns(name, &head)?;
    let rows = Records {
        name: name.to_owned(),
        columns: columns.clone(),
        reader,
        record: ByteRecord::new(),
        ended: false,
    };
    Ok(Reader { columns: Some(columns), entries: Box::new(rows) })
}

/// The names of the columns, each once.
fn columns(name: &str, head: &ByteRecord) -> Result<Vec<String>, CliError> {
    let mut seen = HashSet::new();
    let mut columns = Vec::with_capacity(head.len());
    for (i, bytes) in head.iter().enumerate() {
        let column = text(bytes.to_vec())
            .map_err(|error| CliError::failed(format!("{name}: name of column {}: {error}", i + 1)))?;
        if !seen.insert(column.clone()) {
            return Err(CliError::failed(format!("{name}: two columns are called {column:?}"))
                .hint("the first line must have a name for each column"));
        }
        columns.push(column);
    }
    Ok(columns)
}

struct Records {
    name: String,
    columns: Vec<String>,
    reader: csv::Reader<Box<dyn Read + Send>>,
    record: ByteRecord,
    ended: bool,
}

impl Records {
    fn content(&self) -> Result<Content, String> {
        if self.record.len() != self.columns.len() {
            let (found, wanted) = (self.record.len(), self.columns.len());
            return Err(format!("{found} values, but there are {wanted} columns"));
        }
        let mut fields = Map::new();
        for (column, value) in self.columns.iter().zip(&self.record) {
            let value = text(value.to_vec()).map_err(|error| format!("column {column}: {error}"))?;
            fields.insert(column.clone(), Value::String(value));
        }
        Ok(Content::Record(fields))
    }
}

impl Iterator for Records {
    type Item = Result<Entry, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {
                let place = self.record.position().map(csv::Position::line);
                Some(Ok(Entry { place, content: self.content() }))
            }
            Ok(false) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(unreadable(&self.name, &error)))
            }
        }
    }
}
