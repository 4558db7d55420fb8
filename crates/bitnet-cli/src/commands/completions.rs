//! `bitnet completions`: what a shell must read once to complete.

use std::process::ExitCode;

use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use crate::args::{CompletionsArgs, Shell};
use crate::complete::VARIABLE;
use crate::error::CliError;
use crate::output;

/// The program as it is found on the PATH.
const PROGRAM: &str = "bitnet";

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Elvish => &Elvish,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    output::result(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
