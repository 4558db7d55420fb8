//! [`Folder`]: the files of a model, on disk or in memory.

use std::path::{Path, PathBuf};

use bitnet_core::CoreError;
use bitnet_core::bytes::ByteView;

use super::error::{LoadError, Result};

/// The files of a model by name, without sub-folders.
#[derive(Debug)]
pub(super) enum Folder<'a> {
    /// A folder on disk.
    Disk(PathBuf),
    /// Files in memory with what they are called together.
    Memory(&'a str, &'a [(String, ByteView)]),
}

impl Folder<'_> {
    /// What the folder is called in messages.
    pub(super) fn place(&self) -> String {
        match self {
            Folder::Disk(path) => path.display().to_string(),
            Folder::Memory(name, _) => (*name).to_owned(),
        }
    }

    /// What a file is called in messages.
    pub(super) fn origin(&self, file: &str) -> String {
        match self {
            Folder::Disk(path) => path.join(file).display().to_string(),
            Folder::Memory(name, _) => format!("{name}/{file}"),
        }
    }

    /// Names of all files, sorted. Names that are not Unicode are left out: no model file has such a name.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = match self {
            Folder::Memory(_, files) => files.iter().map(|(name, _)| name.clone()).collect(),
            Folder::Disk(path) => {
                let fail = |source| LoadError::Folder { path: path.clone(), source };
                let mut names = Vec::new();
                for entry in std::fs::read_dir(path).map_err(fail)? {
                    let entry = entry.map_err(fail)?;
                    // Follows links: download caches consist of them.
                    let is_file = std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file());
                    if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
                        names.push(name);
                    }
                }
                names
            }
        };
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a file; `None` if there is no file of that name.
    pub(super) fn open(&self, file: &str) -> Result<Option<ByteView>, CoreError> {
        match self {
            Folder::Memory(_, files) => {
                Ok(files.iter().find(|(name, _)| name == file).map(|(_, view)| view.clone()))
            }
            Folder::Disk(path) => {
                let path = path.join(file);
                if path.is_file() { Ok(Some(ByteView::map_file(&path)?)) } else { Ok(None) }
            }
        }
    }

    /// What the model is called: the last part of the path, or the repository in a download cache
    /// (`models--org--name/snapshots/<commit>`).
    pub(super) fn model_name(&self) -> String {
        match self {
            Folder::Memory(name, _) => (*name).to_owned(),
            Folder::Disk(path) => folder_name(&std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        }
    }
}

fn folder_name(path: &Path) -> String {
    let part = |path: Option<&Path>| Some(path?.file_name()?.to_string_lossy().into_owned());
    let parent = path.parent();
    if part(parent).as_deref() == Some("snapshots")
        && let Some(repository) = part(parent.and_then(Path::parent))
        && let Some((_, name)) = repository.strip_prefix("models--").and_then(|r| r.split_once("--"))
    {
        return name.to_owned();
    }
    part(Some(path)).unwrap_or_else(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders() {
        assert_eq!(folder_name(Path::new("/models/tiny")), "tiny");
        assert_eq!(
            folder_name(Path::new("/hub/models--microsoft--bitnet-2B/snapshots/0123abc")),
            "bitnet-2B"
        );
        assert_eq!(folder_name(Path::new("/")), "/");
    }

    #[test]
    fn memory_and_disk_look_alike() {
        let files =
            [("b".to_owned(), ByteView::from_static(b"2")), ("a".to_owned(), ByteView::from_static(b"1"))];
        let memory = Folder::Memory("m", &files);
        let dir = tempfile::tempdir().unwrap();
        for (name, view) in &files {
            std::fs::write(dir.path().join(name), view.as_slice()).unwrap();
        }
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let disk = Folder::Disk(dir.path().to_owned());
        for folder in [memory, disk] {
            assert_eq!(folder.names().unwrap(), ["a", "b"]);
            assert_eq!(folder.open("b").unwrap().unwrap().as_slice(), b"2");
            assert!(folder.open("sub").unwrap().is_none());
        }
    }
}
