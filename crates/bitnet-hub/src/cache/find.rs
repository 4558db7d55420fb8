//! Finding a model in the cache, without the network.

use std::path::{Path, PathBuf};

use super::scan::files_below;
use super::{Cache, CachedRevision, RepoFolder, used};
use crate::choose::{Choice, choose, variants};
use crate::error::io;
use crate::name::is_commit;
use crate::{HubError, ModelName, RepoId, Result, WeightKind};

/// A model that is in the cache with all it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The repository.
    pub repo: RepoId,
    /// The commit.
    pub commit: String,
    /// The folder of the snapshot.
    pub snapshot: PathBuf,
    /// What a loader opens: the snapshot, or a file in it.
    pub path: PathBuf,
    /// Form of the weights.
    pub kind: WeightKind,
    /// Whether files that a model of this form usually has are missing, so that a look at the Hub is worth it.
    pub thin: bool,
}

impl Cache {
    /// Finds a model. None if it is not there or not whole.
    ///
    /// # Errors
    /// If it holds several models and the name does not tell which.
    pub fn find(&self, name: &ModelName) -> Result<Option<Found>> {
        let Some(commit) = self.commit(name) else { return Ok(None) };
        let folder = self.repo(&name.repo);
        let snapshot = folder.snapshot(&commit);
        let files = files_below(&snapshot);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let mut read = |file: &str| {
            let path = snapshot.join(file);
            std::fs::read(&path).map_err(io("read", &path))
        };
        match choose(name.repo.as_str(), &names, name.wanted.as_deref(), &mut read) {
            Ok(choice) => Ok(Found::new(name, &commit, snapshot, &choice)),
            // What is there may be a part of what the repository has.
            Err(HubError::Ambiguous { repo, names }) => Err(HubError::Ambiguous { repo, names }),
            Err(_) => Ok(None),
        }
    }

    /// The commit of a name's revision, if its snapshot is in the cache.
    pub(crate) fn commit(&self, name: &ModelName) -> Option<String> {
        let folder = self.repo(&name.repo);
        let revision = name.revision();
        let commit = if is_commit(revision) { revision.to_owned() } else { read_ref(&folder, revision)? };
        folder.snapshot(&commit).is_dir().then_some(commit)
    }

    /// Notes that a model is used now, for [`CachedRevision::last_used`](super::CachedRevision::last_used).
    pub fn note_use(&self, found: &Found) {
        used::note(&self.repo(&found.repo), &found.commit);
    }
}

/// A model in a snapshot, whole or not.
#[derive(Debug, Clone)]
pub struct CachedModel {
    /// What tells it from others in the same snapshot.
    pub wanted: Option<String>,
    /// What a loader opens, or why that cannot be told.
    pub path: std::result::Result<PathBuf, String>,
    /// Form of the weights, if there are any.
    pub kind: Option<WeightKind>,
    /// Bytes of the weights.
    pub size: u64,
}

impl CachedRevision {
    /// The models of a snapshot of `repo`: one a form of the weights, one a GGUF file. At least one, which may have no
    /// weights.
    pub fn models(&self, repo: &RepoId) -> Vec<CachedModel> {
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let asked = variants(&names);
        if asked.is_empty() {
            let path = Err("there are no weights".to_owned());
            return vec![CachedModel { wanted: None, path, kind: None, size: self.size }];
        }
        let mut read = |file: &str| {
            let path = self.path.join(file);
            std::fs::read(&path).map_err(io("read", &path))
        };
        let alone = asked.len() == 1;
        let mut model = |(kind, wanted): (WeightKind, String)| {
            let choice = choose(repo.as_str(), &names, Some(&wanted), &mut read);
            let size = |choice: &Choice| {
                let of = |file: &&super::CachedFile| choice.weights.contains(&file.name);
                self.files.iter().filter(of).map(|file| file.size).sum()
            };
            CachedModel {
                wanted: if alone { None } else { Some(wanted) },
                kind: Some(kind),
                size: choice.as_ref().map_or(self.size, size),
                path: match choice {
                    Ok(choice) => {
                        Ok(choice.entry.map_or_else(|| self.path.clone(), |entry| self.path.join(entry)))
                    }
                    Err(error) => Err(error.to_string()),
                },
            }
        };
        asked.into_iter().map(&mut model).collect()
    }
}

/// The commit of a branch or tag.
fn read_ref(folder: &RepoFolder, revision: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.refs().join(revision)).ok()?;
    let commit = text.trim();
    if is_commit(commit) {
        return Some(commit.to_owned());
    }
    None
}

impl Found {
    /// A chosen model in a snapshot; none if it is not whole.
    pub(crate) fn new(name: &ModelName, commit: &str, snapshot: PathBuf, choice: &Choice) -> Option<Self> {
        let has = |file: &str| {
            choice.companions.iter().any(|name| name == file || name.ends_with(&format!("/{file}")))
        };
        let needs_config = matches!(choice.kind, WeightKind::Safetensors | WeightKind::Pytorch);
        if needs_config && !has("config.json") && !has("params.json") || !is_whole(choice) {
            return None;
        }
        let has_tokenizer = ["tokenizer.json", "tokenizer.model", "vocab.json"].into_iter().any(has);
        let path =
            choice.entry.as_ref().map_or_else(|| snapshot.clone(), |entry| snapshot.join(Path::new(entry)));
        Some(Self {
            repo: name.repo.clone(),
            commit: commit.to_owned(),
            snapshot,
            path,
            kind: choice.kind,
            thin: choice.kind != WeightKind::Gguf && !has_tokenizer,
        })
    }
}

/// Whether all parts of a split GGUF file are there; `choose` has checked the others.
fn is_whole(choice: &Choice) -> bool {
    let Some(first) = choice.weights.first().filter(|_| choice.kind == WeightKind::Gguf) else { return true };
    let total =
        first.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-")?.1.parse::<usize>().ok());
    total.is_none_or(|total| total == choice.weights.len())
}
