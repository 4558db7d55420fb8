//! Models on the Hub, for all commands: one way from what a person wrote to a path.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_core::MemorySize;
use bitnet_hub::{Event, FileState, Found, Hub, HubConfig, HubError, ModelName, Plan, Token};
use bitnet_model::LoadError;

use crate::args::HubArgs;
use crate::error::CliError;
use crate::nearest::{nearest, nearest_within};
use crate::output::{Downloads, Notes};

/// What environment and configuration file say of the Hub.
pub(crate) fn config() -> Result<HubConfig, CliError> {
    let settings = crate::config::current();
    Ok(HubConfig::from_vars(&|name| settings.hub_variable(name, &crate::folders::environment))?)
}

/// The Hub as flags, environment and configuration file say.
pub(crate) fn open(args: &HubArgs) -> Result<Hub, CliError> {
    let mut config = config()?;
    config.offline |= args.offline;
    if let Some(token) = &args.token {
        config.token = Some(Token::new(token, "--token")?);
    }
    Ok(Hub::new(config)?)
}

/// The path of a model: what is there by that path, else the model of that name in the cache, else fetched.
pub(crate) fn resolve(given: &Path, args: &HubArgs, notes: Notes) -> Result<PathBuf, CliError> {
    let Some(name) = name_of(given)? else { return Ok(given.to_owned()) };
    let hub = open(args)?;
    let found = match hub.find(&name)? {
        Some(found) if found.thin && !hub.config().offline => complete(&hub, &name, found, notes),
        Some(found) => found,
        None => fetch(&hub, &name, notes).map_err(|error| explain(error, &hub, given))?.0,
    };
    hub.cache().note_use(&found);
    notes.detail(&format!("{name} is in {}", found.path.display()));
    Ok(found.path)
}

/// The name of a model on the Hub; none for a path that is there.
///
/// # Errors
/// If it is neither.
pub(crate) fn name_of(given: &Path) -> Result<Option<ModelName>, CliError> {
    let text = given.to_str().unwrap_or_default();
    if ModelName::is_explicit(text) {
        return Ok(Some(ModelName::parse(text)?));
    }
    if given.exists() {
        return Ok(None);
    }
    match ModelName::parse(text) {
        Ok(name) if !is_file_name(name.repo.name()) => Ok(Some(name)),
        _ => Err(not_found(given)),
    }
}

/// Whether a name ends as the files of models do, which repositories do not.
fn is_file_name(name: &str) -> bool {
    let endings = [".gguf", ".safetensors", ".bin", ".pt", ".pth", ".onnx", ".json"];
    endings.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending))
}

/// Looks whether the Hub has the small files that are missing. What is there is good enough if not.
fn complete(hub: &Hub, name: &ModelName, found: Found, notes: Notes) -> Found {
    let config = HubConfig { retries: 0, ..hub.config().clone() };
    let fetched = Hub::new(config).map_err(CliError::from).and_then(|hub| fetch(&hub, name, notes));
    match fetched {
        Ok((found, _)) => found,
        Err(_) => {
            notes
                .detail(&format!("{name} has no tokenizer in the cache, and the Hub cannot be asked for it"));
            found
        }
    }
}

/// Fetches what is not there of a model, with a line that says what and how much, and progress.
pub(crate) fn fetch(hub: &Hub, name: &ModelName, notes: Notes) -> Result<(Found, Plan), CliError> {
    let downloads = Downloads::new(notes);
    let observer = |event: Event<'_>| {
        downloads.show(&event);
        ControlFlow::Continue(())
    };
    let plan = hub.plan(name, &observer)?;
    if !plan.is_complete() {
        notes.say(&announcement(hub, &plan));
    }
    let found = hub.fetch(&plan, &observer)?;
    Ok((found, plan))
}

fn announcement(hub: &Hub, plan: &Plan) -> String {
    let missing =
        plan.files.iter().filter(|file| !matches!(file.state, FileState::Present | FileState::Cached));
    let count = missing.count();
    let (all, rest) = (plan.total_bytes(), plan.missing_bytes());
    let there = match all - rest {
        0 => String::new(),
        there => format!(" ({} are there)", MemorySize::bytes(there)),
    };
    format!(
        "fetching {} (commit {}) from {}: {} in {count} {}{there}",
        plan.name,
        &plan.commit[..7],
        hub.config().endpoint,
        MemorySize::bytes(rest),
        if count == 1 { "file" } else { "files" },
    )
}

/// The error for a path where nothing is.
fn not_found(given: &Path) -> CliError {
    let error = CliError::from(LoadError::NotFound { path: given.to_owned() });
    let cached = config().ok().and_then(|config| Hub::new(config).ok());
    match similar(given, cached.as_ref()) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

/// Adds what was perhaps meant.
fn explain(error: CliError, hub: &Hub, given: &Path) -> CliError {
    match similar(given, Some(hub)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

/// The path beside `given`, or the model in the cache, that is written most alike.
fn similar(given: &Path, hub: Option<&Hub>) -> Option<String> {
    let text = given.to_str()?;
    let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = std::fs::read_dir(parent.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let files: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let file = given.file_name().and_then(|name| nearest(name.to_str()?, files.iter().map(String::as_str)));
    if let Some(file) = file {
        return Some(
            parent.map_or_else(|| PathBuf::from(file), |parent| parent.join(file)).display().to_string(),
        );
    }
    let repos = hub?.cache().repos().ok()?;
    // A model without its weights, or the very name that was not found, helps nobody.
    let useful = repos.iter().filter(|repo| {
        !repo.repo.as_str().eq_ignore_ascii_case(text)
            && repo.revisions.iter().any(|revision| revision.size > 0)
    });
    // People leave out the owner.
    let names = useful.flat_map(|repo| [(repo.repo.as_str(), repo), (repo.repo.name(), repo)]);
    let limit = (text.chars().count() / 4).max(1);
    nearest_within(text, limit, names).map(|repo| repo.repo.to_string())
}

impl From<HubError> for CliError {
    fn from(error: HubError) -> Self {
        match &error {
            HubError::BadName { .. } | HubError::Config { .. } => Self::of(&error, true),
            _ => Self::of(&error, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_are_no_names_on_the_hub() {
        assert!(name_of(Path::new("models/none.gguf")).is_err());
        assert!(name_of(Path::new("/no/such/model")).is_err());
        assert!(name_of(Path::new("none")).is_err());
        assert_eq!(name_of(Path::new(".")).unwrap(), None);
        let name = name_of(Path::new("org/model@v1:i2_s")).unwrap().unwrap();
        assert_eq!(name.to_string(), "org/model@v1:i2_s");
        assert!(name_of(Path::new("hf:org/m.gguf")).unwrap().is_some());
    }
}
