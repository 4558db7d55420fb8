//! `bitnet show`: card, licence, configuration and template of a model on this machine.

mod card;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bitnet_core::MemorySize;
use bitnet_hub::{Cache, CachedRepo, HubError, ModelName, keeping_access_times};
use bitnet_model::load::{Outline, outline};
use serde_json::{Value, json};

use self::card::Card;
use crate::args::ShowArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::{self, Notes, Table, ago, count};

pub(super) fn run(args: &ShowArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let model = Shown::of(&args.model)?;
    if args.template {
        let template = model.outline.as_ref().ok().and_then(|outline| outline.chat_template.as_ref());
        let template =
            template.ok_or_else(|| CliError::failed("the model has no chat template that can be read"))?;
        output::result(&format!("{}\n", template.trim_end_matches('\n')))?;
    } else if args.json {
        output::json(&model.as_json())?;
    } else {
        output::result(&model.as_text())?;
        for warning in model.outline.iter().flat_map(|outline| &outline.warnings) {
            notes.warn(warning);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A model on this machine.
struct Shown {
    path: PathBuf,
    /// The name and the repository, if it is in the cache.
    cached: Option<(ModelName, CachedRepo, String)>,
    outline: Result<Outline, String>,
    card: Card,
    /// `config.json` as it is.
    config: Option<Value>,
    /// Files with their sizes.
    files: Vec<(String, u64)>,
}

impl Shown {
    /// Finds a model by path or in the cache; the Hub is not asked.
    fn of(given: &Path) -> Result<Self, CliError> {
        let (path, folder, cached) = match hub::name_of(given)? {
            None => {
                let folder = if given.is_dir() {
                    given.to_owned()
                } else {
                    given.parent().map(Path::to_owned).unwrap_or_default()
                };
                (given.to_owned(), folder, None)
            }
            Some(name) => find(name)?,
        };
        let files = files(&path, cached.as_ref());
        let contents: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
        keeping_access_times(&contents, || {
            let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
            // What lies beside a single file may be about anything, unless it begins as a card does.
            let is_card = |text: &String| cached.is_some() || path.is_dir() || text.starts_with("---");
            Ok(Self {
                outline: outline(&path).map_err(|error| error.to_string()),
                card: Card::read(&read("README.md").filter(is_card).unwrap_or_default()),
                config: read("config.json").and_then(|text| serde_json::from_str(&text).ok()),
                path,
                cached,
                files,
            })
        })
    }

    fn license(&self) -> Option<&str> {
        self.card.license.as_deref().or(self.outline.as_ref().ok()?.license.as_deref())
    }

    fn size(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }

    fn as_text(&self) -> String {
        let mut table = Table::default();
        if let Some((name, repo, commit)) = &self.cached {
            table.row([&"name", name]);
            if let Some(revision) = repo.revisions.iter().find(|revision| revision.commit == *commit) {
                table.row([
                    &"revision",
                    &[&revision.refs[..], std::slice::from_ref(commit)].concat().join(", "),
                ]);
                table.row([&"last used", &ago(revision.last_used)]);
            }
        }
        table.row([&"path", &self.path.display()]);
        table.row([&"licence", &self.license().unwrap_or("not told")]);
        for (name, value) in &self.card.facts {
            table.row([name, value]);
        }
        match &self.outline {
            Ok(outline) => outline_rows(outline, &mut table),
            Err(why) => table.row([&"loads", &format!("no: {why}")]),
        }
        table.row([&"files", &format!("{}, {}", self.files.len(), MemorySize::bytes(self.size()))]);
        for (name, size) in &self.files {
            table.row([&"", &format!("{name}  {}", MemorySize::bytes(*size))]);
        }
        let mut out = table.to_string();
        if !self.card.summary.is_empty() {
            out += &format!("\n{}\n", self.card.summary);
        }
        if let Some(template) = self.outline.as_ref().ok().and_then(|outline| outline.chat_template.as_ref())
        {
            out += &format!("\nchat template:\n{}\n", template.trim_end_matches('\n'));
        }
        out
    }

    fn as_json(&self) -> Value {
        let mut out = json!({
            "path": self.path,
            "license": self.license(),
            "card": self.card.facts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "summary": self.card.summary,
            "config": self.config,
            "loadable": self.outline.is_ok(),
            "reason": self.outline.as_ref().err(),
            "files": self.files.iter().map(|(name, size)| json!({"name": name, "size": size})).collect::<Vec<_>>(),
            "size": self.size(),
        });
        if let Some((name, _, commit)) = &self.cached {
            out["name"] = name.to_string().into();
            out["commit"] = commit.as_str().into();
        }
        if let Ok(outline) = &self.outline {
            out["format"] = outline.format.as_str().into();
            out["architecture"] = outline.spec.architecture.as_str().into();
            out["parameters"] = outline.spec.parameters().into();
            out["ternary_parameters"] = outline.spec.ternary_parameters().into();
            out["context_length"] = outline.spec.context_length.into();
            out["chat_template"] = outline.chat_template.clone().into();
            out["tokenizer_note"] = outline.tokenizer_note.clone().into();
            out["warnings"] = outline.warnings.clone().into();
        }
        out
    }
}

/// A model in the cache: what a loader opens, the folder, and what is known of it.
#[allow(clippy::type_complexity, reason = "three things that are taken apart at once")]
fn find(name: ModelName) -> Result<(PathBuf, PathBuf, Option<(ModelName, CachedRepo, String)>), CliError> {
    let cache = Cache::new(hub::config()?.cache);
    let missing = || {
        let error = HubError::NotCached { what: name.to_string(), cache: cache.root().to_owned() };
        CliError::from(error).hint(format!("`bitnet pull {name}` fetches it"))
    };
    let repo = cache.inspect(&name.repo).ok_or_else(missing)?;
    let revision = repo.revision_of(&name).ok_or_else(missing)?;
    let (commit, folder) = (revision.commit.clone(), revision.path.clone());
    // What is not whole can be shown as well.
    let path = cache.find(&name.clone().at(&commit)?)?.map_or_else(|| folder.clone(), |found| found.path);
    Ok((path, folder, Some((name, repo, commit))))
}

/// The files of a model: of its snapshot, its folder, or it alone.
fn files(path: &Path, cached: Option<&(ModelName, CachedRepo, String)>) -> Vec<(String, u64)> {
    if let Some((_, repo, commit)) = cached {
        let revision = repo.revisions.iter().find(|revision| revision.commit == *commit);
        return revision
            .iter()
            .flat_map(|revision| &revision.files)
            .map(|file| (file.name.clone(), file.size))
            .collect();
    }
    let size =
        |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(size) = size(path) {
        return vec![(name(path), size)];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut out: Vec<_> = entries.filter_map(|path| Some((name(&path), size(&path)?))).collect();
    out.sort_unstable();
    out
}

fn outline_rows(outline: &Outline, table: &mut Table) {
    let spec = &outline.spec;
    table.row([&"loads", &"yes"]);
    table.row([&"format", &outline.format]);
    table.row([&"architecture", &spec.architecture]);
    let (all, ternary) = (spec.parameters(), spec.ternary_parameters());
    let share = 100.0 * ternary as f64 / all.max(1) as f64;
    table.row([&"parameters", &format!("{} ({share:.1} % ternary)", count(all))]);
    let shape = format!(
        "{} layers, hidden size {}, feed-forward size {}, {} heads, {} for keys and values",
        spec.num_layers, spec.hidden_size, spec.intermediate_size, spec.num_heads, spec.num_kv_heads
    );
    table.row([&"configuration", &shape]);
    table.row([&"vocabulary", &count(spec.vocab_size as u64)]);
    table.row([&"context", &format!("{} tokens", count(spec.context_length as u64))]);
    table.row([
        &"tokenizer",
        &outline.tokenizer_note.as_ref().map_or("yes".to_owned(), |note| format!("none: {note}")),
    ]);
    table.row([&"chat template", &if outline.chat_template.is_some() { "yes, below" } else { "none" }]);
}
