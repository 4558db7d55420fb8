//! [`Journal`]: what an interrupted run had done, so that it can go on.
//!
//! Lines of a checksum and JSON: first a header that says which run it is, then, each time when results have reached the disk,
//! how far it is. A line counts if its checksum fits; the first that does not, and what follows it, was being written when
//! the run was interrupted, and is cut off. Every line is on the disk before anything that relies on it happens.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::hex;
use crate::error::CliError;

/// How far a run is, as a line of a journal. The default is the beginning.
pub(in crate::commands) trait Note: Default {
    /// The line.
    fn to_json(&self) -> Value;

    /// What stands in a line; None if it is none.
    fn from_json(line: &Value) -> Option<Self>;
}

/// A journal that is written to, locked against other runs.
#[derive(Debug)]
pub(in crate::commands) struct Journal {
    file: File,
    name: String,
}

/// What stands in a journal.
#[derive(Debug)]
pub(in crate::commands) struct Found<N> {
    pub(in crate::commands) header: Value,
    /// At least one, the last one the furthest; the first is the beginning.
    pub(in crate::commands) marks: Vec<N>,
    /// Where the valid lines end, mark by mark.
    ends: Vec<u64>,
}

impl Journal {
    /// Opens the file, new if need be, and locks it; gives what stands in it, if there is a whole header.
    ///
    /// # Errors
    /// If it cannot be, or another run has it.
    pub(in crate::commands) fn open<N: Note>(path: &Path) -> Result<(Self, Option<Found<N>>), CliError> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| CliError::failed(format!("cannot write {name}: {error}"));
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::failed(format!("{name}: another run is writing there")));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok((Self { file, name }, found(&bytes)))
    }

    /// Begins anew with this header.
    pub(in crate::commands) fn begin(&mut self, header: &Value) -> Result<(), CliError> {
        self.cut(0)?;
        self.append(header)
    }

    /// Checks that what was found is of the run with this header.
    ///
    /// # Errors
    /// What differs.
    pub(in crate::commands) fn check<N>(&self, found: &Found<N>, header: &Value) -> Result<(), CliError> {
        match difference(&found.header, header) {
            None => Ok(()),
            Some(difference) => {
                let message = format!("{} belongs to another run: {difference}", self.name);
                Err(CliError::usage(message)
                    .hint("give the same inputs and flags as before, or begin again with --force"))
            }
        }
    }

    /// Goes on behind the mark of this number.
    pub(in crate::commands) fn go_on<N>(&mut self, found: &Found<N>, mark: usize) -> Result<(), CliError> {
        self.cut(found.ends[mark])
    }

    /// Writes down how far the run is.
    pub(in crate::commands) fn mark(&mut self, mark: &impl Note) -> Result<(), CliError> {
        self.append(&mark.to_json())
    }

    fn cut(&mut self, length: u64) -> Result<(), CliError> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::End(0)));
        cut.map(|_| ()).map_err(|error| self.failed(&error))
    }

    fn append(&mut self, value: &Value) -> Result<(), CliError> {
        let text = value.to_string();
        let line = format!("{} {text}\n", checksum(&text));
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> CliError {
        CliError::failed(format!("cannot write {}: {error}", self.name))
    }
}

fn checksum(text: &str) -> String {
    hex(&digest(&SHA256, text.as_bytes()).as_ref()[..8])
}

/// Reads the lines that are whole.
pub(in crate::commands) fn found<N: Note>(bytes: &[u8]) -> Option<Found<N>> {
    let mut end = 0;
    let mut values = bytes.split_inclusive(|&byte| byte == b'\n').map_while(|line| {
        end += line.len() as u64;
        let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let (sum, text) = line.split_once(' ')?;
        let value: Value = (sum == checksum(text)).then(|| serde_json::from_str(text).ok())??;
        Some((value, end))
    });
    let (header, end) = values.next()?;
    let (mut marks, mut ends) = (vec![N::default()], vec![end]);
    for (value, end) in values {
        // What cannot be understood is of a run of another kind, which its header tells.
        let Some(mark) = N::from_json(&value) else { break };
        marks.push(mark);
        ends.push(end);
    }
    Some(Found { header, marks, ends })
}

/// The first difference between two headers that matters: where, and the values.
fn difference(was: &Value, is: &Value) -> Option<String> {
    fn walk(place: &str, was: &Value, is: &Value) -> Option<String> {
        match (was, is) {
            (Value::Object(was), Value::Object(is)) => {
                let keys = is.keys().chain(was.keys().filter(|key| !is.contains_key(*key)));
                keys.filter(|key| !(place.is_empty() && *key == "created")).find_map(|key| {
                    let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                    walk(&inner, was.get(key).unwrap_or(&Value::Null), is.get(key).unwrap_or(&Value::Null))
                })
            }
            (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
                let mut pairs = was.iter().zip(is).enumerate();
                pairs.find_map(|(i, (was, is))| walk(&format!("{place}[{i}]"), was, is))
            }
            (was, is) if was == is => None,
            (was, is) => {
                let (was, is) = (was.to_string(), is.to_string());
                let short = was.len() <= 60 && is.len() <= 60;
                Some(if short {
                    format!("{place} was {was} and is {is}")
                } else {
                    format!("{place} is another")
                })
            }
        }
    }
    walk("", was, is)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A number of rows.
    #[derive(Debug, Default, PartialEq)]
    struct Rows(u64);

    impl Note for Rows {
        fn to_json(&self) -> Value {
            json!({"rows": self.0})
        }

        fn from_json(line: &Value) -> Option<Self> {
            line["rows"].as_u64().map(Self)
        }
    }

    fn header_with(seed: u64) -> Value {
        json!({"inputs": [{"path": "a"}], "settings": {"chat": true}, "seed": seed, "created": 5})
    }

    #[test]
    fn a_journal_is_read_up_to_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.journal");
        let (mut journal, found) = Journal::open::<Rows>(&path).unwrap();
        assert!(found.is_none());
        journal.begin(&header_with(7)).unwrap();
        journal.mark(&Rows(1)).unwrap();
        journal.mark(&Rows(2)).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        // Cut off anywhere, it is what it was after some line.
        for length in (0..whole.len()).step_by(29).chain([whole.len() - 1, whole.len()]) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|&&byte| byte == b'\n').count();
            let (mut journal, found) = Journal::open::<Rows>(&path).unwrap();
            let Some(found) = found else {
                assert_eq!(lines, 0);
                continue;
            };
            assert_eq!((&found.header, found.marks.len()), (&header_with(7), lines));
            assert_eq!(found.marks[1..], [Rows(1), Rows(2)][..lines - 1]);
            journal.go_on(&found, lines - 1).unwrap();
            journal.mark(&Rows(9)).unwrap();
            drop(journal);
            let (_, found) = Journal::open::<Rows>(&path).unwrap();
            assert_eq!(found.unwrap().marks.last(), Some(&Rows(9)));
        }
        // A flipped bit ends it as well.
        let mut bad = whole.clone();
        let last = bad.len() - 5;
        bad[last] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(Journal::open::<Rows>(&path).unwrap().1.unwrap().marks.len(), 2);
    }

    #[test]
    fn two_runs_do_not_write_to_one_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.journal");
        let _first = Journal::open::<Rows>(&path).unwrap();
        assert!(Journal::open::<Rows>(&path).is_err());
    }

    #[test]
    fn differences_are_named() {
        let mut other = header_with(7);
        other["created"] = json!(9);
        assert_eq!(difference(&header_with(7), &other), None);
        assert_eq!(difference(&header_with(7), &header_with(8)).unwrap(), "seed was 7 and is 8");
        other["settings"]["chat"] = json!(false);
        assert_eq!(difference(&header_with(7), &other).unwrap(), "settings.chat was true and is false");
        other = header_with(7);
        other["inputs"][0]["path"] = json!("b");
        assert!(difference(&header_with(7), &other).unwrap().starts_with("inputs[0].path was \"a\""));
        other["inputs"] = json!([]);
        assert!(difference(&header_with(7), &other).unwrap().starts_with("inputs"));
    }
}
