//! Removing models, and with them what nothing else needs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::lock::busy;
use super::scan::references;
use super::{BlobLock, Cache, CachedFile, CachedRepo, CachedRevision, Leftover, RepoFolder, shared};
use crate::choose::{choose, weights_among};
use crate::error::io;
use crate::{HubError, ModelName, RepoId, Result};

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The repository.
    pub repo: RepoId,
    /// Snapshots that go.
    pub commits: Vec<String>,
    /// Single files that go from one snapshot.
    pub files: Option<(String, Vec<String>)>,
    /// Whether the whole repository goes.
    pub whole: bool,
    /// Bytes that become free, but for what is stored for several repositories.
    pub frees: u64,
}

impl Cache {
    /// Says what removing a model means: the repository without revision and file, else a snapshot or the weights asked
    /// for. Nothing is removed yet.
    ///
    /// # Errors
    /// [`HubError::NotCached`] if there is no such thing; those of a choice among its files.
    pub fn plan_removal(&self, name: &ModelName) -> Result<Removal> {
        let missing = || HubError::NotCached { what: name.to_string(), cache: self.root().to_owned() };
        let repo = self.inspect(&name.repo).ok_or_else(missing)?;
        let mut removal =
            Removal { repo: name.repo.clone(), commits: Vec::new(), files: None, whole: false, frees: 0 };
        if name.revision.is_none() && name.wanted.is_none() {
            removal.whole = true;
            removal.commits = repo.revisions.iter().map(|revision| revision.commit.clone()).collect();
        } else {
            let revision = repo.revision_of(name).ok_or_else(missing)?;
            match name.wanted.as_deref() {
                None => removal.commits.push(revision.commit.clone()),
                Some(wanted) => match weights(&repo, revision, wanted)? {
                    Some(files) => removal.files = Some((revision.commit.clone(), files)),
                    None => removal.commits.push(revision.commit.clone()),
                },
            }
            removal.whole = removal.commits.len() == repo.revisions.len();
        }
        let (files, blobs) = doomed(&repo, &removal);
        let own = files.iter().filter(|file| file.blob.is_none()).map(|file| file.size).sum::<u64>();
        let blobs: u64 = blobs.iter().map(|blob| size_of(blob)).sum();
        let left: u64 = repo.leftovers.iter().map(|left| left.size).sum();
        removal.frees = own + blobs + if removal.whole { left } else { 0 };
        Ok(removal)
    }

    /// Removes; gives the bytes that became free.
    ///
    /// # Errors
    /// [`HubError::Busy`], before anything is removed, if another process downloads what would go;
    /// [`HubError::Io`] if something cannot be removed.
    pub fn remove(&self, removal: &Removal) -> Result<u64> {
        let folder = self.repo(&removal.repo);
        let what = removal.repo.to_string();
        let repo = self
            .inspect(&removal.repo)
            .ok_or_else(|| HubError::NotCached { what: what.clone(), cache: self.root().to_owned() })?;
        let (files, blobs) = doomed(&repo, removal);
        let leftovers = if removal.whole { repo.leftovers.as_slice() } else { &[] };
        let mut locks = Vec::new();
        for path in blobs.iter().chain(leftovers.iter().map(|left| &left.path)) {
            locks.push(BlobLock::attempt(&folder.lock(&etag_of(path)))?.ok_or_else(|| busy(&what))?);
        }
        // References first: what they name must be whole at any time.
        for (name, commit) in references(&folder) {
            if removal.commits.contains(&commit) {
                remove_file(&folder.refs().join(name))?;
            }
        }
        let mut freed = 0;
        for file in &files {
            freed += if file.blob.is_none() { file.size } else { 0 };
        }
        if let Some((commit, names)) = &removal.files {
            for name in names {
                remove_file(&folder.snapshot(commit).join(name))?;
            }
        }
        for commit in &removal.commits {
            remove_folder(&folder.snapshot(commit))?;
            remove_folder(&folder.path.join(".no_exist").join(commit))?;
            remove_file(&folder.used(commit))?;
        }
        for blob in &blobs {
            freed += self.remove_blob(blob)?;
        }
        for left in leftovers {
            freed += self.remove_blob(&left.path)?;
        }
        if removal.whole {
            remove_folder(&folder.path)?;
        }
        drop(locks);
        Ok(freed)
    }

    /// Removes a blob that no snapshot needs, unless a process works on it. Gives the bytes that became free.
    pub(super) fn remove_leftover(&self, folder: &RepoFolder, left: &Leftover) -> Result<u64> {
        match BlobLock::attempt(&folder.lock(&etag_of(&left.path)))? {
            Some(lock) => {
                let freed = self.remove_blob(&left.path)?;
                drop(lock);
                Ok(freed)
            }
            None => Ok(0),
        }
    }

    /// Removes a blob, wherever it is stored. Gives the bytes that became free.
    pub(super) fn remove_blob(&self, blob: &Path) -> Result<u64> {
        let stored = shared::target(self.root(), blob);
        let size = size_of(blob);
        remove_file(blob)?;
        match stored {
            None => Ok(size),
            Some(entry) => shared::sweep(self.root(), &entry),
        }
    }
}

impl CachedRepo {
    /// The snapshot of a name's revision: of a reference, a commit or its beginning; without one that of `main`, else the
    /// only one.
    pub fn revision_of(&self, name: &ModelName) -> Option<&CachedRevision> {
        let Some(wanted) = &name.revision else {
            let main = self.revisions.iter().find(|revision| revision.refs.iter().any(|name| name == "main"));
            return main.or(match self.revisions.as_slice() {
                [one] => Some(one),
                _ => None,
            });
        };
        let named = self.revisions.iter().find(|revision| revision.refs.contains(wanted));
        named.or_else(|| {
            let mut matching =
                self.revisions.iter().filter(|revision| revision.commit.starts_with(wanted.as_str()));
            matching.next().filter(|_| wanted.len() >= 4 && matching.next().is_none())
        })
    }
}

/// The files of the weights asked for; none if no other weights would be left.
fn weights(repo: &CachedRepo, revision: &CachedRevision, wanted: &str) -> Result<Option<Vec<String>>> {
    let names: Vec<&str> = revision.files.iter().map(|file| file.name.as_str()).collect();
    let mut read = |file: &str| {
        let path = revision.path.join(file);
        std::fs::read(&path).map_err(io("read", &path))
    };
    let choice = choose(repo.repo.as_str(), &names, Some(wanted), &mut read)?;
    let others =
        weights_among(&names).into_iter().any(|path| choice.weights.iter().all(|weight| weight != path));
    Ok(others.then_some(choice.weights))
}

/// The files that go, and the blobs that no file that stays needs.
fn doomed<'a>(repo: &'a CachedRepo, removal: &Removal) -> (Vec<&'a CachedFile>, Vec<PathBuf>) {
    let goes = |commit: &str, file: &str| {
        removal.commits.iter().any(|other| other == commit)
            || removal
                .files
                .as_ref()
                .is_some_and(|(other, names)| other == commit && names.iter().any(|name| name == file))
    };
    let all =
        repo.revisions.iter().flat_map(|revision| revision.files.iter().map(move |file| (revision, file)));
    let (going, staying): (Vec<_>, Vec<_>) =
        all.partition(|(revision, file)| goes(&revision.commit, &file.name));
    let needed: HashSet<&PathBuf> = staying.iter().filter_map(|(_, file)| file.blob.as_ref()).collect();
    let mut blobs: Vec<PathBuf> = going.iter().filter_map(|(_, file)| file.blob.clone()).collect();
    blobs.retain(|blob| !needed.contains(blob));
    blobs.sort_unstable();
    blobs.dedup();
    (going.into_iter().map(|(_, file)| file).collect(), blobs)
}

/// Bytes of a file, links followed.
fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// The etag in the name of a blob or of a download that did not end.
pub(super) fn etag_of(blob: &Path) -> String {
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}
