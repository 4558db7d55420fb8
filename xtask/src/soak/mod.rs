//! `cargo xtask soak`: a server under load, and under everything that clients do wrong.
//!
//! - [`load`]: many clients streaming at once; no error, flat memory, every text as if its request had been alone.
//! - [`mixed`]: good, bad and aborted requests; afterwards no panic, all slots free, the block pool whole ([`condition`]).
//!
//! The `ci` step runs both for seconds; by hand `cargo xtask soak` runs 64 clients for a minute and 100,000 requests.
//! The server is the `bitnet` of the `ci` profile with the bundled model, or the program that `--program` names.

mod condition;
mod http;
mod load;
mod mixed;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::process::{Failure, Outcome, Workspace};
use crate::server::{self, Server};

/// What to run.
#[derive(Debug)]
struct Plan {
    program: Option<PathBuf>,
    clients: usize,
    seconds: u64,
    different: usize,
    requests: usize,
    threads: usize,
}

const FULL: Plan =
    Plan { program: None, clients: 64, seconds: 60, different: 24, requests: 100_000, threads: 32 };
const SHORT: Plan = Plan { program: None, clients: 16, seconds: 6, different: 6, requests: 600, threads: 16 };

/// The full form, as changed by `arguments`.
///
/// # Errors
/// Unknown arguments, a server that does not start, and what [`load`] and [`mixed`] find.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Outcome {
    soak(workspace, &plan(arguments)?).map(|_| ())
}

/// The short form; returns a line about it.
///
/// # Errors
/// As [`run`].
pub(crate) fn step(workspace: &Workspace) -> Result<Option<String>, Failure> {
    soak(workspace, &SHORT).map(Some)
}

fn soak(workspace: &Workspace, plan: &Plan) -> Result<String, Failure> {
    let program = plan.program.clone().map_or_else(|| server::program(workspace), Ok)?;
    // Every slot keeps a place for a full text, so that clients wait for each other only where they must.
    let places = plan.clients.max(plan.threads).to_string();
    let server =
        Server::start(&program, &["--parallel", &places, "--log-level", "warn", "--metrics", "--slots"])?;
    let mut told = Vec::new();
    if plan.seconds > 0 {
        let load = load::Load {
            clients: plan.clients,
            time: Duration::from_secs(plan.seconds),
            different: plan.different,
            tokens: 48,
        };
        let report = load::run(&server, load)?;
        eprintln!("{} streaming clients: {report}", plan.clients);
        told.push(report.to_string());
    }
    if plan.requests > 0 {
        let start = Instant::now();
        let report = mixed::run(&server, plan.requests, plan.threads)?;
        eprintln!("{report} ({:.1} s)", start.elapsed().as_secs_f64());
        told.push(report);
    }
    server.stop()?;
    Ok(told.join("; "))
}

/// Reads `--program PATH`, `--clients N`, `--seconds N`, `--requests N`, `--threads N`.
fn plan(arguments: &[&str]) -> Result<Plan, Failure> {
    let mut plan = Plan { program: None, ..FULL };
    let mut rest = arguments.iter();
    while let Some(&flag) = rest.next() {
        let value = *rest.next().ok_or_else(|| Failure(format!("{flag} needs a value")))?;
        let number = || value.parse::<usize>().map_err(|_| Failure(format!("{flag} {value}: not a number")));
        match flag {
            "--program" => plan.program = Some(PathBuf::from(value)),
            "--clients" => plan.clients = number()?,
            "--seconds" => plan.seconds = number()? as u64,
            "--requests" => plan.requests = number()?,
            "--threads" => plan.threads = number()?.max(1),
            _ => {
                return Err(Failure(format!(
                    "unknown argument {flag}; there are --program PATH, --clients, --seconds, --requests, --threads N"
                )));
            }
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_change_the_plan() {
        let changed = plan(&["--seconds", "5", "--program", "x"]).unwrap();
        assert_eq!((changed.seconds, changed.requests), (5, FULL.requests));
        assert_eq!(changed.program, Some(PathBuf::from("x")));
        for bad in [&["--seconds"][..], &["--seconds", "x"], &["--other", "1"]] {
            assert!(plan(bad).is_err(), "{bad:?}");
        }
    }
}
