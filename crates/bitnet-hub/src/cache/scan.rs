//! What is in the cache.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::{Cache, RepoFolder, used};
use crate::error::io;
use crate::name::is_commit;
use crate::{RepoId, Result};

/// Folders in folders that are looked into.
const MOST_DEPTH: usize = 8;

/// A repository in the cache.
#[derive(Debug)]
pub struct CachedRepo {
    /// Its name.
    pub repo: RepoId,
    /// Its folder.
    pub path: PathBuf,
    /// Its snapshots, the one that was used last first.
    pub revisions: Vec<CachedRevision>,
    /// Blobs that no snapshot needs: downloads that did not end, and what other programs left behind.
    pub leftovers: Vec<Leftover>,
}

/// A snapshot of a repository.
#[derive(Debug)]
pub struct CachedRevision {
    /// Its commit.
    pub commit: String,
    /// Branches and tags that point to it.
    pub refs: Vec<String>,
    /// Its folder.
    pub path: PathBuf,
    /// Its files.
    pub files: Vec<CachedFile>,
    /// Bytes of its files.
    pub size: u64,
    /// When it was last used, as far as that is known.
    pub last_used: Option<SystemTime>,
}

/// A file of a snapshot.
#[derive(Debug, Clone)]
pub struct CachedFile {
    /// Path in the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The blob it is a link to; none if it is a file of its own.
    pub blob: Option<PathBuf>,
    /// Where its bytes are, all links followed.
    pub content: PathBuf,
}

/// A blob that no snapshot needs.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Whether it is a download that has not ended.
    pub incomplete: bool,
}

impl Cache {
    /// All repositories of models, by name. A cache that is not there has none.
    ///
    /// # Errors
    /// If the folder of the cache cannot be listed.
    pub fn repos(&self) -> Result<Vec<CachedRepo>> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("list", &self.root)(error)),
        };
        let mut repos: Vec<CachedRepo> = entries
            .flatten()
            .filter_map(|entry| RepoId::of_folder(entry.file_name().to_str()?))
            .filter_map(|repo| self.inspect(&repo))
            .collect();
        repos.sort_by(|a, b| a.repo.cmp(&b.repo));
        Ok(repos)
    }

    /// One repository, if it is there.
    pub fn inspect(&self, repo: &RepoId) -> Option<CachedRepo> {
        let folder = self.repo(repo);
        if !folder.path.is_dir() {
            return None;
        }
        let refs = references(&folder);
        let commits = std::fs::read_dir(folder.snapshots()).into_iter().flatten().flatten();
        let commits =
            commits.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_commit(name));
        let mut revisions: Vec<_> = commits.map(|commit| revision(&folder, commit, &refs)).collect();
        revisions.sort_by(|a, b| b.last_used.cmp(&a.last_used).then_with(|| a.commit.cmp(&b.commit)));
        let leftovers = leftovers(&folder, &revisions);
        Some(CachedRepo { repo: repo.clone(), path: folder.path, revisions, leftovers })
    }
}

fn revision(folder: &RepoFolder, commit: String, refs: &[(String, String)]) -> CachedRevision {
    let path = folder.snapshot(&commit);
    let blobs = folder.blobs();
    let mut files = Vec::new();
    for (name, size) in files_below(&path) {
        let file = path.join(&name);
        let blob = blob_of(&file).filter(|blob| blob.parent() == Some(&blobs));
        let content = std::fs::canonicalize(&file).unwrap_or(file);
        files.push(CachedFile { name, size, blob, content });
    }
    let refs = refs.iter().filter(|(_, other)| *other == commit).map(|(name, _)| name.clone()).collect();
    let accessed = files.iter().filter_map(|file| {
        let meta = std::fs::metadata(&file.content).ok()?;
        [meta.accessed(), meta.modified()].into_iter().flatten().max()
    });
    let last_used = accessed.chain(used::noted(folder, &commit)).max();
    let size = files.iter().map(|file| file.size).sum();
    CachedRevision { commit, refs, path, files, size, last_used }
}

/// The file that a link in a snapshot leads to, without following what that is a link to.
fn blob_of(link: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(link).ok()?;
    let mut out = PathBuf::new();
    for part in link.parent()?.join(target).components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    Some(out)
}

/// Branches and tags with their commits.
pub(super) fn references(folder: &RepoFolder) -> Vec<(String, String)> {
    let refs = folder.refs();
    let read = |(name, _): (String, u64)| {
        let commit = std::fs::read_to_string(refs.join(&name)).ok()?.trim().to_owned();
        is_commit(&commit).then_some((name, commit))
    };
    files_below(&refs).into_iter().filter_map(read).collect()
}

/// The blobs that no snapshot needs.
fn leftovers(folder: &RepoFolder, revisions: &[CachedRevision]) -> Vec<Leftover> {
    let files = revisions.iter().flat_map(|revision| &revision.files);
    let needed: HashSet<&Path> = files.filter_map(|file| file.blob.as_deref()).collect();
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder.blobs()).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() || needed.contains(path.as_path()) {
            continue;
        }
        let incomplete = path.extension().is_some_and(|ending| ending == "incomplete");
        // A link into the shared store takes no room here.
        let size = if meta.is_file() { meta.len() } else { 0 };
        out.push(Leftover { path, size, incomplete });
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

/// The files below a folder with their sizes, links to files followed, by path with slashes. What cannot be read is left
/// out, as are links that lead nowhere and temporary files of a write that did not end.
pub(crate) fn files_below(folder: &Path) -> Vec<(String, u64)> {
    fn walk(folder: &Path, prefix: &str, depth: usize, out: &mut Vec<(String, u64)>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if kind.is_dir() {
                if depth < MOST_DEPTH {
                    walk(&entry.path(), &path, depth + 1, out);
                }
            } else if !path.ends_with(".tmp")
                && let Ok(meta) = std::fs::metadata(entry.path())
                && meta.is_file()
            {
                out.push((path, meta.len()));
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, "", 0, &mut out);
    out.sort_unstable();
    out
}
