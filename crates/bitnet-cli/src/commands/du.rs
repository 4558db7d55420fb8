//! `bitnet du`: what the cache holds, and what must go for it to keep within a budget.

use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use bitnet_core::{MemorySize, process};
use bitnet_hub::{Budget, Cache, CachedRepo};
use serde_json::{Value, json};

use super::cached::models;
use crate::args::DuArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::{self, Notes, Table, ago, confirm};

pub(super) fn run(args: &DuArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let cache = Cache::new(hub::config()?.cache);
    let mut repos = cache.repos()?;
    let Some(limit) = args.budget else {
        if args.json {
            output::json(&usage_json(&cache, &repos))?;
        } else {
            output::result(&usage_text(&cache, &repos))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !args.all {
        repos = ours(repos);
    }
    let budget = Cache::budget(&repos, limit.as_bytes());
    let mut freed = 0;
    let nothing = budget.leftovers.is_empty() && budget.evictions.is_empty();
    if !args.json {
        output::result(&budget_text(&budget, limit))?;
    }
    if args.prune && !nothing {
        if !confirm(&format!("remove that ({})?", MemorySize::bytes(budget.total - budget.after)), args.yes)?
        {
            notes.say("nothing was removed");
            return Ok(ExitCode::SUCCESS);
        }
        freed = cache.evict(&budget)?;
        notes.say(&format!("{} are free", MemorySize::bytes(freed)));
    } else if !args.prune && !nothing {
        notes.say("nothing was removed; --prune does it");
    }
    if args.json {
        output::json(&budget_json(&budget, limit, freed))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The repositories with a model that this program can load: those of other programs are theirs.
fn ours(repos: Vec<CachedRepo>) -> Vec<CachedRepo> {
    let loadable: Vec<_> = models(&repos)
        .iter()
        .filter(|model| model.outline.is_ok())
        .map(|model| model.repo.repo.clone())
        .collect();
    repos.into_iter().filter(|repo| loadable.contains(&repo.repo)).collect()
}

fn left_bytes(repo: &CachedRepo) -> u64 {
    repo.leftovers.iter().map(|left| left.size).sum()
}

fn usage_text(cache: &Cache, repos: &[CachedRepo]) -> String {
    let mut table = Table::default();
    table.row([&"MODEL", &"REVISIONS", &"SIZE", &"UNFINISHED", &"LAST USED"]);
    for repo in repos {
        let left = left_bytes(repo);
        table.row([
            &repo.repo,
            &repo.revisions.len(),
            &MemorySize::bytes(Cache::size(std::slice::from_ref(repo))),
            &if left == 0 { "-".to_owned() } else { MemorySize::bytes(left).to_string() },
            &ago(repo.revisions.iter().filter_map(|revision| revision.last_used).max()),
        ]);
    }
    let free = process::free_space(cache.root())
        .map_or_else(String::new, |free| format!(", {free} free on its disk"));
    let total = MemorySize::bytes(Cache::size(repos));
    format!("{table}{total} in {}{free}\n", cache.root().display())
}

fn usage_json(cache: &Cache, repos: &[CachedRepo]) -> Value {
    let of = |repo: &CachedRepo| {
        json!({
            "repo": repo.repo.as_str(),
            "revisions": repo.revisions.iter().map(|revision| &revision.commit).collect::<Vec<_>>(),
            "size": Cache::size(std::slice::from_ref(repo)),
            "unfinished": left_bytes(repo),
        })
    };
    json!({
        "cache": cache.root(),
        "size": Cache::size(repos),
        "free": process::free_space(cache.root()).map(MemorySize::as_bytes),
        "models": repos.iter().map(of).collect::<Vec<_>>(),
    })
}

fn budget_text(budget: &Budget, limit: MemorySize) -> String {
    let (total, after) = (MemorySize::bytes(budget.total), MemorySize::bytes(budget.after));
    if budget.leftovers.is_empty() && budget.evictions.is_empty() {
        return format!("{total} are within {limit}; nothing would go\n");
    }
    let mut table = Table::default();
    table.row([&"WOULD GO", &"REVISION", &"FREES", &"LAST USED"]);
    for (repo, left) in &budget.leftovers {
        let what = if left.incomplete { "a download that did not end" } else { "unused content" };
        table.row([repo, &what, &MemorySize::bytes(left.size), &"-"]);
    }
    for eviction in &budget.evictions {
        let commit = &eviction.commit[..7];
        let revision = if eviction.refs.is_empty() {
            commit.to_owned()
        } else {
            format!("{} ({commit})", eviction.refs.join(", "))
        };
        table.row([&eviction.repo, &revision, &MemorySize::bytes(eviction.frees), &ago(eviction.last_used)]);
    }
    format!("{table}{total} now, {after} afterwards, within {limit}\n")
}

fn budget_json(budget: &Budget, limit: MemorySize, freed: u64) -> Value {
    let leftovers = budget
        .leftovers
        .iter()
        .map(|(repo, left)| json!({ "repo": repo.as_str(), "file": left.path, "frees": left.size }));
    let evictions = budget.evictions.iter().map(|eviction| {
        let used = eviction.last_used.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        json!({
            "repo": eviction.repo.as_str(),
            "commit": eviction.commit,
            "refs": eviction.refs,
            "frees": eviction.frees,
            "last_used": used.map(|used| used.as_secs()),
        })
    });
    json!({
        "budget": limit.as_bytes(),
        "size": budget.total,
        "size_after": budget.after,
        "leftovers": leftovers.collect::<Vec<_>>(),
        "models": evictions.collect::<Vec<_>>(),
        "freed_bytes": freed,
    })
}
