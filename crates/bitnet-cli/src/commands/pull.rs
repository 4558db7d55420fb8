//! `bitnet pull`: fetches a model.

use std::process::ExitCode;

use bitnet_core::MemorySize;
use bitnet_hub::{FileState, Found, HubError, ModelName, Plan};
use serde_json::{Value, json};

use crate::args::PullArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::{self, Notes};

pub(super) fn run(args: &PullArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let mut name = ModelName::parse(&args.model)?;
    if let Some(revision) = &args.revision {
        if name.revision.as_ref().is_some_and(|other| other != revision) {
            return Err(CliError::usage(format!("{name} and --revision {revision} name two revisions")));
        }
        name = name.at(revision)?;
    }
    let hub = hub::open(&args.hub)?;
    let (found, plan) = if hub.config().offline {
        // What is there needs no network.
        let found = hub.find(&name)?.ok_or_else(|| HubError::Offline { what: name.to_string() })?;
        (found, None)
    } else {
        let (found, plan) = hub::fetch(&hub, &name, notes)?;
        notes.say(&summary(&plan));
        (found, Some(plan))
    };
    if args.json {
        output::json(&as_json(&name, &found, plan.as_ref()))?;
    } else {
        output::result(&format!("{}\n", found.path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(plan: &Plan) -> String {
    let size = MemorySize::bytes(plan.total_bytes());
    if plan.is_complete() {
        return format!("{} is up to date (commit {}, {size})", plan.name, &plan.commit[..7]);
    }
    format!("{} is there (commit {}, {size}), every file verified", plan.name, &plan.commit[..7])
}

fn as_json(name: &ModelName, found: &Found, plan: Option<&Plan>) -> Value {
    let mut out = json!({
        "name": name.to_string(),
        "repo": found.repo.as_str(),
        "revision": name.revision(),
        "commit": found.commit,
        "format": found.kind.name(),
        "path": found.path,
        "snapshot": found.snapshot,
    });
    if let Some(plan) = plan {
        let was = |state| match state {
            FileState::Present => "present",
            FileState::Cached => "cached",
            FileState::Partial(_) => "resumed",
            FileState::Missing => "fetched",
        };
        let files = plan
            .files
            .iter()
            .map(|file| json!({"path": file.path, "size": file.size, "was": was(file.state)}));
        out["files"] = files.collect();
        out["bytes"] = plan.total_bytes().into();
        out["fetched_bytes"] = plan.missing_bytes().into();
    }
    out
}
