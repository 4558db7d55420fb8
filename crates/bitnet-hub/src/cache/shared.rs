//! The store that `huggingface_hub` 2 shares between repositories, as far as removing needs it.
//!
//! There `blobs/<etag>` of a repository is a link to `<cache>/blobs/<xx>/<hash>`, and `<hash>.refs` beside that lists the
//! links, one path a line. What is stored goes when no link of the list is left; without a list nothing goes.

use std::path::{Path, PathBuf};

use super::BlobLock;
use super::place::write_atomically;
use crate::Result;
use crate::digest::Digest;

const MARK: (&str, &str) = (".huggingface-shared-blobs", "1\n");

/// What a blob is a link to, if that is in the shared store of the cache in `root`.
pub(super) fn target(root: &Path, blob: &Path) -> Option<PathBuf> {
    let store = root.join("blobs");
    if std::fs::read_to_string(store.join(MARK.0)).ok()? != MARK.1 {
        return None;
    }
    let link = std::fs::read_link(blob).ok()?;
    let hash = link.file_name()?.to_str()?;
    let entry = store.join(hash.get(..2)?).join(hash);
    let is_hash = matches!(Digest::from_etag(hash), Some(Digest::Sha256(_)));
    let same = |a: &Path, b: &Path| {
        std::fs::canonicalize(a).ok().filter(|a| std::fs::canonicalize(b).is_ok_and(|b| *a == b))
    };
    let is_file = std::fs::symlink_metadata(&entry).is_ok_and(|meta| meta.is_file());
    (is_hash && is_file && same(&entry, blob).is_some()).then_some(entry)
}

/// Removes an entry of the store if no link to it is left. Gives the bytes that became free.
///
/// # Errors
/// If the lock cannot be had.
pub(super) fn sweep(root: &Path, entry: &Path) -> Result<u64> {
    let Some(lock) = BlobLock::attempt(&with_ending(entry, "lock"))?.filter(BlobLock::is_exclusive) else {
        // Somebody works on it; it is theirs to keep or to sweep.
        return Ok(0);
    };
    let list = with_ending(entry, "refs");
    let Ok(text) = std::fs::read_to_string(&list) else { return Ok(0) };
    let mut left = Vec::new();
    for line in text.lines().filter(|line| crate::name::is_relative_path(line)) {
        let link = root.join(line);
        match std::fs::symlink_metadata(&link) {
            Ok(_) if target(root, &link).is_some_and(|target| target == entry) => left.push(line),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // Who knows whether it is needed: it stays.
            Err(_) => return Ok(0),
        }
    }
    let freed = if left.is_empty() {
        let size = std::fs::symlink_metadata(entry).map_or(0, |meta| meta.len());
        let removed = std::fs::remove_file(entry).is_ok();
        let _ = std::fs::remove_file(&list);
        if removed { size } else { 0 }
    } else {
        write_atomically(&list, (left.join("\n") + "\n").as_bytes())?;
        0
    };
    drop(lock);
    Ok(freed)
}

fn with_ending(entry: &Path, ending: &str) -> PathBuf {
    let name = entry.file_name().unwrap_or_default().to_string_lossy();
    entry.with_file_name(format!("{name}.{ending}"))
}
