//! `cargo xtask smoke`: builds the `bitnet` program as a user gets it and reads the text it writes.
//!
//! It checks that the first command of the README works, that greedy text does not depend on the number of threads and
//! the kernel set, and that `bitnet bench` measures something. What the text says is checked by the engine's own tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Failure, Outcome, PROFILE, Workspace, executable, read_stdout, run_within};

const PROMPT: &str = "Once upon a time";

/// Far above what a run takes, far below what a hanging thread pool would.
const LIMIT: Duration = Duration::from_secs(300);

/// Builds the program and runs it.
///
/// # Errors
/// When it does not build, does not exit with 0, writes no text, the text depends on threads or kernels, or no speed is
/// measured.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let program = build(workspace)?;
    let sampled = generate(&program, &["--seed", "1"])?;
    if continuation(&sampled).is_empty() {
        return Err(Failure(format!("`bitnet generate` continued the prompt with nothing: {sampled:?}")));
    }
    eprintln!("{}", sampled.trim_end());

    let greedy = generate(&program, &["--temp", "0", "--threads", "1"])?;
    let mut ways = vec![["--threads", "2"].map(str::to_owned)];
    ways.extend(kernel_sets(&program)?.into_iter().map(|name| ["--kernels".to_owned(), name]));
    for [flag, value] in ways {
        let text = generate(&program, &["--temp", "0", &flag, &value])?;
        if text != greedy {
            return Err(Failure(format!(
                "the greedy text depends on {flag}\n  one thread, default kernels: {greedy:?}\n  {flag} {value}: {text:?}"
            )));
        }
    }
    bench(&program)
}

/// Measures a little, and reads what comes out.
fn bench(program: &Path) -> Outcome {
    let mut command = Command::new(program);
    command.args(["bench", "-p", "16", "-n", "4", "-r", "1", "-o", "json"]);
    let text = run_within(&mut command, LIMIT)?;
    let speeds = serde_json::from_str::<Value>(&text).map_or_else(|_| Vec::new(), |rows| speeds(&rows));
    match speeds[..] {
        [prompt, generation] if prompt > 0.0 && generation > 0.0 => Ok(()),
        _ => Err(Failure(format!("`bitnet bench` measured no speed of two tests: {text}"))),
    }
}

/// Tokens a second of each test.
fn speeds(rows: &Value) -> Vec<f64> {
    rows.as_array()
        .map_or_else(Vec::new, |rows| rows.iter().filter_map(|row| row["avg_ts"].as_f64()).collect())
}

/// The kernel sets that this processor can run.
fn kernel_sets(program: &Path) -> Result<Vec<String>, Failure> {
    let text = run_within(Command::new(program).args(["devices", "--json"]), LIMIT)?;
    let wrong = || Failure(format!("`bitnet devices --json` does not list kernel sets: {text:?}"));
    let devices: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    let sets = devices["devices"][0]["kernel_sets"].as_array().ok_or_else(wrong)?;
    let available = sets.iter().filter(|set| set["available"] == true);
    available.map(|set| set["name"].as_str().map(str::to_owned).ok_or_else(wrong)).collect()
}

/// Builds `bitnet` alone, with the features that a user's build has, and returns where it lies.
///
/// # Errors
/// When it does not build.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let messages = read_stdout(&mut workspace.cargo(&[
        "build",
        "--package",
        "bitnet-cli",
        "--bin",
        "bitnet",
        "--profile",
        PROFILE,
        "--locked",
        "--message-format",
        "json-render-diagnostics",
    ]))?;
    executable(&messages, "bitnet")
        .ok_or_else(|| Failure("cargo built bitnet-cli but named no `bitnet` executable".to_owned()))
}

fn generate(program: &Path, options: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command.args(["generate", PROMPT, "-n", "16"]).args(options);
    run_within(&mut command, LIMIT)
}

/// What follows the prompt; the program may or may not repeat the prompt itself.
fn continuation(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix(PROMPT).unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_found_among_the_figures() {
        let rows = serde_json::json!([{"avg_ts": 1.5, "test": "pp16"}, {"avg_ts": 2.0}, {"avg_ts": null}]);
        assert_eq!(speeds(&rows), [1.5, 2.0]);
        assert!(speeds(&Value::Null).is_empty());
    }

    #[test]
    fn the_prompt_alone_is_no_text() {
        assert_eq!(continuation("Once upon a time\n"), "");
        assert_eq!(continuation(" \n"), "");
        assert_eq!(continuation("Once upon a time, there was"), ", there was");
        assert_eq!(continuation(", there was"), ", there was");
    }
}
