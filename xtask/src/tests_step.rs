//! `cargo xtask test`: unit and integration tests by cargo-nextest, then doctests (which nextest does not run).
//!
//! A machine without cargo-nextest gets a pinned version built into `target/tools`; where that fails too, `cargo
//! test` runs the same tests, with a notice.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::process::{self, Failure, Outcome, PROFILE, Workspace, answers};

/// The version that is built where none is installed.
const NEXTEST_VERSION: &str = "0.9.143";

/// Unit, integration and documentation tests.
///
/// # Errors
/// When a test fails or does not compile.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    tests(workspace)?;
    doctests(workspace)
}

/// Unit and integration tests; returns the runner's summary line where the output is a log.
///
/// # Errors
/// When a test fails or does not compile.
pub(crate) fn tests(workspace: &Workspace) -> Result<Option<String>, Failure> {
    let Some(mut nextest) = nextest(workspace) else {
        eprintln!("NOTICE: cargo-nextest is not available; running `cargo test` instead");
        return process::run(&mut workspace.cargo(&[
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
            "--profile",
            PROFILE,
            "--locked",
        ]))
        .map(|()| None);
    };
    nextest.args(["run", "--workspace", "--cargo-profile", PROFILE, "--locked"]);
    process::run_and_find(&mut nextest, "Summary [")
}

/// The examples in the documentation.
///
/// # Errors
/// When an example fails or does not compile.
pub(crate) fn doctests(workspace: &Workspace) -> Outcome {
    process::run(&mut workspace.cargo(&["test", "--doc", "--workspace", "--profile", PROFILE, "--locked"]))
}

/// `cargo nextest` as installed, as built earlier into `target/tools`, or as built now.
fn nextest(workspace: &Workspace) -> Option<Command> {
    let installed = || workspace.cargo(&["nextest"]);
    if answers(installed()) {
        return Some(installed());
    }
    let tools = workspace.root().join("target").join("tools");
    let program: PathBuf = tools.join("bin").join(format!("cargo-nextest{}", std::env::consts::EXE_SUFFIX));
    let built = || {
        let mut command = Command::new(&program);
        command.arg("nextest").current_dir(workspace.root()).stdin(Stdio::null());
        command
    };
    if !answers(built()) {
        eprintln!("cargo-nextest is not installed: building version {NEXTEST_VERSION} into target/tools");
        let mut install = workspace.cargo(&[
            "install",
            "cargo-nextest",
            "--locked",
            "--version",
            NEXTEST_VERSION,
            "--root",
        ]);
        if let Err(Failure(message)) = process::run(install.arg(&tools)) {
            eprintln!("{message}");
        }
    }
    answers(built()).then(built)
}
