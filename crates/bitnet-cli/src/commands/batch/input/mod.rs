//! Rows of all inputs, one after the other, read as they are needed.
//!
//! `files` finds out which files there are, `lines` cuts bytes into lines, `text`, `jsonl`, `table` and `parquet` read one
//! form each.

mod files;
mod jsonl;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod table;
mod text;

use std::io::{BufReader, Read};
use std::path::PathBuf;

use serde_json::{Map, Value};

pub(super) use self::files::find;
use crate::args::{InputFormat, TextMode};
use crate::error::CliError;

/// The largest row, in bytes: it is held in memory.
pub(super) const LARGEST: u64 = 64 << 20;

/// A file to read, or stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputFile {
    /// None: stdin.
    pub(super) path: Option<PathBuf>,
    /// For people.
    pub(super) name: String,
    pub(super) format: InputFormat,
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// Plain text.
    Text(String),
    /// A JSON object.
    Object(Map<String, Value>),
    /// Values under the columns of a table.
    Record(Map<String, Value>),
}

/// A row of a file. What is wrong with it concerns no other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The line in which it begins, or its number; none where the file is one row.
    pub(super) place: Option<u64>,
    pub(super) content: Result<Content, String>,
}

/// A row of all inputs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// From 1.
    pub(super) number: u64,
    /// The file, for people.
    pub(super) file: String,
    /// See [`Entry::place`].
    pub(super) place: Option<u64>,
    pub(super) content: Result<Content, String>,
}

impl Row {
    /// Where it is: `prompts.txt:12`.
    pub(super) fn source(&self) -> String {
        match self.place {
            Some(place) => format!("{}:{place}", self.file),
            None => self.file.clone(),
        }
    }
}

type Entries = Box<dyn Iterator<Item = Result<Entry, CliError>> + Send>;

/// A file that is being read.
pub(super) struct Reader {
    /// Names of its columns, if it is a table.
    pub(super) columns: Option<Vec<String>>,
    pub(super) entries: Entries,
}

impl InputFile {
    /// Begins to read it.
    ///
    /// # Errors
    /// If it cannot be read, or its first line has no names for columns.
    pub(super) fn open(&self, mode: TextMode) -> Result<Reader, CliError> {
        let rows = |entries: Entries| Ok(Reader { columns: None, entries });
        match self.format {
            InputFormat::Text => rows(text::entries(self.lines()?, mode)),
            InputFormat::Jsonl | InputFormat::Openai => rows(jsonl::entries(self.lines()?)),
            InputFormat::Csv => table::read(&self.name, self.bytes()?, b','),
            InputFormat::Tsv => table::read(&self.name, self.bytes()?, b'\t'),
            #[cfg(feature = "parquet")]
            InputFormat::Parquet => parquet::read(self),
            #[cfg(not(feature = "parquet"))]
            InputFormat::Parquet => Err(no_parquet(&self.name)),
        }
    }

    fn bytes(&self) -> Result<Box<dyn Read + Send>, CliError> {
        match &self.path {
            None => Ok(Box::new(std::io::stdin())),
            Some(path) => {
                let file = std::fs::File::open(path).map_err(|error| unreadable(&self.name, &error))?;
                Ok(Box::new(file))
            }
        }
    }

    fn lines(&self) -> Result<lines::Lines, CliError> {
        Ok(lines::Lines::new(self.name.clone(), Box::new(BufReader::with_capacity(1 << 16, self.bytes()?))))
    }
}

/// Why a file cannot be read.
pub(super) fn unreadable(name: &str, error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("cannot read {name}: {error}"))
}

/// What is said of Parquet files where they cannot be.
#[cfg(not(feature = "parquet"))]
pub(super) fn no_parquet(name: &str) -> CliError {
    CliError::failed(format!("{name}: this build of bitnet has no Parquet"))
        .hint("build it with --features parquet, or use JSONL or CSV")
}

/// The rows of files, one file after the other.
pub(super) struct Rows {
    files: std::vec::IntoIter<InputFile>,
    mode: TextMode,
    open: Option<(String, Entries)>,
    read: u64,
    limit: u64,
}

impl Rows {
    /// At most `limit` rows.
    pub(super) fn new(files: Vec<InputFile>, mode: TextMode, limit: Option<usize>) -> Self {
        let limit = limit.map_or(u64::MAX, |limit| limit as u64);
        Self { files: files.into_iter(), mode, open: None, read: 0, limit }
    }
}

impl Iterator for Rows {
    type Item = Result<Row, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read >= self.limit {
            return None;
        }
        loop {
            if let Some((file, entries)) = &mut self.open
                && let Some(entry) = entries.next()
            {
                self.read += 1;
                let (number, file) = (self.read, file.clone());
                return Some(entry.map(|Entry { place, content }| Row { number, file, place, content }));
            }
            let file = self.files.next()?;
            match file.open(self.mode) {
                Ok(reader) => self.open = Some((file.name, reader.entries)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// The rows of a file with this content.
    fn rows(name: &str, bytes: &[u8], mode: TextMode) -> Vec<(Option<u64>, Result<Content, String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let files = find(&[path], None, true, &[]).unwrap();
        Rows::new(files, mode, None).map(|row| row.unwrap()).map(|row| (row.place, row.content)).collect()
    }

    fn text(text: &str) -> Result<Content, String> {
        Ok(Content::Text(text.to_owned()))
    }

    #[test]
    fn lines_of_any_bytes() {
        let bytes = b"\xef\xbb\xbfone\r\n \n\xff\xfe\nlast";
        let found = rows("a.txt", bytes, TextMode::Line);
        assert_eq!((&found[0], &found[2]), (&(Some(1), text("one")), &(Some(4), text("last"))));
        assert!(found[1].1.as_ref().unwrap_err().contains("not UTF-8"));
        let found = rows("a.txt", bytes, TextMode::Paragraph);
        assert_eq!((found.len(), &found[0]), (2, &(Some(1), text("one"))));
        assert!(found[1].1.as_ref().unwrap_err().contains("not UTF-8"), "a bad line spoils its paragraph");
        assert_eq!(rows("a.txt", b"", TextMode::File)[0].1, Err("the file is empty".to_owned()));
        assert_eq!(rows("a.txt", b"a\n\nb\n", TextMode::File), [(None, text("a\n\nb"))]);
        assert!(rows("a.txt", b"\n\n", TextMode::Paragraph).is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_concerns_no_other() {
        let mut bytes = vec![b'x'; LARGEST as usize + 5];
        bytes.extend_from_slice(b"\nshort\n");
        let found = rows("a.txt", &bytes, TextMode::Line);
        assert!(found[0].1.as_ref().unwrap_err().contains("longer than 64 MiB"));
        assert_eq!(found[1..], [(Some(2), text("short"))]);
    }

    #[test]
    fn tables_with_quotes_and_gaps() {
        let found = rows("a.csv", b"\xef\xbb\xbfa,b\n\"x\ny\",\"1,\"\"2\"\"\"\nz\n,\n", TextMode::Line);
        let record = |a: &str, b: &str| match json!({"a": a, "b": b}) {
            Value::Object(fields) => Ok(Content::Record(fields)),
            other => panic!("{other}"),
        };
        assert_eq!(found[0], (Some(2), record("x\ny", "1,\"2\"")));
        assert_eq!((found[1].0, found[1].1.is_err()), (Some(4), true));
        assert_eq!(found[2], (Some(5), record("", "")));
        assert_eq!(rows("a.tsv", b"a\tb\nx,\ty\n", TextMode::Line)[0].1, record("x,", "y"));
        let file = |bytes: &[u8]| table::read("t", Box::new(std::io::Cursor::new(bytes.to_vec())), b',');
        assert!(file(b"a,a\n").is_err() && file(b"a,\xff\n").is_err());
        assert_eq!(file(b"").unwrap().columns, Some(vec![]));
    }

    #[test]
    fn files_are_told_apart_by_their_endings() {
        let folder = tempfile::tempdir().unwrap();
        let format = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            find(&[path], None, true, &[]).map(|files| files[0].format).map_err(|error| format!("{error:?}"))
        };
        let request = r#"{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}"#;
        assert_eq!(format("a.jsonl", request), Ok(InputFormat::Openai));
        assert_eq!(format("b.jsonl", "{\"custom_id\": \"a\"}"), Ok(InputFormat::Jsonl));
        assert_eq!(format("c.NDJSON", "broken"), Ok(InputFormat::Jsonl));
        assert_eq!(format("d.tab", ""), Ok(InputFormat::Tsv));
        assert_eq!(format("e.rst", ""), Ok(InputFormat::Text));
        assert!(format("f.json", "[]").unwrap_err().contains("jq"));
        assert!(find(&["-".into(), "-".into()], None, true, &[]).is_err());
        let own = folder.path().join("e.rst");
        assert!(find(std::slice::from_ref(&own), None, true, std::slice::from_ref(&own)).is_err());
        assert!(find(&[Path::new("/none/*.csv").to_owned()], None, true, &[]).is_err());
    }
}
