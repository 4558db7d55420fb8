//! [`Cache`]: the folder of models that `huggingface_hub` and this program share.

mod budget;
mod check;
mod find;
mod lock;
mod place;
mod remove;
mod scan;
mod shared;
mod used;

use std::path::{Path, PathBuf};

pub use budget::{Budget, Eviction};
pub use check::{CacheCheck, CacheFault, FaultKind};
pub use find::{CachedModel, Found};
pub use remove::Removal;
pub use scan::{CachedFile, CachedRepo, CachedRevision, Leftover};
pub use used::keeping_access_times;

pub(crate) use lock::BlobLock;
pub(crate) use place::{beside, is_there, place, write_atomically};

use crate::RepoId;

/// The cache of a machine or a person.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository.
    pub(crate) fn repo(&self, repo: &RepoId) -> RepoFolder {
        let name = repo.folder();
        RepoFolder { path: self.root.join(&name), locks: self.root.join(".locks").join(name) }
    }
}

/// Where the parts of a repository are.
#[derive(Debug, Clone)]
pub(crate) struct RepoFolder {
    /// The folder of the repository.
    pub(crate) path: PathBuf,
    locks: PathBuf,
}

impl RepoFolder {
    /// The blobs.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// A blob.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.path.join("blobs").join(etag)
    }

    /// The lock of a blob.
    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// The folder of the locks.
    pub(crate) fn locks(&self) -> PathBuf {
        self.locks.clone()
    }

    /// The references.
    pub(crate) fn refs(&self) -> PathBuf {
        self.path.join("refs")
    }

    /// The snapshots.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// A snapshot.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// What tells when a snapshot was last used.
    pub(crate) fn used(&self, commit: &str) -> PathBuf {
        self.path.join(".bitnet").join("used").join(commit)
    }
}
