//! The models in the cache, and whether they load.

use std::path::PathBuf;

use bitnet_hub::{CachedModel, CachedRepo, CachedRevision, keeping_access_times};
use bitnet_model::load::{LoadError, Outline, outline};

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
    /// Whether it does not load because a file is damaged.
    pub(super) is_damaged: bool,
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
                    let (outline, is_damaged) = look(&model, revision);
                    out.push(Model { repo, revision, model, outline, is_damaged });
                }
            });
        }
    }
    out
}

/// What a model is, or why it does not load, without the path in front; and whether that is damage.
fn look(model: &CachedModel, revision: &CachedRevision) -> (Result<Outline, String>, bool) {
    let path = match &model.path {
        Ok(path) => path,
        Err(why) => return (Err(why.clone()), false),
    };
    let found = outline(path);
    let is_damaged = found.as_ref().is_err_and(LoadError::is_damage);
    let without_path = |error: LoadError| {
        let folder = revision.path.display().to_string();
        let text = error.to_string().replace(&format!("{folder}{}", std::path::MAIN_SEPARATOR), "");
        text.replace(&format!("{folder}: "), "")
    };
    (found.map_err(without_path), is_damaged)
}
