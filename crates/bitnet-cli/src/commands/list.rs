//! `bitnet list`: the models in the cache.

use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use bitnet_core::MemorySize;
use bitnet_hub::Cache;
use serde_json::{Value, json};

use super::cached::{Model, models};
use crate::args::ListArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::{self, Notes, Table, ago};

/// The longest reason that is shown in a row.
const REASON_CHARS: usize = 100;

pub(super) fn run(args: &ListArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let cache = Cache::new(hub::config()?.cache);
    let repos = cache.repos()?;
    let models = models(&repos);
    if args.json {
        output::json(&models.iter().map(as_json).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    if models.is_empty() {
        notes.say(&format!("no models in {}; fetch one with `bitnet pull ORG/NAME`", cache.root().display()));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::default();
    table.row([&"NAME", &"REVISION", &"FORMAT", &"SIZE", &"LAST USED", &"LOADS"]);
    for model in &models {
        let (format, loads) = match &model.outline {
            Ok(outline) => (outline.format.clone(), "yes".to_owned()),
            Err(why) => {
                (model.model.kind.map_or("-", |kind| kind.name()).to_owned(), format!("no: {}", short(why)))
            }
        };
        table.row([
            &model.name(),
            &model.revisions(),
            &format,
            &MemorySize::bytes(model.model.size),
            &ago(model.revision.last_used),
            &loads,
        ]);
    }
    output::result(&table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The beginning of a reason; `show` has all of it.
fn short(why: &str) -> String {
    let clean: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(REASON_CHARS) {
        None => clean,
        Some((end, _)) => format!("{}...", &clean[..end]),
    }
}

fn as_json(model: &Model<'_>) -> Value {
    let used = model.revision.last_used.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    json!({
        "name": model.name(),
        "repo": model.repo.repo.as_str(),
        "commit": model.revision.commit,
        "refs": model.revision.refs,
        "kind": model.model.kind.map(bitnet_hub::WeightKind::name),
        "format": model.outline.as_ref().ok().map(|outline| &outline.format),
        "size": model.model.size,
        "last_used": used.map(|used| used.as_secs()),
        "loadable": model.outline.is_ok(),
        "reason": model.outline.as_ref().err(),
        "path": model.model.path.as_ref().ok(),
    })
}
