//! Putting things in their place at once or not at all: blobs, links to them, references.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;
use crate::error::io;

/// A name beside `path` that nobody else takes.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = (u64::from(std::process::id()) << 16) ^ NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{name}.{:08x}.{ending}", unique & 0xffff_ffff))
}

/// Writes a small file so that readers see the old content or the new one, never a part. Does nothing if the content is
/// there already: a cache may be read-only.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
    }
    let temporary = beside(path, "tmp");
    std::fs::write(&temporary, content).map_err(io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        io("write", path)(error)
    })
}

/// Whether there is a file of this size, links followed.
pub(crate) fn is_there(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

/// Puts `blob` into a snapshot as `pointer`: `depth` folders below the snapshot's own. A relative link, so that the
/// cache can be moved; where there are no links, the blob itself if nothing else needs it (`only_here`), else a copy.
pub(crate) fn place(
    blob: &Path,
    pointer: &Path,
    depth: usize,
    symlinks: bool,
    only_here: bool,
) -> Result<()> {
    let folder = pointer.parent().unwrap_or(pointer);
    std::fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
    let temporary = beside(pointer, "tmp");
    let mut target: PathBuf = std::iter::repeat_n("..", depth + 2).collect();
    target.push("blobs");
    target.push(blob.file_name().unwrap_or_default());
    let placed = if symlinks && link(&target, &temporary).is_ok() {
        std::fs::rename(&temporary, pointer)
    } else if only_here {
        std::fs::rename(blob, pointer)
    } else {
        std::fs::copy(blob, &temporary).and_then(|_| std::fs::rename(&temporary, pointer))
    };
    placed.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        io("put a file into the snapshot as", pointer)(error)
    })
}

#[cfg(unix)]
fn link(target: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(windows)]
fn link(target: &Path, at: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, at)
}

#[cfg(not(any(unix, windows)))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refs/pr/1");
        for content in ["one", "two", "two"] {
            write_atomically(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn blobs_are_linked_moved_or_copied() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blobs/abc");
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(&blob, "content").unwrap();
        let pointer = |name: &str| dir.path().join("snapshots/commit").join(name);
        if cfg!(unix) {
            place(&blob, &pointer("a.json"), 0, true, true).unwrap();
            place(&blob, &pointer("sub/b.json"), 1, true, true).unwrap();
            assert_eq!(std::fs::read_link(pointer("a.json")).unwrap(), Path::new("../../blobs/abc"));
            assert_eq!(std::fs::read_link(pointer("sub/b.json")).unwrap(), Path::new("../../../blobs/abc"));
        }
        place(&blob, &pointer("c.json"), 0, false, false).unwrap();
        assert!(blob.exists());
        place(&blob, &pointer("d.json"), 0, false, true).unwrap();
        assert!(!blob.exists());
        for name in ["c.json", "d.json"] {
            assert!(is_there(&pointer(name), 7) && !is_there(&pointer(name), 8));
        }
    }
}
