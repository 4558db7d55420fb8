//! The commands, one module each.

mod bench;
mod chat;
mod devices;
mod embed;
mod generate;
mod inspect;
mod perplexity;
mod synth;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::error::CliError;
use crate::interrupt;
use crate::output::Notes;

/// Runs what the command line asks for.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, CliError> {
    interrupt::install();
    let notes = Notes::new(cli.global);
    match &cli.command {
        Command::Generate(args) => generate::run(args, notes),
        Command::Chat(args) => chat::run(args, notes),
        Command::Embed(args) => embed::run(args, notes),
        Command::Inspect(args) => inspect::run(args, notes),
        Command::Devices(args) => devices::run(args),
        Command::Perplexity(args) => perplexity::run(args, notes),
        Command::Bench(args) => bench::run(args, notes),
        Command::Synth(args) => synth::run(args, notes),
    }
}
