//! Whether values are possible: flags read them as on the command line, the server as it does when it starts.

use std::error::Error;

use bitnet_server::config::{ConfigError, ConfigSources};
use clap::Command;
use clap::builder::Resettable;

use super::keys::{self, FlagSetting, Setting};
use super::{HUB_SWITCH, Settings};
use crate::args;
use crate::error::CliError;

/// Checks all values.
///
/// # Errors
/// The first that is not possible.
pub(crate) fn check(settings: &Settings) -> Result<(), CliError> {
    let path =
        settings.path.as_ref().map_or_else(|| "the settings".to_owned(), |path| path.display().to_string());
    for (name, value) in &settings.values {
        let problem = match keys::find(name) {
            Some(Setting::Flag(flag)) => problem(&flag, value),
            Some(Setting::Hub(hub)) if hub.name == HUB_SWITCH && value.parse::<bool>().is_err() => {
                Some("it must be true or false".to_owned())
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(CliError::usage(format!("{path}: {name} = {value:?} is not possible: {problem}")));
        }
    }
    let section = settings.section();
    ConfigSources { section, ..ConfigSources::default() }.load().map_err(|error| match error {
        ConfigError::Value { .. } => CliError::usage(format!("{path}, [server]: {error}")),
        error => CliError::of(&error, true),
    })?;
    Ok(())
}

/// What is wrong with the value of a flag.
fn problem(flag: &FlagSetting, value: &str) -> Option<String> {
    let word = format!("--{}={value}", flag.arg.get_long()?);
    let error =
        without_environment(args::command()).try_get_matches_from(["bitnet", "generate", &word]).err()?;
    if let Some(reason) = error.source() {
        return Some(reason.to_string());
    }
    let possible: Vec<String> =
        flag.arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    Some(if possible.is_empty() {
        error.kind().to_string()
    } else {
        format!("it must be {}", possible.join(", "))
    })
}

/// The same command line, deaf to the environment.
fn without_environment(command: Command) -> Command {
    let command = command.mut_args(|arg| arg.env(Resettable::Reset));
    command.mut_subcommands(without_environment)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn values_are_read_as_the_flags_do() {
        for (text, part) in [
            ("threads = 0", "at least 1"),
            ("weight_form = \"3bit\"", "auto, 2bit, 1.6bit"),
            ("[sampling]\ntop_p = 2", "from 0 to 1"),
            ("[hub]\noffline = \"perhaps\"", "true or false"),
            ("[server]\nparallel = 0", "parallel"),
            ("[server]\nprot = 0", "did you mean `port`?"),
        ] {
            let settings = Settings::read(Path::new("c.toml"), text).unwrap();
            let Err(CliError::Failed { message, .. }) = check(&settings) else { panic!("{text} passed") };
            assert!(message.contains(part) && message.contains("c.toml"), "{text}: {message}");
        }
        let good = "model = \"a\"\nthreads = 2\n[sampling]\ntemp = 0\ntop_k = 5\n[server]\nport = 1\n";
        check(&Settings::read(Path::new("c.toml"), good).unwrap()).unwrap();
    }
}
