//! The command `bitnet`: what a terminal adds to the library.
//!
//! [`args`] are the clap types and nothing else, [`config`] is the file that gives them their defaults, [`commands`] run
//! them, [`output`] writes, [`report`] draws. Results go to stdout, all else to stderr. Exit codes: 0 done, 1 it failed,
//! 2 it was asked for wrongly, 3 some rows of a batch failed, 130 interrupted.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments of arguments are help texts, with brackets")]
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod complete;
mod config;
mod error;
mod folders;
mod hub;
mod interrupt;
mod model;
mod nearest;
mod output;
mod report;
mod running;
#[cfg(unix)]
mod unix_socket;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::parser::ValueSource;

use args::Cli;
use config::Settings;
use error::CliError;

fn main() -> ExitCode {
    // At a Tab the shell asks for words, and nothing else happens.
    complete::answer();
    let words: Vec<OsString> = args::with_llama_spellings(std::env::args_os()).collect();
    match start(&words) {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}

fn start(words: &[OsString]) -> Result<ExitCode, CliError> {
    let settings = Settings::load();
    let command =
        settings.as_ref().map_or_else(|_| args::command(), |settings| settings.apply(args::command()));
    let cli = match read(command, words) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && output::wants_json(words) => {
            output::set_format(args::LogFormat::Json);
            let text = error.to_string();
            let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
            return Err(CliError::usage(message));
        }
        Err(error) => error.exit(),
    };
    output::set_format(cli.global.log_format);
    match settings {
        Ok(settings) => config::install(settings),
        // With a broken file its own command must still work, to mend it.
        Err(_) if matches!(cli.command, args::Command::Config(_)) => {}
        Err(error) => return Err(error),
    }
    commands::run(&cli)
}

fn read(mut command: clap::Command, words: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = command.try_get_matches_from_mut(words)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    cli.global.log_format_given = matches.value_source("log_format") == Some(ValueSource::CommandLine);
    Ok(cli)
}
