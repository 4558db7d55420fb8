//! [`Store`]: where results go. A file grows as `OUT.part` beside its journal and gets its name when it is
//! whole; stdout gets results as they come.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mark::Mark;
use super::outcome::Totals;
use super::output::Writer;
use crate::commands::resume::{Journal, Places, failed};
use crate::error::CliError;
use crate::output;

/// Results are brought to the disk so often,
const COMMIT: Duration = Duration::from_millis(250);
/// or when there are so many of them.
const COMMIT_PIECES: usize = 100;

/// What lies there before a run.
#[derive(Debug)]
pub(super) enum Before {
    /// Nothing that matters.
    Nothing,
    /// A run that was interrupted, with its header.
    Interrupted(Value),
    /// A whole output and no interrupted run.
    Whole,
}

/// Looks what lies there, before anything is loaded or computed.
///
/// # Errors
/// If something would be lost, or if nothing can be written there.
pub(super) fn look(places: &Places, resume: bool, force: bool) -> Result<Before, CliError> {
    let name = places.output.display();
    if places.output.is_dir() {
        return Err(CliError::usage(format!("cannot write {name}: it is a folder")));
    }
    let folder = places.output.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(CliError::failed(format!("cannot write {name}: there is no such folder")));
    }
    let mut found = places.found::<Mark>();
    let is_complete = found.as_ref().and_then(|found| found.marks.last()).is_some_and(|mark| mark.complete);
    if is_complete && places.output.is_file() && !places.part.exists() {
        // Only the journal was left to be removed.
        std::fs::remove_file(&places.journal).map_err(|error| failed(&places.journal, &error))?;
        found = None;
    }
    match found {
        Some(found) if resume => Ok(Before::Interrupted(found.header)),
        Some(found) if !force => {
            Err(places.interrupted(found.marks.last().map_or(0, |mark| mark.totals.rows)))
        }
        None if places.output.exists() && resume => Ok(Before::Whole),
        _ if places.output.exists() && !force => {
            Err(CliError::usage(format!("{name} exists"))
                .hint("--force writes over it; or name another file"))
        }
        _ => Ok(Before::Nothing),
    }
}

/// Results on their way out.
#[derive(Debug)]
pub(super) struct Store {
    file: Option<Files>,
    bytes: u64,
    /// Pieces that are not on the disk yet.
    pieces: usize,
    committed: Instant,
}

#[derive(Debug)]
struct Files {
    part: BufWriter<File>,
    journal: Journal,
    places: Places,
}

impl Store {
    /// Results to stdout.
    pub(super) fn stdout() -> Self {
        Self { file: None, bytes: 0, pieces: 0, committed: Instant::now() }
    }

    /// Results to a file. With `resume` what an interrupted run did is kept; gives how far that is.
    ///
    /// # Errors
    /// If it was another run, or if nothing can be written there.
    pub(super) fn file(places: Places, header: &Value, resume: bool) -> Result<(Self, Mark), CliError> {
        let failed = |error: std::io::Error| failed(&places.part, &error);
        let (mut journal, found) = Journal::open::<Mark>(&places.journal)?;
        let mut part = places.open_part()?;
        let mark = match found.filter(|_| resume) {
            Some(found) => {
                journal.check(&found, header)?;
                let length = part.metadata().map_err(failed)?.len();
                // Results reach the disk before their mark, so this is the last one, unless someone cut the file.
                let last = found.marks.iter().rposition(|mark| mark.bytes <= length).unwrap_or(0);
                journal.go_on(&found, last)?;
                found.marks[last].clone()
            }
            None => {
                part.set_len(0).map_err(failed)?;
                journal.begin(header)?;
                Mark::default()
            }
        };
        // What is behind the mark was being written.
        part.set_len(mark.bytes).and_then(|()| part.seek(SeekFrom::End(0))).map_err(failed)?;
        let files = Files { part: BufWriter::with_capacity(1 << 16, part), journal, places };
        Ok((Self { file: Some(files), bytes: mark.bytes, pieces: 0, committed: Instant::now() }, mark))
    }

    /// Whether nothing was written yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds text.
    pub(super) fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes += text.len() as u64;
        self.pieces += 1;
        match &mut self.file {
            None => output::result(text),
            Some(files) => {
                files.part.write_all(text.as_bytes()).map_err(|error| failed(&files.places.part, &error))
            }
        }
    }

    /// Brings what was written to the disk, if that is due, and notes how far the run is.
    pub(super) fn commit_if_due(&mut self, totals: Totals, rows_hash: &str) -> Result<(), CliError> {
        let is_due = self.pieces >= COMMIT_PIECES || self.pieces > 0 && self.committed.elapsed() >= COMMIT;
        if is_due { self.commit(totals, rows_hash, false) } else { Ok(()) }
    }

    /// Brings what was written to the disk and notes how far the run is.
    pub(super) fn commit(&mut self, totals: Totals, rows_hash: &str, complete: bool) -> Result<(), CliError> {
        let Some(Files { part, journal, places }) = &mut self.file else { return Ok(()) };
        part.flush()
            .and_then(|()| part.get_ref().sync_data())
            .map_err(|error| failed(&places.part, &error))?;
        journal.mark(&Mark { totals, bytes: self.bytes, rows_hash: rows_hash.to_owned(), complete })?;
        self.pieces = 0;
        self.committed = Instant::now();
        Ok(())
    }

    /// Gives the whole file its name; the journal is not needed any more.
    pub(super) fn finish(self, writer: &Writer) -> Result<(), CliError> {
        let Some(Files { part, journal, places }) = self.file else { return Ok(()) };
        drop(part);
        writer.finish(&places.part, &places.output)?;
        let removed = places.remove_journal();
        drop(journal);
        removed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(folder: &tempfile::TempDir) -> Places {
        Places::new(&folder.path().join("out.txt"))
    }

    fn totals(rows: u64) -> Totals {
        Totals { rows, ..Totals::default() }
    }

    /// Begins a run of two rows, the second of which is not committed.
    fn interrupted(places: &Places) {
        let (mut store, mark) = Store::file(places.clone(), &json!({"seed": 1}), false).unwrap();
        assert_eq!(mark, Mark::default());
        store.write("one\n").unwrap();
        store.commit(totals(1), "h1", false).unwrap();
        store.write("two\n").unwrap();
    }

    #[test]
    fn what_was_not_committed_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        interrupted(&places);
        assert!(look(&places, false, false).is_err(), "neither --resume nor --force");
        assert!(
            matches!(look(&places, true, false).unwrap(), Before::Interrupted(header) if header["seed"] == 1)
        );
        let (store, mark) = Store::file(places.clone(), &json!({"seed": 1}), true).unwrap();
        assert_eq!((mark.totals.rows, mark.bytes, mark.rows_hash.as_str()), (1, 4, "h1"));
        drop(store);
        assert_eq!(std::fs::read_to_string(&places.part).unwrap(), "one\n");
        assert!(Store::file(places.clone(), &json!({"seed": 2}), true).is_err(), "another run");
        // Results that are gone are made again.
        std::fs::write(&places.part, "on").unwrap();
        assert_eq!(Store::file(places, &json!({"seed": 1}), true).unwrap().1, Mark::default());
    }

    #[test]
    fn a_whole_output_has_its_name_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        let writer =
            Writer::new(crate::args::OutputFormat::Text, false, false, &super::super::survey::Fields::None);
        let writer = writer.unwrap();
        let (mut store, _) = Store::file(places.clone(), &json!({}), false).unwrap();
        store.write("one\n").unwrap();
        store.commit(totals(1), "h1", true).unwrap();
        // Killed here, all that is left is to give it its name.
        let journal = std::fs::read(&places.journal).unwrap();
        drop(store);
        let (store, mark) = Store::file(places.clone(), &json!({}), true).unwrap();
        assert!(mark.complete);
        store.finish(&writer).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(&places.output).unwrap(), "one\n");
        // Killed here, only the journal is left to be removed.
        std::fs::write(&places.journal, journal).unwrap();
        assert!(matches!(look(&places, true, false).unwrap(), Before::Whole));
        assert!(!places.journal.exists());
    }
}
