//! The models in the cache, and whether they load.

use std::path::PathBuf;

use bitnet_hub::{CachedModel, CachedRepo, CachedRevision, keeping_access_times};
use bitnet_model::load::{Outline, outline};

/// A model in the cache.
pub(super) struct Model<'a> {
    /// Its repository.
    pub(super) repo: &'a CachedRepo,
    /// Its revision.
    pub(super) revision: &'a CachedRevision,
    /// Which of the revision it is.
    pub(super) model: CachedModel,
    /// What it is, or why it does not load.
    pub(super) outline: Result<Outline, String>,
}

impl Model<'_> {
    /// What to write after `--model`.
    pub(super) fn name(&self) -> String {
        let revision = if self.revision.refs.iter().any(|name| name == "main") {
            String::new()
        } else {
            format!("@{}", self.revision.refs.first().unwrap_or(&self.revision.commit))
        };
        let wanted = self.model.wanted.as_ref().map_or_else(String::new, |wanted| format!(":{wanted}"));
        format!("{}{revision}{wanted}", self.repo.repo)
    }

    /// Branches and tags with the beginning of the commit.
    pub(super) fn revisions(&self) -> String {
        let commit = &self.revision.commit[..7];
        if self.revision.refs.is_empty() {
            commit.to_owned()
        } else {
            format!("{} ({commit})", self.revision.refs.join(", "))
        }
    }
}

/// All models of these repositories. Their files are looked into, which does not count as a use.
pub(super) fn models(repos: &[CachedRepo]) -> Vec<Model<'_>> {
    let mut out = Vec::new();
    for repo in repos {
        for revision in &repo.revisions {
            let files: Vec<PathBuf> = revision.files.iter().map(|file| file.content.clone()).collect();
            keeping_access_times(&files, || {
                for model in revision.models(&repo.repo) {
                    let outline = look(&model, revision);
                    out.push(Model { repo, revision, model, outline });
                }
            });
        }
    }
    out
}

/// What a model is, or why it does not load, without the path in front.
fn look(model: &CachedModel, revision: &CachedRevision) -> Result<Outline, String> {
    let path = model.path.as_ref().map_err(Clone::clone)?;
    outline(path).map_err(|error| {
        let folder = revision.path.display().to_string();
        let text = error.to_string().replace(&format!("{folder}{}", std::path::MAIN_SEPARATOR), "");
        text.replace(&format!("{folder}: "), "")
    })
}
