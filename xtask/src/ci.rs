//! `cargo xtask ci`: the steps that must pass, cheapest first.
//!
//! Clippy, tests, documentation and the smoke test share the `ci` profile, so that each dependency is checked once
//! and compiled once. The ARM64 self-test is built by itself, by another compiler.

use std::time::Instant;

use crate::process::{self, Failure, Outcome, PROFILE, Workspace};
use crate::{arm64, book, clients, ptx, smoke, soak, tests_step, tidy, web};

/// A named step; some return a line worth repeating at the end.
struct Step {
    name: &'static str,
    action: fn(&Workspace) -> Result<Option<String>, Failure>,
}

const STEPS: [Step; 13] = [
    Step { name: "format", action: |workspace| quiet(format(workspace)) },
    Step { name: "tidy", action: |workspace| quiet(tidy::run(workspace)) },
    Step { name: "ptx", action: |workspace| quiet(ptx::run(workspace, true)) },
    Step { name: "clippy", action: |workspace| quiet(clippy(workspace)) },
    Step { name: "tests", action: tests_step::tests },
    Step { name: "doctests", action: |workspace| quiet(tests_step::doctests(workspace)) },
    Step { name: "documentation", action: |workspace| quiet(documentation(workspace)) },
    Step { name: "smoke", action: |workspace| quiet(smoke::run(workspace)) },
    Step { name: "book", action: book::step },
    Step { name: "web", action: |workspace| quiet(web::run(workspace)) },
    Step { name: "clients", action: |workspace| quiet(clients::run(workspace)) },
    Step { name: "soak", action: soak::step },
    Step { name: "arm64", action: arm64::step },
];

/// Runs every step, stopping at the first that fails.
///
/// # Errors
/// The failure of that step, with its name.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let start = Instant::now();
    let mut report = Vec::new();
    for (index, step) in STEPS.iter().enumerate() {
        eprintln!("==> [{}/{}] {}", index + 1, STEPS.len(), step.name);
        let step_start = Instant::now();
        let remark = (step.action)(workspace)
            .map_err(|Failure(message)| Failure(format!("step `{}` failed: {message}", step.name)))?;
        let seconds = step_start.elapsed().as_secs_f64();
        eprintln!("<== {} passed in {seconds:.1} s\n", step.name);
        report.push(format!("{:<14}{seconds:>8.1} s  {}", step.name, remark.unwrap_or_default().trim()));
    }
    for line in report {
        eprintln!("{}", line.trim_end());
    }
    eprintln!("ci: all {} steps passed in {:.1} s", STEPS.len(), start.elapsed().as_secs_f64());
    Ok(())
}

fn quiet(outcome: Outcome) -> Result<Option<String>, Failure> {
    outcome.map(|()| None)
}

fn format(workspace: &Workspace) -> Outcome {
    process::run(&mut workspace.cargo(&["fmt", "--all", "--check"]))
        .map_err(|Failure(message)| Failure(format!("{message}; `cargo fmt --all` repairs it")))
}

fn clippy(workspace: &Workspace) -> Outcome {
    process::run(&mut workspace.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--profile",
        PROFILE,
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

fn documentation(workspace: &Workspace) -> Outcome {
    let flags = match std::env::var("RUSTDOCFLAGS") {
        Ok(flags) if !flags.is_empty() => format!("{flags} -D warnings"),
        _ => "-D warnings".to_owned(),
    };
    process::run(
        workspace
            .cargo(&["doc", "--workspace", "--no-deps", "--profile", PROFILE, "--locked"])
            .env("RUSTDOCFLAGS", flags),
    )
}
