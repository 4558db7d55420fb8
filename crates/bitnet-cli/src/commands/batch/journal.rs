//! [`Journal`]: what an interrupted run had done, so that it can go on.
//!
//! Lines of a checksum and JSON: first a header that says which run it is, then, each time when results have reached the disk,
//! how far it is. A line counts if its checksum fits; the first that does not, and what follows it, was being written when
//! the run was interrupted, and is cut off. Every line is on the disk before anything that relies on it happens.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::outcome::Totals;
use super::survey::hex;
use crate::error::CliError;

/// The form of the file; another form gets another number.
const VERSION: u64 = 1;

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// What became of the rows so far.
    pub(super) totals: Totals,
    /// Bytes of results.
    pub(super) bytes: u64,
    /// A hash of the rows that were read for them.
    pub(super) rows_hash: String,
    /// Whether the results are whole, end included.
    pub(super) complete: bool,
}

/// A journal that is written to, locked against other runs.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    name: String,
}

/// What stands in a journal.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) header: Value,
    /// At least one, the last one the furthest; the first is the beginning.
    pub(super) marks: Vec<Mark>,
    /// Where the valid lines end, mark by mark.
    ends: Vec<u64>,
}

impl Journal {
    /// Opens the file, new if need be, and locks it; gives what stands in it, if there is a whole header.
    ///
    /// # Errors
    /// If it cannot be, or another run has it.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Found>), CliError> {
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
    pub(super) fn begin(&mut self, header: &Value) -> Result<(), CliError> {
        self.cut(0)?;
        self.append(header)
    }

    /// Goes on behind the mark of this number.
    pub(super) fn go_on(&mut self, found: &Found, mark: usize) -> Result<(), CliError> {
        self.cut(found.ends[mark])
    }

    /// Writes down how far the run is.
    pub(super) fn mark(&mut self, mark: &Mark) -> Result<(), CliError> {
        let Mark { totals, bytes, rows_hash, complete } = mark;
        self.append(&json!({
            "rows": totals.rows,
            "failed": totals.failed,
            "prompt_tokens": totals.prompt_tokens,
            "generated_tokens": totals.generated_tokens,
            "bytes": bytes,
            "rows_hash": rows_hash,
            "complete": complete,
        }))
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
pub(super) fn found(bytes: &[u8]) -> Option<Found> {
    let mut end = 0;
    let mut values = bytes.split_inclusive(|&byte| byte == b'\n').map_while(|line| {
        end += line.len() as u64;
        let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let (sum, text) = line.split_once(' ')?;
        let value: Value = (sum == checksum(text)).then(|| serde_json::from_str(text).ok())??;
        Some((value, end))
    });
    let (header, end) = values.next()?;
    let (mut marks, mut ends) = (vec![Mark::default()], vec![end]);
    for (value, end) in values {
        let count = |name: &str| value[name].as_u64();
        let mark = || {
            let totals = Totals {
                rows: count("rows")?,
                failed: count("failed")?,
                prompt_tokens: count("prompt_tokens")?,
                generated_tokens: count("generated_tokens")?,
            };
            let rows_hash = value["rows_hash"].as_str()?.to_owned();
            Some(Mark { totals, bytes: count("bytes")?, rows_hash, complete: value["complete"].as_bool()? })
        };
        marks.push(mark()?);
        ends.push(end);
    }
    Some(Found { header, marks, ends })
}

/// What makes a run the same run: the header of its journal.
pub(super) fn header(inputs: &Value, settings: &Value, model: &Value, seed: u64, created: u64) -> Value {
    json!({
        "bitnet_batch": VERSION,
        "version": env!("CARGO_PKG_VERSION"),
        "inputs": inputs,
        "model": model,
        "settings": settings,
        "seed": seed,
        "created": created,
    })
}

/// The first difference between two headers that matters: where, and the values.
pub(super) fn difference(was: &Value, is: &Value) -> Option<String> {
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
    use super::*;

    fn mark(rows: u64) -> Mark {
        let totals = Totals { rows, failed: 1, prompt_tokens: 2, generated_tokens: 3 };
        Mark { totals, bytes: rows * 10, rows_hash: format!("h{rows}"), complete: false }
    }

    fn header_with(seed: u64) -> Value {
        header(&json!([{"path": "a"}]), &json!({"chat": true}), &json!({"name": "m"}), seed, 5)
    }

    #[test]
    fn a_journal_is_read_up_to_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.journal");
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert!(found.is_none());
        journal.begin(&header_with(7)).unwrap();
        journal.mark(&mark(1)).unwrap();
        journal.mark(&mark(2)).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        // Cut off anywhere, it is what it was after some line.
        for length in (0..whole.len()).step_by(29).chain([whole.len() - 1, whole.len()]) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|&&byte| byte == b'\n').count();
            let (mut journal, found) = Journal::open(&path).unwrap();
            let Some(found) = found else {
                assert_eq!(lines, 0);
                continue;
            };
            assert_eq!((&found.header, found.marks.len()), (&header_with(7), lines));
            assert_eq!(found.marks[1..], [mark(1), mark(2)][..lines - 1]);
            journal.go_on(&found, lines - 1).unwrap();
            journal.mark(&mark(9)).unwrap();
            drop(journal);
            let (_, found) = Journal::open(&path).unwrap();
            assert_eq!(found.unwrap().marks.last(), Some(&mark(9)));
        }
        // A flipped bit ends it as well.
        let mut bad = whole.clone();
        let last = bad.len() - 5;
        bad[last] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1.unwrap().marks.len(), 2);
    }

    #[test]
    fn two_runs_do_not_write_to_one_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.journal");
        let _first = Journal::open(&path).unwrap();
        assert!(Journal::open(&path).is_err());
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
