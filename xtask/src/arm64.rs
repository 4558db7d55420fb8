//! `cargo xtask arm64`: the ARM64 kernels, compiled and run for real on an x86-64 machine.
//!
//! The self-test program of `bitnet-cpu` is cross-compiled and run by `qemu-aarch64-static`, once for each of a few
//! processors that differ in what they can do. It is a plain program on one thread: under qemu's user-mode emulation a
//! second thread may hang, and libtest always starts one.
//!
//! What is needed are an ARM64 standard library for some rustc, a linker with its C library, and qemu. A rustup
//! toolchain may have that target; otherwise Debian's `rustc-web` is used. A machine of CI gets the packages installed;
//! anywhere else nothing is installed, and a failure says what is missing and which command installs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::packages;
use crate::process::{self, Failure, Outcome, Workspace, answers};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64-static";
/// Where the C library for programs of that target lies.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
/// The rustc of Debian's packages, which finds ARM64 libraries that were installed beside its own.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Debian's packages; the standard library is that of another architecture.
const PACKAGES: [&str; 5] = [
    "rustc-web",
    "libstd-rust-web-dev:arm64",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user-static",
];

/// Processors as qemu names them, and the kernel sets that each can run, the fastest first. On each the conformance suite
/// runs with the first set; that a set is run where nothing better is there also shows that it asks for no more than it
/// says.
const PROCESSORS: [(&str, &[&str]); 3] = [
    ("max", &["neon-i8mm", "neon-dotprod", "neon", "scalar"]),
    ("cortex-a76", &["neon-dotprod", "neon", "scalar"]),
    ("cortex-a53", &["neon", "scalar"]),
];

/// The cargo profile of the self-test: dependencies need not be fast, only built fast.
const PROFILE: &str = "emulated";

/// Far above what the self-test takes, far below what a program that hangs would.
const LIMIT: Duration = Duration::from_secs(1200);

/// Builds the self-test and runs it on every processor.
///
/// # Errors
/// When tools are missing, the program does not build, or a check fails.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    if let Some(reason) = unsuitable() {
        return Err(Failure(reason));
    }
    let report = test(workspace, &tools()?)?;
    eprintln!("{report}");
    Ok(())
}

/// As [`run`], as a step of `ci`: where it cannot run, the result says why.
///
/// # Errors
/// As [`run`]; missing tools are an error only on a machine of CI, which could have installed them.
pub(crate) fn step(workspace: &Workspace) -> Result<Option<String>, Failure> {
    let skipped = |reason: String| {
        eprintln!("{reason}");
        Ok(Some(format!("skipped: {}", reason.lines().next().unwrap_or_default())))
    };
    if let Some(reason) = unsuitable() {
        return skipped(reason);
    }
    match tools() {
        Ok(tools) => test(workspace, &tools).map(Some),
        Err(Failure(reason)) if !packages::may_install() => skipped(reason),
        Err(failure) => Err(failure),
    }
}

/// Why this machine is not one to emulate ARM64 on, if it is not.
fn unsuitable() -> Option<String> {
    if cfg!(target_arch = "aarch64") {
        return Some("this is an ARM64 machine: the tests of the workspace run its kernels".to_owned());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some("ARM64 programs are emulated on x86-64 Linux only".to_owned());
    }
    None
}

/// The compiler to use; the other tools have only one name.
///
/// # Errors
/// When something is missing that may not, or cannot, be installed.
fn tools() -> Result<PathBuf, Failure> {
    match find_tools() {
        Ok(rustc) => Ok(rustc),
        Err(missing) if packages::may_install() => {
            eprintln!("missing: {}; installing packages", missing.join(", "));
            packages::install(&commands())?;
            find_tools().map_err(|missing| Failure(still_missing(&missing)))
        }
        Err(missing) => Err(Failure(still_missing(&missing))),
    }
}

fn still_missing(missing: &[String]) -> String {
    packages::advice(missing, &commands())
}

/// The compiler, or what is missing.
fn find_tools() -> Result<PathBuf, Vec<String>> {
    let default = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let rustc = [default, PathBuf::from(DEBIAN_RUSTC)].into_iter().find(|rustc| has_target(rustc));
    let mut missing = Vec::new();
    if rustc.is_none() {
        missing.push(format!("a rustc with the standard library of {TARGET}"));
    }
    for tool in [LINKER, EMULATOR] {
        if !answers(Command::new(tool)) {
            missing.push(tool.to_owned());
        }
    }
    if !Path::new(LIBRARIES).join("include/stdio.h").exists() {
        missing.push(format!("a C library in {LIBRARIES}"));
    }
    rustc.filter(|_| missing.is_empty()).ok_or(missing)
}

/// Whether `rustc` has a standard library for the target.
fn has_target(rustc: &Path) -> bool {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else { return false };
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

fn commands() -> Vec<Vec<&'static str>> {
    let mut commands = vec![vec!["dpkg", "--add-architecture", "arm64"]];
    commands.extend(packages::commands(&PACKAGES));
    commands
}

/// Builds the self-test with `rustc` and runs it on all processors at once; returns how many checks passed.
fn test(workspace: &Workspace, rustc: &Path) -> Result<String, Failure> {
    let program = build(workspace, rustc)?;
    let outcomes = std::thread::scope(|scope| {
        let runs = PROCESSORS.map(|(processor, arguments)| {
            let program = &program;
            scope.spawn(move || emulate(program, processor, arguments))
        });
        runs.map(|run| {
            run.join().unwrap_or_else(|_| Err(Failure("the emulator's watcher panicked".to_owned())))
        })
    });
    let mut report = Vec::new();
    for ((processor, _), outcome) in PROCESSORS.iter().zip(outcomes) {
        let text = outcome?;
        eprintln!("{processor}: {}", text.trim_end());
        let tally = text.lines().last().unwrap_or_default();
        if !is_success(tally) {
            return Err(Failure(format!("the self-test on {processor} ended with {tally:?}")));
        }
        report.push(format!("{processor}: {tally}"));
    }
    Ok(report.join("; "))
}

/// Runs the self-test on one processor; returns what it wrote.
fn emulate(program: &Path, processor: &str, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new(EMULATOR);
    command.args(["-L", LIBRARIES, "-cpu", processor]).arg(program).args(arguments);
    process::run_within(&mut command, LIMIT)
}

/// Whether the last line of the self-test says that it checked something and nothing failed.
fn is_success(tally: &str) -> bool {
    let count = tally.strip_suffix(" passed, 0 failed").and_then(|count| count.parse::<u32>().ok());
    count.is_some_and(|count| count > 0)
}

/// Builds the self-test apart from everything else: another compiler would have cargo build everything anew.
fn build(workspace: &Workspace, rustc: &Path) -> Result<PathBuf, Failure> {
    let arguments = [
        "build",
        "--package",
        "bitnet-cpu",
        "--example",
        "self_test",
        "--profile",
        PROFILE,
        "--locked",
        "--target",
        TARGET,
        "--target-dir",
        "target/arm64",
        "--message-format",
        "json-render-diagnostics",
    ];
    let mut command = workspace.cargo(&arguments);
    command.env("RUSTC", rustc).env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    let messages = process::read_stdout(&mut command)?;
    process::executable(&messages, "self_test")
        .ok_or_else(|| Failure("cargo built bitnet-cpu but named no `self_test` executable".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tally_without_failures_is_success() {
        assert!(is_success("12 passed, 0 failed"));
        for tally in
            ["", "0 passed, 0 failed", "12 passed, 1 failed", "12 passed, 10 failed", "passed, 0 failed"]
        {
            assert!(!is_success(tally), "{tally}");
        }
    }

    #[test]
    fn what_is_missing_comes_with_the_commands_that_install_it() {
        let message = still_missing(&["a tool".to_owned()]);
        for part in ["a tool", "sudo dpkg --add-architecture arm64 &&", "sudo apt-get update &&", "rustc-web"]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_compiler_without_the_target_is_seen() {
        assert!(!has_target(Path::new("no-such-program-anywhere")));
    }
}
