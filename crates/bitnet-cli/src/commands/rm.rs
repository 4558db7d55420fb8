//! `bitnet rm`: removes models from the cache.

use std::process::ExitCode;

use bitnet_core::MemorySize;
use bitnet_hub::{Cache, ModelName, Removal};
use serde_json::json;

use crate::args::RmArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::{self, Notes, confirm};

pub(super) fn run(args: &RmArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let cache = Cache::new(hub::config()?.cache);
    // All names are looked up before anything goes.
    let mut removals = Vec::new();
    for text in &args.models {
        let removal = cache.plan_removal(&ModelName::parse(text)?)?;
        if !removals.contains(&removal) {
            removals.push(removal);
        }
    }
    let frees: u64 = removals.iter().map(|removal| removal.frees).sum();
    let what: Vec<String> = removals.iter().map(describe).collect();
    let question = format!("remove {} ({})?", what.join(" and "), MemorySize::bytes(frees));
    if !confirm(&question, args.yes)? {
        notes.say("nothing was removed");
        return Ok(ExitCode::SUCCESS);
    }
    let mut freed = 0;
    for removal in &removals {
        freed += cache.remove(removal)?;
    }
    if args.json {
        let removed = removals.iter().map(|removal| {
            json!({
                "repo": removal.repo.as_str(),
                "commits": removal.commits,
                "files": removal.files.as_ref().map(|(_, files)| files),
                "whole": removal.whole,
            })
        });
        output::json(&json!({ "removed": removed.collect::<Vec<_>>(), "freed_bytes": freed }))?;
    } else {
        notes.say(&format!("removed {}; {} are free", what.join(" and "), MemorySize::bytes(freed)));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(removal: &Removal) -> String {
    match (&removal.files, removal.whole) {
        (_, true) => removal.repo.to_string(),
        (Some((_, files)), _) => format!("{} of {}", files.join(", "), removal.repo),
        (None, _) => {
            let commits: Vec<&str> = removal.commits.iter().map(|commit| &commit[..7]).collect();
            format!("commit {} of {}", commits.join(", "), removal.repo)
        }
    }
}
