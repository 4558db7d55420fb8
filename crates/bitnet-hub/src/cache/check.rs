//! [`Cache::check`]: what is wrong in the cache, and [`Cache::mend`] for what can be put right without loss.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::remove::etag_of;
use super::scan::{files_below, references};
use super::{BlobLock, Cache, CachedRepo, RepoFolder};
use crate::digest::Digest;
use crate::error::io;
use crate::{RepoId, Result};

/// Bytes that are hashed between two words about progress.
const CHUNK: usize = 1 << 20;

/// Something in the cache that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFault {
    /// The repository.
    pub repo: RepoId,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: FaultKind,
}

/// What can be wrong with a file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// A file of a snapshot whose content is gone.
    BrokenLink,
    /// A download that did not end.
    Incomplete {
        /// Bytes that came.
        size: u64,
        /// Whether a process works on it.
        busy: bool,
        /// Time since something came, if that is known.
        age: Option<Duration>,
    },
    /// What a process that was killed left of a small write.
    Temporary,
    /// It cannot be read.
    Unreadable {
        /// What the system says.
        why: String,
    },
    /// The hash of the content is not the one of its name.
    WrongHash {
        /// The hash it has.
        found: String,
    },
    /// A branch or tag that points to a snapshot that is not there.
    LostReference,
}

/// What was looked at.
#[derive(Debug, Default)]
pub struct CacheCheck {
    /// What is wrong.
    pub faults: Vec<CacheFault>,
    /// Files of snapshots.
    pub files: usize,
    /// Contents whose hash was compared.
    pub hashed: usize,
    /// Locks that processes hold.
    pub held_locks: usize,
}

impl Cache {
    /// Looks for damage in these repositories. With `deep` the content of every blob is hashed, and `progress` hears how
    /// many bytes of how many are done.
    pub fn check(&self, repos: &[CachedRepo], deep: bool, progress: &mut dyn FnMut(u64, u64)) -> CacheCheck {
        let mut check = CacheCheck::default();
        let blobs = blobs(repos);
        let (mut done, total) = (0, blobs.iter().map(|(.., size)| size).sum());
        for repo in repos {
            let folder = self.repo(&repo.repo);
            check.held_locks += held_locks(&folder);
            let mut add = |path: PathBuf, kind| {
                check.faults.push(CacheFault { repo: repo.repo.clone(), path, kind });
            };
            damaged_links(&folder.snapshots(), &mut add);
            for (name, commit) in references(&folder) {
                if !folder.snapshot(&commit).is_dir() {
                    add(folder.refs().join(name), FaultKind::LostReference);
                }
            }
            for left in repo.leftovers.iter().filter(|left| left.incomplete) {
                let (size, busy) = (left.size, is_locked(&folder, &left.path));
                let kind = FaultKind::Incomplete { size, busy, age: age(&left.path) };
                add(left.path.clone(), kind);
            }
            check.files += repo.revisions.iter().map(|revision| revision.files.len()).sum::<usize>();
        }
        for (repo, path, size) in blobs {
            let wrong = if deep {
                check.hashed += 1;
                hash_fault(path, size, &mut |bytes| {
                    done += bytes;
                    progress(done, total);
                })
            } else {
                std::fs::File::open(path).err().map(|error| FaultKind::Unreadable { why: error.to_string() })
            };
            let fault = |kind| CacheFault { repo: repo.clone(), path: path.to_owned(), kind };
            check.faults.extend(wrong.map(fault));
        }
        check
    }

    /// Removes what is of no use: broken links, temporary files, lost references, and damaged contents with the links to
    /// them. The next pull fetches what is missing then. Downloads that did not end stay: a pull goes on with them. Gives
    /// the number of files removed.
    ///
    /// # Errors
    /// [`HubError::Io`](crate::HubError::Io) if a file cannot be removed.
    pub fn mend(&self, faults: &[CacheFault]) -> Result<usize> {
        let mut removed = 0;
        for fault in faults {
            let folder = self.repo(&fault.repo);
            match &fault.kind {
                FaultKind::BrokenLink | FaultKind::Temporary | FaultKind::LostReference => {
                    std::fs::remove_file(&fault.path).map_err(io("remove", &fault.path))?;
                    removed += 1;
                }
                FaultKind::WrongHash { .. } => {
                    let Some(lock) = BlobLock::attempt(&lock_of(&folder, &fault.path))? else { continue };
                    self.remove_blob(&fault.path)?;
                    drop(lock);
                    removed += 1;
                    let mut broken = Vec::new();
                    damaged_links(&folder.snapshots(), &mut |path, kind| {
                        if kind == FaultKind::BrokenLink {
                            broken.push(path);
                        }
                    });
                    for link in broken {
                        std::fs::remove_file(&link).map_err(io("remove", &link))?;
                        removed += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(removed)
    }
}

/// The blobs that snapshots use, each once, with their sizes.
fn blobs(repos: &[CachedRepo]) -> Vec<(&RepoId, &Path, u64)> {
    let mut blobs = Vec::new();
    for repo in repos {
        let files = repo.revisions.iter().flat_map(|revision| &revision.files);
        blobs.extend(files.filter_map(|file| Some((&repo.repo, file.blob.as_deref()?, file.size))));
    }
    blobs.sort_by_key(|(_, path, _)| *path);
    blobs.dedup_by_key(|(_, path, _)| *path);
    blobs
}

/// Reports links that lead nowhere and temporary files below a folder.
fn damaged_links(folder: &Path, report: &mut dyn FnMut(PathBuf, FaultKind)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            damaged_links(&path, report);
        } else if path.extension().is_some_and(|ending| ending == "tmp") {
            report(path, FaultKind::Temporary);
        } else if kind.is_symlink() && !path.exists() {
            report(path, FaultKind::BrokenLink);
        }
    }
}

/// What is wrong with a blob whose name is its hash, if it is one.
fn hash_fault(path: &Path, size: u64, progress: &mut dyn FnMut(u64)) -> Option<FaultKind> {
    let digest = Digest::from_etag(path.file_name()?.to_str()?)?;
    let unreadable = |error: std::io::Error| Some(FaultKind::Unreadable { why: error.to_string() });
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) => return unreadable(error),
    };
    let (mut hasher, mut buffer) = (digest.hasher(size), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                progress(read as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return unreadable(error),
        }
    }
    let found = hasher.finish();
    (found != digest.hex()).then_some(FaultKind::WrongHash { found })
}

/// Whether a process holds the lock of a blob. No lock is made for that.
fn is_locked(folder: &RepoFolder, blob: &Path) -> bool {
    is_held(&lock_of(folder, blob))
}

fn lock_of(folder: &RepoFolder, blob: &Path) -> PathBuf {
    folder.lock(&etag_of(blob))
}

fn is_held(lock: &Path) -> bool {
    lock.exists() && matches!(BlobLock::attempt(lock), Ok(None))
}

/// How many locks of a repository are held. The others are files that stay, as those of `huggingface_hub` do.
fn held_locks(folder: &RepoFolder) -> usize {
    let locks = folder.locks();
    files_below(&locks)
        .iter()
        .filter(|(name, _)| name.ends_with(".lock") && is_held(&locks.join(name)))
        .count()
}

fn age(path: &Path) -> Option<Duration> {
    let changed = std::fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
    SystemTime::now().duration_since(changed).ok()
}
