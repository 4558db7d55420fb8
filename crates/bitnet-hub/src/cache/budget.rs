//! What must go for a cache to keep within a budget: what was not used for longest first.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use super::{Cache, CachedRepo, Leftover, Removal};
use crate::{RepoId, Result};

/// A snapshot that would go.
#[derive(Debug, Clone)]
pub struct Eviction {
    /// The repository.
    pub repo: RepoId,
    /// The commit.
    pub commit: String,
    /// Branches and tags that point to it.
    pub refs: Vec<String>,
    /// When it was last used.
    pub last_used: Option<SystemTime>,
    /// Bytes that become free.
    pub frees: u64,
}

/// What would go, and how much that is. Nothing goes before [`Cache::evict`].
#[derive(Debug)]
pub struct Budget {
    /// Bytes now.
    pub total: u64,
    /// Blobs that nothing needs; they go first.
    pub leftovers: Vec<(RepoId, Leftover)>,
    /// Snapshots, the one that goes first first.
    pub evictions: Vec<Eviction>,
    /// Bytes afterwards.
    pub after: u64,
}

impl Cache {
    /// Bytes of these repositories, what several snapshots share counted once.
    pub fn size(repos: &[CachedRepo]) -> u64 {
        let files = repos.iter().flat_map(|repo| repo.revisions.iter().flat_map(|revision| &revision.files));
        let contents: HashMap<&Path, u64> = files.map(|file| (file.content.as_path(), file.size)).collect();
        let left = repos.iter().flat_map(|repo| &repo.leftovers).map(|left| left.size);
        contents.values().sum::<u64>() + left.sum::<u64>()
    }

    /// Says what must go of these repositories for them to take at most `limit` bytes.
    pub fn budget(repos: &[CachedRepo], limit: u64) -> Budget {
        let total = Self::size(repos);
        let mut budget = Budget { total, leftovers: Vec::new(), evictions: Vec::new(), after: total };
        for (repo, left) in repos.iter().flat_map(|repo| repo.leftovers.iter().map(move |left| (repo, left)))
        {
            if budget.after <= limit {
                return budget;
            }
            budget.after -= left.size;
            budget.leftovers.push((repo.repo.clone(), left.clone()));
        }
        let mut users: HashMap<&Path, usize> = HashMap::new();
        let mut revisions: Vec<_> = repos
            .iter()
            .flat_map(|repo| repo.revisions.iter().map(move |revision| (repo, revision)))
            .collect();
        for file in revisions.iter().flat_map(|(_, revision)| &revision.files) {
            *users.entry(&file.content).or_default() += 1;
        }
        revisions.sort_by_key(|(_, revision)| revision.last_used);
        for (repo, revision) in revisions {
            if budget.after <= limit {
                break;
            }
            let mut frees = 0;
            for file in &revision.files {
                if let Some(count) = users.get_mut(file.content.as_path()) {
                    *count -= 1;
                    frees += if *count == 0 { file.size } else { 0 };
                }
            }
            budget.after -= frees;
            budget.evictions.push(Eviction {
                repo: repo.repo.clone(),
                commit: revision.commit.clone(),
                refs: revision.refs.clone(),
                last_used: revision.last_used,
                frees,
            });
        }
        budget
    }

    /// Removes what a budget says. Gives the bytes that became free.
    ///
    /// # Errors
    /// As [`Cache::remove`]; what went before stays gone.
    pub fn evict(&self, budget: &Budget) -> Result<u64> {
        let mut freed = 0;
        for (repo, left) in &budget.leftovers {
            freed += self.remove_leftover(&self.repo(repo), left)?;
        }
        for eviction in &budget.evictions {
            let Some(repo) = self.inspect(&eviction.repo) else { continue };
            let others = repo.revisions.iter().any(|revision| revision.commit != eviction.commit);
            freed += self.remove(&Removal {
                repo: eviction.repo.clone(),
                commits: vec![eviction.commit.clone()],
                files: None,
                whole: !others,
                frees: eviction.frees,
            })?;
        }
        Ok(freed)
    }
}
