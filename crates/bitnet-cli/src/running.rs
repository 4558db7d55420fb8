//! Servers of this machine: each tells in a file where it is, and holds a lock as long as it lives.
//!
//! ```text
//! <runtime folder>/bitnet/servers/4711.json   {"pid": 4711, "url": "http://127.0.0.1:8080"}
//! <runtime folder>/bitnet/servers/4711.lock   locked by the process 4711
//! ```
//!
//! A number of a process says little: another one may have it by now. The lock does not lie, as the system takes it back
//! when its holder ends, in whatever way.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::CliError;
use crate::folders;
use crate::output::Notes;

/// A server that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) url: String,
    lock: PathBuf,
}

/// This process as a server; gone when dropped.
#[derive(Debug)]
pub(crate) struct Announcement {
    facts: PathBuf,
    lock: PathBuf,
    // Closing it gives the lock back.
    _held: File,
}

/// Tells where this process listens. Without a place for that, nothing is worse than that `bitnet stop --server` does not find it.
pub(crate) fn announce(url: &str, notes: Notes) -> Option<Announcement> {
    let folder = folder()?;
    let pid = std::process::id();
    announce_in(&folder, pid, url)
        .inspect_err(|error| {
            notes.detail(&format!("`bitnet ps` will not find this server: {}: {error}", folder.display()));
        })
        .ok()
}

/// The servers of this user that run on this machine, the oldest process first.
pub(crate) fn servers() -> Vec<Server> {
    folder().map(|folder| servers_in(&folder)).unwrap_or_default()
}

fn folder() -> Option<PathBuf> {
    Some(folders::runtime(&folders::environment)?.join("servers"))
}

fn announce_in(folder: &Path, pid: u32, url: &str) -> std::io::Result<Announcement> {
    std::fs::create_dir_all(folder)?;
    let (facts, lock) = (folder.join(format!("{pid}.json")), folder.join(format!("{pid}.lock")));
    let held = File::create(&lock)?;
    held.lock()?;
    let announcement = Announcement { facts, lock, _held: held };
    // The lock is there first: whoever reads the file may rely on it.
    let temporary = folder.join(format!("{pid}.tmp"));
    std::fs::write(&temporary, json!({"pid": pid, "url": url}).to_string())?;
    std::fs::rename(&temporary, &announcement.facts)?;
    Ok(announcement)
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.facts);
        let _ = std::fs::remove_file(&self.lock);
    }
}

fn servers_in(folder: &Path) -> Vec<Server> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Some(server) = read(&path) else { continue };
        if server.is_running() {
            found.push(server);
        } else {
            // It was killed, and could not clean up.
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(&server.lock);
        }
    }
    found.sort_by_key(|server| server.pid);
    found
}

fn read(path: &Path) -> Option<Server> {
    let facts: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let pid = u32::try_from(facts["pid"].as_u64()?).ok()?;
    Some(Server { pid, url: facts["url"].as_str()?.to_owned(), lock: path.with_extension("lock") })
}

impl Server {
    /// Whether the process that wrote the file still lives.
    fn is_running(&self) -> bool {
        let Ok(lock) = File::open(&self.lock) else { return false };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Asks it to end, and waits until it did: it finishes what it is answering first.
    ///
    /// # Errors
    /// If it may not be asked.
    pub(crate) fn end(&self) -> Result<(), CliError> {
        let Ok(lock) = File::open(&self.lock) else { return Ok(()) };
        // Nothing is sent to a process that is not known to be the server.
        if !self.is_running() {
            return Ok(());
        }
        self.signal()?;
        lock.lock_shared()
            .map_err(|error| CliError::failed(format!("cannot wait for process {}: {error}", self.pid)))
    }

    #[cfg(unix)]
    fn signal(&self) -> Result<(), CliError> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid else { return Err(CliError::failed(format!("{} is no process", self.pid))) };
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|error| CliError::failed(format!("cannot ask process {} to end: {error}", self.pid)))
    }

    #[cfg(not(unix))]
    fn signal(&self) -> Result<(), CliError> {
        let message = format!(
            "processes cannot be asked to end on this system; press Ctrl-C where process {} runs",
            self.pid
        );
        Err(CliError::failed(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_as_long_as_they_hold_their_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(servers_in(dir.path()), []);
        // Locks are of files that were opened, not of processes: this one holds it, and finds it held.
        let announced = announce_in(dir.path(), 7, "http://127.0.0.1:1").unwrap();
        let found = servers_in(dir.path());
        assert_eq!((found.len(), found[0].pid, found[0].url.as_str()), (1, 7, "http://127.0.0.1:1"));
        drop(announced);
        assert_eq!(servers_in(dir.path()), []);
    }

    #[test]
    fn what_a_killed_server_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("9.json"), "{\"pid\": 9, \"url\": \"http://127.0.0.1:1\"}").unwrap();
        std::fs::write(dir.path().join("9.lock"), "").unwrap();
        std::fs::write(dir.path().join("10.json"), "no JSON").unwrap();
        assert_eq!(servers_in(dir.path()), []);
        assert!(!dir.path().join("9.json").exists() && !dir.path().join("9.lock").exists());
    }
}
