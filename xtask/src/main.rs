//! Maintenance commands of the workspace, run as `cargo xtask <command>`.
//!
//! - `ci`: everything that must hold before a change is merged, cheapest step first ([`ci`]).
//! - `tidy`: the rules of this repository that no compiler checks ([`tidy`]).
//! - `test`: unit, integration and documentation tests ([`tests_step`]).
//! - `smoke`: builds the `bitnet` program and reads the text it writes ([`smoke`]).
//! - `book`: the commands and links of the book in `docs/`, and its reference of the command line ([`book`]).
//! - `record`: the recorded terminal session of the README ([`record`]).
//! - `web`: the chat page in headless Chromium ([`web`]).
//! - `clients`: the official clients of OpenAI, ollama and Anthropic against a running server ([`clients`]).
//! - `soak`: a server under load and under everything that clients do wrong ([`soak`]).
//! - `ptx`: the PTX of the CUDA kernels ([`ptx`]).
//! - `mlx`: the MLX executor on MLX's CPU build for Linux ([`mlx`]).
//! - `arm64`: cross-compiles the ARM64 kernels and runs them under qemu ([`arm64`]).
//!
//! No part of the engine lives here, and xtask depends on no crate of the engine, so that `tidy` can run while the
//! engine does not compile.

#![forbid(unsafe_code)]
// Printing is what a command-line tool is for.
#![allow(clippy::print_stderr)]

mod arm64;
mod book;
mod ci;
mod clients;
mod mlx;
mod packages;
mod process;
mod ptx;
mod record;
mod server;
mod smoke;
mod soak;
mod tests_step;
mod tidy;
mod web;

use std::process::ExitCode;

use process::{Failure, Workspace};

const USAGE: &str = "\
usage: cargo xtask <command>

commands:
  ci      formatting, tidy, PTX, clippy, tests, doctests, documentation, smoke, book, web, clients, soak, arm64; stops at the first failure
  tidy    repository rules: module heads, file and function length, unsafe, crate layers, links, test data
  test    unit and integration tests (cargo-nextest) and doctests
  smoke   build the bitnet program and check that it writes text, the same text for any number of threads
  book    run the commands of README and book, check that its reference is that of the program [--write]
  record  record the terminal session of docs/session.txt as an SVG (Linux)
  web     test the chat page in headless Chromium, against a running server (needs node and Chromium)
  clients run the official clients of OpenAI, ollama and Anthropic (needs Python and node, installs packages)
  soak    64 streaming clients for a minute, then 100,000 good, bad and aborted requests [--requests N ...]
  ptx     compile the CUDA kernels to the PTX of the repository [--check] (needs Python and g++, installs nvcc)
  mlx     fetch MLX for Linux, compile its C API, test the MLX executor (needs Python and a C++ compiler)
  arm64   cross-compile the ARM64 kernels and run their self-test under qemu (x86-64 Linux)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let workspace = Workspace::from_environment();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ci"] => ci::run(&workspace),
        ["tidy"] => tidy::run(&workspace),
        ["test"] => tests_step::run(&workspace),
        ["smoke"] => smoke::run(&workspace),
        ["book"] => book::run(&workspace, false),
        ["book", "--write"] => book::run(&workspace, true),
        ["record"] => record::run(&workspace),
        ["web"] => web::run(&workspace),
        ["clients"] => clients::run(&workspace),
        ["soak", ref options @ ..] => soak::run(&workspace, options),
        ["ptx"] => ptx::run(&workspace, false),
        ["ptx", "--check"] => ptx::run(&workspace, true),
        ["mlx"] => mlx::run(&workspace),
        ["arm64"] => arm64::run(&workspace),
        [] | ["help" | "-h" | "--help"] => {
            eprintln!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("unknown command: {}\n\n{USAGE}", arguments.join(" "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
