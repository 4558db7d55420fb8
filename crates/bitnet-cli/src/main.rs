//! The command `bitnet`: what a terminal adds to the library.
//!
//! [`args`] are the clap types and nothing else, [`commands`] run them, [`output`] writes,
//! [`report`] draws. Results go to stdout, all else to stderr. Exit codes: 0 done, 1 it failed, 2 it was asked for
//! wrongly, 130 interrupted.
#![allow(rustdoc::broken_intra_doc_links, reason = "comments of arguments are help texts, with brackets")]
#![forbid(unsafe_code)]

mod args;
mod commands;
mod error;
mod hub;
mod interrupt;
mod model;
mod output;
mod report;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let cli = args::Cli::parse_from(args::with_llama_spellings(std::env::args_os()));
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}
