//! Running cargo and the programs it built: the [`Workspace`] they run in, and [`Failure`], what a step reports.
//!
//! Programs are started directly, never through a shell, so that Windows works like every other system.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Why a step failed, as one message for a person.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// The outcome of a step.
pub(crate) type Outcome = Result<(), Failure>;

/// The profile that lints, tests, documentation and the smoke test share, so that dependencies compile once.
pub(crate) const PROFILE: &str = "ci";

/// The repository being worked on and the cargo that works on it.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    cargo: OsString,
}

impl Workspace {
    /// The workspace that this xtask belongs to, with the cargo that started it.
    pub(crate) fn from_environment() -> Self {
        let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir.parent().map_or_else(|| manifest_dir.clone(), Path::to_path_buf);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        Self { root, cargo }
    }

    /// The root directory of the repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo command in the root of the workspace.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(arguments).current_dir(&self.root).stdin(Stdio::null());
        command
    }
}

/// Runs a command whose output goes straight to the terminal or log.
///
/// # Errors
/// When the program cannot be started or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let line = describe(command);
    let status = command.status().map_err(|error| cannot_start(&line, &error))?;
    check(&line, status)
}

/// Like [`run`], and returns the last line of standard error that contains `needle`, where the output goes to a log.
///
/// At a terminal nothing is intercepted, so that progress bars work, and the result is `None`.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_and_find(command: &mut Command, needle: &str) -> Result<Option<String>, Failure> {
    if std::io::stderr().is_terminal() {
        return run(command).map(|()| None);
    }
    let line = describe(command);
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| cannot_start(&line, &error))?;
    let mut found = None;
    if let Some(stderr) = child.stderr.take() {
        let mut reader = BufReader::new(stderr);
        let mut buffer = Vec::new();
        while reader.read_until(b'\n', &mut buffer).is_ok_and(|length| length > 0) {
            // A log that cannot be written to is no reason to stop the step.
            let _ = std::io::stderr().write_all(&buffer);
            let text = String::from_utf8_lossy(&buffer);
            if text.contains(needle) {
                found = Some(text.trim_end().to_owned());
            }
            buffer.clear();
        }
    }
    let status = child.wait().map_err(|error| cannot_start(&line, &error))?;
    check(&line, status).map(|()| found)
}

/// Runs a command for its standard output; standard error goes to the log. For commands that print little.
///
/// # Errors
/// As [`run`].
pub(crate) fn read_stdout(command: &mut Command) -> Result<String, Failure> {
    let line = describe(command);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| cannot_start(&line, &error))?;
    check(&line, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program that must exit with 0 within `limit`; returns its standard output.
///
/// # Errors
/// When it cannot be started, runs past the limit (it is then ended) or does not exit with 0: the message holds what
/// it wrote. When its standard output is not UTF-8.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<String, Failure> {
    let line = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(&line, &error))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait_within(&mut child, limit).map_err(|error| cannot_start(&line, &error))?;
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let wrote = || format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let Some(status) = status else {
        return Err(Failure(format!("`{line}` did not end within {limit:?}; it wrote:\n{}", wrote())));
    };
    if !status.success() {
        return Err(Failure(format!("`{line}` failed ({status}); it wrote:\n{}", wrote())));
    }
    String::from_utf8(stdout).map_err(|_| Failure(format!("`{line}` wrote text that is not UTF-8")))
}

/// Whether the program of `command` starts and knows its version.
pub(crate) fn answers(mut command: Command) -> bool {
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The path of the executable `name` in cargo's JSON messages (one to a line).
pub(crate) fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_wanted = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| is_wanted).map(PathBuf::from)
    })
}

/// The exit status, or `None` for a child that had to be ended.
pub(crate) fn wait_within(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe never blocks the child.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What could be read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn check(line: &str, status: ExitStatus) -> Outcome {
    if status.success() { Ok(()) } else { Err(Failure(format!("`{line}` failed ({status})"))) }
}

fn cannot_start(line: &str, error: &std::io::Error) -> Failure {
    Failure(format!("cannot run `{line}`: {error}"))
}

/// The command as a person would type it.
fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_stem().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let mut line = program;
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        line.push(' ');
        if argument.contains(' ') {
            line.push('"');
            line.push_str(&argument);
            line.push('"');
        } else {
            line.push_str(&argument);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustc(arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc")));
        command.args(arguments);
        command
    }

    #[test]
    fn a_failing_program_is_named_with_its_words() {
        let limit = Duration::from_secs(60);
        let Err(Failure(message)) = run_within(&mut rustc(&["--no-such-flag"]), limit) else {
            panic!("an unknown flag was accepted");
        };
        assert!(message.contains("rustc --no-such-flag"), "{message}");
        assert!(message.contains("no-such-flag'"), "{message}");
    }

    #[test]
    fn output_is_returned() {
        let text = run_within(&mut rustc(&["--version"]), Duration::from_secs(60)).unwrap();
        assert!(text.starts_with("rustc "), "{text}");
    }

    #[test]
    fn a_program_that_cannot_start_is_a_failure() {
        let Err(Failure(message)) = run(&mut Command::new("no-such-program-anywhere")) else {
            panic!("a missing program was started");
        };
        assert!(message.starts_with("cannot run `no-such-program-anywhere`"), "{message}");
    }

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"bitnet_core"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"build-script-build"},"executable":null}
            a line that is not JSON
            {"reason":"compiler-artifact","target":{"name":"bitnet"},"executable":"/t/ci/bitnet"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "bitnet"), Some(PathBuf::from("/t/ci/bitnet")));
        assert_eq!(executable(messages, "other"), None);
    }

    #[test]
    fn arguments_with_spaces_are_quoted() {
        let mut command = Command::new("bitnet");
        command.args(["generate", "Once upon a time"]);
        assert_eq!(describe(&command), "bitnet generate \"Once upon a time\"");
    }
}
