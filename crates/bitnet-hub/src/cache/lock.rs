//! [`BlobLock`]: one process at a time writes a blob.
//!
//! The file and the kind of lock are those of `huggingface_hub`, so that the two wait for each other. The system gives
//! the lock up when its process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::error::io;
use crate::{HubError, Result};

/// How often a lock that another process holds is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// A lock that is held, or that the file system cannot give.
#[derive(Debug)]
pub(crate) struct BlobLock {
    held: bool,
    _file: File,
}

impl BlobLock {
    /// Waits for the lock; `waiting` is called first once another process holds it, and says whether to go on.
    ///
    /// # Errors
    /// If the file cannot be made, or `waiting` says to stop.
    pub(crate) fn wait(path: &Path, waiting: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(lock);
            }
            waiting()?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub(crate) fn attempt(path: &Path) -> Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Others of a group that share a cache must be able to wait, as in Python.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o664);
        let file = options.open(path).map_err(io("open the lock", path))?;
        match file.try_lock() {
            // Whoever held it may have removed the file; then a lock on it protects nothing.
            Ok(()) if is_at(&file, path) => Ok(Some(Self { held: true, _file: file })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) => Ok(Some(Self { held: false, _file: file })),
        }
    }

    /// Whether others are kept out. If not, nothing may be written under a name that others would take.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.held
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// An open file cannot be removed there.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// The error for a blob that another process holds.
pub(crate) fn busy(what: &str) -> HubError {
    HubError::Busy { what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_others_out_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.lock");
        let lock = BlobLock::attempt(&path).unwrap().unwrap();
        assert!(lock.is_exclusive());
        assert!(BlobLock::attempt(&path).unwrap().is_none());
        let stopped = BlobLock::wait(&path, &mut || Err(HubError::Stopped));
        assert!(matches!(stopped, Err(HubError::Stopped)));
        drop(lock);
        assert!(BlobLock::attempt(&path).unwrap().is_some());
    }

    #[test]
    #[cfg(unix)]
    fn a_lock_on_a_removed_file_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.lock");
        let file = File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
    }
}
