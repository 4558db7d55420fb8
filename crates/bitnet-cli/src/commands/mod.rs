//! The commands, one module each.

mod batch;
mod bench;
mod cached;
mod chat;
mod compare;
mod completions;
mod config;
mod constraint;
mod convert;
mod devices;
mod doctor;
mod du;
mod embed;
mod eval;
mod generate;
mod inspect;
mod list;
mod man;
mod perplexity;
mod ps;
mod pull;
mod quantize;
mod reference;
mod resume;
mod rm;
mod run;
mod serve;
mod show;
mod stop;
mod synth;
mod tokenize;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::error::CliError;
use crate::interrupt;
use crate::output::Notes;

/// Runs what the command line asks for.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, CliError> {
    // The server ends in its own way.
    if !matches!(cli.command, Command::Serve(_)) {
        interrupt::install();
    }
    let notes = Notes::new(cli.global);
    match &cli.command {
        Command::Generate(args) => generate::run(args, notes),
        Command::Chat(args) => chat::run(args, notes),
        Command::Run(args) => run::run(args, notes),
        Command::Batch(args) => batch::run(args, notes),
        Command::Serve(args) => serve::run(args, cli.global, notes),
        Command::Ps(args) => ps::run(args, notes),
        Command::Stop(args) => stop::run(args, notes),
        Command::Pull(args) => pull::run(args, notes),
        Command::List(args) => list::run(args, notes),
        Command::Show(args) => show::run(args, notes),
        Command::Rm(args) => rm::run(args, notes),
        Command::Du(args) => du::run(args, notes),
        Command::Embed(args) => embed::run(args, notes),
        Command::Inspect(args) => inspect::run(args, notes),
        Command::Tokenize(args) => tokenize::run(args, notes),
        Command::Devices(args) => devices::run(args),
        Command::Doctor(args) => doctor::run(args, notes),
        Command::Perplexity(args) => perplexity::run(args, notes),
        Command::Eval(args) => eval::run(args, notes),
        Command::Compare(args) => compare::run(args, notes),
        Command::Bench(args) => bench::run(args, notes),
        Command::Convert(args) => convert::run(args, notes),
        Command::Quantize(args) => quantize::run(args, notes),
        Command::Synth(args) => synth::run(args, notes),
        Command::Config(args) => config::run(args, notes),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args, notes),
        Command::Reference(args) => reference::run(args, notes),
    }
}
