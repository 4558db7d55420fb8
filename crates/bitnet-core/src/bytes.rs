//! Read-only bytes that stay where they are: mapped files, data in the binary, or owned memory.
//!
//! A [`ByteView`] is a range of such a source; cloning it copies no bytes. This is how tensors point into model files:
//! nothing is read until a page is touched, and pages can be given back with [`ByteView::release`]. What is read only now
//! and then, a row here and there, is better copied by [`ByteView::read_into`], which leaves the mapping untouched: a
//! single touch of a mapped page makes its neighbours resident too.
//!
//! A mapped file that another process truncates while it is used raises SIGBUS on Unix. Files are opened read-only;
//! replace model files by renaming, never by writing over them.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{CoreError, Result};

enum Source {
    Mapped(Mapped),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

/// A mapped file, and the file itself for reads that shall not touch the mapping.
struct Mapped {
    map: memmap2::Mmap,
    file: File,
    path: PathBuf,
}

/// A range of bytes of a mapped file, of static data or of owned memory. Cheap to clone.
#[derive(Clone)]
pub struct ByteView {
    source: Arc<Source>,
    range: Range<usize>,
}

impl ByteView {
    /// Maps a whole file.
    ///
    /// # Errors
    /// [`CoreError::Io`] if the file cannot be opened or mapped (a folder, no permission, ...).
    pub fn map_file(path: &Path) -> Result<Self> {
        let io = |source| CoreError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if meta.is_dir() {
            return Err(io(std::io::Error::new(std::io::ErrorKind::IsADirectory, "is a folder, not a file")));
        }
        if meta.len() == 0 {
            return Ok(Self::from_vec(Vec::new()));
        }
        // SAFETY: the map is read-only and lives as long as the view; truncation by others is documented above.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        let len = map.len();
        let mapped = Mapped { map, file, path: path.to_owned() };
        Ok(Self { source: Arc::new(Source::Mapped(mapped)), range: 0..len })
    }

    /// Views data that is part of the program.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self { range: 0..bytes.len(), source: Arc::new(Source::Static(bytes)) }
    }

    /// Takes over owned bytes.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), source: Arc::new(Source::Owned(bytes)) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        let all: &[u8] = match &*self.source {
            Source::Mapped(mapped) => &mapped.map,
            Source::Static(bytes) => bytes,
            Source::Owned(bytes) => bytes,
        };
        &all[self.range.clone()]
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A part of this view, `start..end` counted from its beginning.
    ///
    /// # Errors
    /// [`CoreError::OutOfRange`] naming `origin` if the part does not lie inside.
    pub fn slice(&self, start: u64, end: u64, origin: &str) -> Result<Self> {
        let len = self.len() as u64;
        if start > end || end > len {
            return Err(CoreError::OutOfRange { origin: origin.to_owned(), start, end, len });
        }
        let base = self.range.start;
        Ok(Self { source: Arc::clone(&self.source), range: base + start as usize..base + end as usize })
    }

    /// Where the view begins in its file or in the data of the program; `None` for memory of its own.
    pub fn offset(&self) -> Option<u64> {
        match &*self.source {
            Source::Mapped(_) | Source::Static(_) => Some(self.range.start as u64),
            Source::Owned(_) => None,
        }
    }

    /// Whether the bytes lie in a mapped file, so that touching them makes pages resident.
    pub fn is_mapped(&self) -> bool {
        matches!(&*self.source, Source::Mapped(_))
    }

    /// Copies `out.len()` bytes from `start` on, counted from the beginning of this view. Those of a mapped file are read
    /// from the file, past the mapping, and do not become resident.
    ///
    /// # Errors
    /// [`CoreError::OutOfRange`] if they do not lie inside, [`CoreError::Io`] if the file cannot be read.
    pub fn read_into(&self, start: usize, out: &mut [u8]) -> Result<()> {
        let end = start.checked_add(out.len()).filter(|&end| end <= self.len());
        let Some(end) = end else {
            let origin = match &*self.source {
                Source::Mapped(mapped) => mapped.path.display().to_string(),
                Source::Static(_) | Source::Owned(_) => "data in memory".to_owned(),
            };
            let (start, len) = (start as u64, self.len() as u64);
            return Err(CoreError::OutOfRange {
                origin,
                start,
                end: start.saturating_add(out.len() as u64),
                len,
            });
        };
        match &*self.source {
            Source::Mapped(mapped) => read_at(&mapped.file, (self.range.start + start) as u64, out)
                .map_err(|source| CoreError::Io { path: mapped.path.clone(), source }),
            Source::Static(_) | Source::Owned(_) => {
                out.copy_from_slice(&self.as_slice()[start..end]);
                Ok(())
            }
        }
    }

    /// Tells the operating system that these pages can be dropped; they are read again when touched.
    /// Keeps resident memory low after weights were repacked. Does nothing for owned memory.
    pub fn release(&self) {
        #[cfg(unix)]
        {
            const PAGE: usize = 4096;
            if matches!(&*self.source, Source::Owned(_)) || self.is_empty() {
                return;
            }
            let bytes = self.as_slice();
            let start = (bytes.as_ptr() as usize).next_multiple_of(PAGE);
            let end = (bytes.as_ptr() as usize + bytes.len()) & !(PAGE - 1);
            if start < end {
                // SAFETY: whole pages inside a read-only, file-backed mapping; dropping them loses nothing.
                unsafe {
                    libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
                }
            }
        }
    }
}

/// Fills `out` from `offset` on without moving the file's position, which other threads share.
#[cfg(unix)]
fn read_at(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

/// As on Unix. (Here the position does move, but nothing relies on it.)
#[cfg(windows)]
fn read_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> std::io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                out = &mut out[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl std::fmt::Debug for ByteView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &*self.source {
            Source::Mapped(_) => "mapped",
            Source::Static(_) => "static",
            Source::Owned(_) => "owned",
        };
        write!(f, "ByteView({kind}, {:?})", self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_slices_and_releases() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let content: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let view = ByteView::map_file(&path).unwrap();
        assert_eq!(view.as_slice(), content);
        let part = view.slice(5000, 15_000, "data").unwrap();
        part.release();
        assert_eq!(part.as_slice(), &content[5000..15_000]);
        assert_eq!(part.slice(10, 20, "data").unwrap().as_slice(), &content[5010..5020]);
        assert!(part.slice(0, 10_001, "data").is_err());
        assert!(part.slice(3, 2, "data").is_err());
        assert!(part.slice(u64::MAX, u64::MAX, "data").is_err());
    }

    #[test]
    fn reads_past_the_mapping() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let content: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let mapped = ByteView::map_file(&path).unwrap();
        assert!(mapped.is_mapped());
        for view in [mapped, ByteView::from_vec(content.clone())] {
            let part = view.slice(5000, 15_000, "data").unwrap();
            let mut out = [0u8; 300];
            part.read_into(9700, &mut out).unwrap();
            assert_eq!(out, content[14_700..15_000]);
            part.read_into(10_000, &mut []).unwrap();
            for start in [9701, 10_001, usize::MAX] {
                assert!(
                    matches!(part.read_into(start, &mut out), Err(CoreError::OutOfRange { .. })),
                    "{start}"
                );
            }
        }
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error_of_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, [7u8; 10_000]).unwrap();
        let view = ByteView::map_file(&path).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
        let error = view.read_into(5000, &mut [0; 10]).unwrap_err();
        assert!(matches!(error, CoreError::Io { .. }) && error.to_string().contains("data"), "{error}");
    }

    #[test]
    fn empty_and_missing_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert!(ByteView::map_file(&path).unwrap().is_empty());
        assert!(ByteView::map_file(dir.path()).unwrap_err().to_string().contains("cannot read"));
        assert!(ByteView::map_file(&dir.path().join("absent")).is_err());
    }
}
