//! What is offered at a Tab: commands and flags by clap, models by their names in the cache, settings by theirs.

use std::ffi::OsStr;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::CompleteEnv;

use crate::config::{self, Settings, keys};
use crate::{args, hub};

/// The variable by which shells ask.
pub(crate) const VARIABLE: &str = "BITNET_COMPLETE";

/// Answers a shell that asks, and ends the program then.
pub(crate) fn answer() {
    CompleteEnv::with_factory(|| with_completers(args::command())).var(VARIABLE).complete();
}

/// The command line with what completes models and settings.
fn with_completers(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let is_config = name == "config";
    let command = command
        .mut_args(|arg| if is_model(&name, &arg) { arg.add(ArgValueCompleter::new(models)) } else { arg });
    command.mut_subcommands(|sub| {
        let sub = with_completers(sub);
        if is_config { sub.mut_args(setting) } else { sub }
    })
}

/// Whether an argument of a command is a model.
fn is_model(command: &str, arg: &Arg) -> bool {
    matches!(
        (command, arg.get_id().as_str()),
        (_, "model" | "models") | ("run", "name") | ("compare", "a" | "b")
    )
}

fn setting(arg: Arg) -> Arg {
    if arg.get_id() == "name" { arg.add(ArgValueCompleter::new(settings)) } else { arg }
}

/// Names of models in the cache, and paths.
fn models(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = beginning_with(current, cached());
    found.extend(PathCompleter::any().complete(current));
    found
}

/// Models in the cache. What goes wrong offers nothing: a shell has no place for errors.
fn cached() -> Vec<String> {
    if let Ok(settings) = Settings::load() {
        config::install(settings);
    }
    let Ok(hub) = hub::config() else { return Vec::new() };
    let repos = bitnet_hub::Cache::new(hub.cache).repos().unwrap_or_default();
    repos.iter().map(|repo| repo.repo.to_string()).collect()
}

fn settings(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(current, keys::all().iter().map(keys::Setting::name).collect())
}

fn beginning_with(current: &OsStr, words: Vec<String>) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    words.into_iter().filter(|word| word.starts_with(current)).map(CompletionCandidate::new).collect()
}
