//! [`Places`]: where an output and what belongs to it lie.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::journal::{Found, Note, found};
use crate::error::CliError;
use crate::output::count;

/// Where an output and what belongs to it lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Places {
    /// The output, once it is whole.
    pub(in crate::commands) output: PathBuf,
    /// The output while it grows.
    pub(in crate::commands) part: PathBuf,
    /// The journal of the run.
    pub(in crate::commands) journal: PathBuf,
}

impl Places {
    /// The places of an output.
    pub(in crate::commands) fn new(output: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = OsString::from(output);
            name.push(ending);
            PathBuf::from(name)
        };
        Self { output: output.to_owned(), part: beside(".part"), journal: beside(".journal") }
    }

    /// What stands in the journal, if there is one with a whole header.
    pub(in crate::commands) fn found<N: Note>(&self) -> Option<Found<N>> {
        std::fs::read(&self.journal).ok().and_then(|bytes| found(&bytes))
    }

    /// Opens the growing output, new if need be.
    ///
    /// # Errors
    /// If it cannot be.
    pub(in crate::commands) fn open_part(&self) -> Result<File, CliError> {
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&self.part);
        opened.map_err(|error| failed(&self.part, &error))
    }

    /// What is said to who would begin anew where a run was interrupted when so many rows were done.
    pub(in crate::commands) fn interrupted(&self, rows: u64) -> CliError {
        let (name, rows) = (self.output.display(), count(rows));
        CliError::usage(format!("{name}: a run was interrupted there when {rows} rows were done"))
            .hint("--resume goes on where it stopped, --force begins again")
    }

    /// Removes the journal, once the output has its name: that must be on the disk before.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(in crate::commands) fn remove_journal(&self) -> Result<(), CliError> {
        let folder = self.output.parent().filter(|folder| !folder.as_os_str().is_empty());
        sync_folder(folder.unwrap_or(Path::new(".")));
        std::fs::remove_file(&self.journal).map_err(|error| failed(&self.journal, &error))
    }
}

/// Brings the names in a folder to the disk, where systems can.
fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        // Where folders cannot be opened there is nothing to be done.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Why a file cannot be written.
pub(in crate::commands) fn failed(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("cannot write {}: {error}", path.display()))
}
