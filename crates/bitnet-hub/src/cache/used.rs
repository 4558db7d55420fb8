//! When a model was last used.
//!
//! An empty file of ours, in a folder of ours below the repository's, has that time. `huggingface_hub` does not look
//! there, and removes it with the repository. Uses by other programs show in the access times of the files, as far as
//! the file system keeps them.

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::RepoFolder;

/// Notes that a snapshot is used now. A cache that cannot be written is used all the same.
pub(crate) fn note(folder: &RepoFolder, commit: &str) {
    let path = folder.used(commit);
    if let Some(parent) = path.parent() {
        let _ = std::fs::create_dir_all(parent);
    }
    if let Ok(file) = File::options().create(true).append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// When this program last used a snapshot.
pub(crate) fn noted(folder: &RepoFolder, commit: &str) -> Option<SystemTime> {
    std::fs::metadata(folder.used(commit)).and_then(|meta| meta.modified()).ok()
}

/// Runs `look`, which reads in files without using them, and gives the files their access times back, by which other
/// programs tell what is in use.
pub fn keeping_access_times<T>(files: &[PathBuf], look: impl FnOnce() -> T) -> T {
    let times = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.accessed()).ok();
    let before: Vec<_> = files.iter().map(|path| times(path)).collect();
    let result = look();
    for (path, before) in files.iter().zip(before) {
        if let Some(time) = before
            && times(path) != Some(time)
            && let Ok(file) = File::open(path)
        {
            // Only the owner may; the times of others' files stay.
            let _ = file.set_times(FileTimes::new().set_accessed(time));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn looking_is_not_using() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::open(&path).unwrap().set_times(FileTimes::new().set_accessed(old)).unwrap();
        let files = [path.clone()];
        let text = keeping_access_times(&files, || std::fs::read_to_string(&path).unwrap());
        assert_eq!(text, "x");
        assert_eq!(std::fs::metadata(&path).unwrap().accessed().unwrap(), old);
    }
}
