//! One file: from the Hub to its blob, resumed, verified.
//!
//! Bytes go to `<etag>.incomplete`, under the lock of the blob. What is there of an earlier attempt is hashed and gone on
//! from, by a range request; a server that cannot go on starts again. Only when size and hash are right is the file
//! renamed to its blob.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bitnet_core::MemorySize;

use crate::api::{Api, FileMeta};
use crate::digest::Hasher;
use crate::error::io;
use crate::events::{Event, Observer};
use crate::http::{Answer, broken_off};
use crate::retry::{Attempts, Failure};
use crate::url::without_query;
use crate::{HubError, ModelName, Result};

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// A file that is to come.
pub(crate) struct Job<'a> {
    /// The Hub.
    pub(crate) api: &'a Api,
    /// The repository.
    pub(crate) name: &'a ModelName,
    /// The commit.
    pub(crate) commit: &'a str,
    /// Path in the repository.
    pub(crate) path: &'a str,
    /// What is known of it.
    pub(crate) meta: &'a FileMeta,
    /// Who watches.
    pub(crate) observer: &'a Observer<'a>,
    /// Whether another file has failed, so that this one is of no use now.
    pub(crate) given_up: &'a (dyn Fn() -> bool + Sync),
}

impl Job<'_> {
    /// Fetches the file to `blob` by way of `incomplete`.
    ///
    /// # Errors
    /// If it cannot be fetched or is not what was announced; `blob` is not there then.
    pub(crate) fn fetch(&self, incomplete: &Path, blob: &Path) -> Result<()> {
        let mut partial = Partial::open(incomplete, self.meta)?;
        let (file, size) = (self.path, self.meta.size);
        self.tell(Event::Started { file, resumed: partial.len, size })?;
        let mut attempts = Attempts::new(self.path, &self.api.config, self.observer);
        // One more try from the beginning for content that was wrong, and one for what was there before.
        let mut second_chances = if partial.len > 0 { 2 } else { 1 };
        loop {
            let before = partial.len;
            match self.attempt(&mut partial) {
                Ok(()) => {}
                Err(failure) => {
                    if partial.len > before {
                        attempts.progress();
                    }
                    attempts.pause(failure)?;
                    continue;
                }
            }
            let found = partial.hasher.clone().finish();
            if found == self.meta.digest.hex() {
                return partial.finish(blob);
            }
            partial.restart(self.meta)?;
            let error = HubError::WrongHash {
                file: self.path.to_owned(),
                expected: self.meta.digest.hex().to_owned(),
                found,
            };
            if second_chances == 0 {
                partial.discard();
                return Err(error);
            }
            second_chances -= 1;
            attempts.pause(Failure::passing(error))?;
        }
    }

    fn tell(&self, event: Event<'_>) -> Result<()> {
        if (self.given_up)() || (self.observer)(event).is_break() { Err(HubError::Stopped) } else { Ok(()) }
    }

    /// Reads on from where the file ends, up to its size.
    fn attempt(&self, partial: &mut Partial) -> Result<(), Failure> {
        let size = self.meta.size;
        if partial.len == size {
            return Ok(());
        }
        let mut answer = self.api.open(self.name, self.commit, self.path, partial.len, self.meta)?;
        self.begin(&answer, partial)?;
        let mut reader = answer.body.as_reader();
        let mut buffer = vec![0; CHUNK];
        while partial.len < size {
            let n = match reader.read(&mut buffer) {
                Ok(0) => {
                    let why = "the connection ended early".to_owned();
                    return Err(Failure::passing(HubError::Interrupted { what: self.path.to_owned(), why }));
                }
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken_off(self.path, error)),
            };
            if n as u64 > size - partial.len {
                let found = partial.len + n as u64;
                return Err(HubError::WrongSize { file: self.path.to_owned(), expected: size, found }.into());
            }
            partial.write(&buffer[..n], size)?;
            self.tell(Event::Progress { file: self.path, bytes: partial.len })?;
        }
        Ok(())
    }

    /// Checks that the answer is the part of the file that was asked for, or the whole of it.
    fn begin(&self, answer: &Answer, partial: &mut Partial) -> Result<(), Failure> {
        let size = self.meta.size;
        let bad = |why: String| HubError::BadAnswer { url: without_query(&answer.url).to_owned(), why };
        match answer.status {
            206 => {
                let range = answer.header("content-range").unwrap_or_default();
                if content_range(range)
                    .is_some_and(|(start, total)| start == partial.len && total.is_none_or(|n| n == size))
                {
                    return Ok(());
                }
                let error =
                    bad(format!("its range is {range:?}, asked for was all from {} of {size}", partial.len));
                partial.restart(self.meta)?;
                Err(Failure::passing(error))
            }
            416 => {
                partial.restart(self.meta)?;
                Err(Failure::passing(bad("it has no such range; the file is started again".to_owned())))
            }
            200 => {
                if partial.len > 0 {
                    partial.restart(self.meta)?;
                    self.tell(Event::Progress { file: self.path, bytes: 0 })?;
                }
                match answer.number("content-length") {
                    Some(found) if found != size => {
                        Err(HubError::WrongSize { file: self.path.to_owned(), expected: size, found }.into())
                    }
                    _ => Ok(()),
                }
            }
            status => Err(bad(format!("its status is {status}")).into()),
        }
    }
}

/// Start and total of `bytes 5-9/10`; the total may be unknown.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    match total.trim() {
        "*" => Some((start, None)),
        total => Some((start, Some(total.parse().ok()?))),
    }
}

/// A file in the making with the hash of what is there.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Hasher,
}

impl Partial {
    /// Opens or makes the file, and hashes what is in it.
    fn open(path: &Path, meta: &FileMeta) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(io("open", path))?;
        let len = file.metadata().map_err(io("read", path))?.len();
        let mut partial = Self { path: path.to_owned(), file, len: 0, hasher: meta.digest.hasher(meta.size) };
        if len > meta.size {
            partial.restart(meta)?;
            return Ok(partial);
        }
        let mut buffer = vec![0; CHUNK];
        while partial.len < len {
            match partial.file.read(&mut buffer).map_err(io("read", path))? {
                0 => break,
                n => {
                    partial.hasher.update(&buffer[..n]);
                    partial.len += n as u64;
                }
            }
        }
        Ok(partial)
    }

    /// Forgets all that came.
    fn restart(&mut self, meta: &FileMeta) -> Result<()> {
        self.len = 0;
        self.hasher = meta.digest.hasher(meta.size);
        let start = self.file.seek(SeekFrom::Start(0));
        start.and_then(|_| self.file.set_len(0)).map_err(io("empty", &self.path))
    }

    /// Takes the next bytes of a file of `size`.
    fn write(&mut self, bytes: &[u8], size: u64) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.not_written(size, error))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn not_written(&self, size: u64, error: std::io::Error) -> HubError {
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            let needed = MemorySize::bytes(size.saturating_sub(self.len));
            return HubError::DiskFull { path: self.path.clone(), needed, free: None };
        }
        io("write", &self.path)(error)
    }

    /// Makes the file a blob.
    fn finish(self, blob: &Path) -> Result<()> {
        // The name must not be on the disk before the content is.
        self.file.sync_all().map_err(|error| self.not_written(self.len, error))?;
        drop(self.file);
        std::fs::rename(&self.path, blob).map_err(io("rename to", blob))
    }

    /// Removes the file.
    fn discard(self) {
        drop(self.file);
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let digest = crate::digest::Digest::from_etag(&"0".repeat(40)).unwrap();
        let meta = FileMeta { etag: "0".repeat(40), size: 10, digest };
        let partial = Partial::open(&dir.path().join("a.incomplete"), &meta).unwrap();
        let full = partial.not_written(10, ErrorKind::StorageFull.into());
        assert!(
            matches!(full, HubError::DiskFull { free: None, .. })
                && full.to_string().contains("the disk is full")
        );
        assert!(matches!(partial.not_written(10, ErrorKind::PermissionDenied.into()), HubError::Io { .. }));
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "5-9/10", "bytes 5-9", "bytes x-9/10", "bytes 5-9/x"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
