//! `cargo xtask record`: the recorded terminal session of the README, `docs/session.svg`.
//!
//! `docs/session.txt` lists commands; a line of dashes clears the screen. Each is shown as if it were typed, and run in a terminal of its own by `script` of
//! util-linux, with the program just built; what it writes is interpreted as a terminal does ([`terminal`]) and becomes an
//! animated picture ([`svg`]). Texts and speeds are those of the machine that records.

mod svg;
mod terminal;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use self::terminal::{Recorder, Recording};
use crate::process::{Failure, Outcome, Workspace, answers};
use crate::smoke;

const SESSION: &str = "docs/session.txt";
const PICTURE: &str = "docs/session.svg";

/// The line that clears the screen.
const CLEAR: &str = "---";

/// Size of the terminal.
const ROWS: u16 = 22;
const COLUMNS: u16 = 100;

/// How long a letter takes to type.
const LETTER: Duration = Duration::from_millis(35);
/// How long a result is looked at before the next command.
const PAUSE: Duration = Duration::from_millis(1800);
/// The longest that nothing happens, however long it took.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long the end is shown before it begins anew.
const END: Duration = Duration::from_secs(6);

/// The largest picture that a page should load.
const MOST_BYTES: usize = 100 << 10;

/// Records the session.
///
/// # Errors
/// When a command fails, or `script` is not there.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    if !answers(Command::new("script")) {
        return Err(Failure("`script` of util-linux is needed to record".to_owned()));
    }
    let program = smoke::build(workspace)?;
    let session = workspace.root().join(SESSION);
    let text = fs::read_to_string(&session)
        .map_err(|error| Failure(format!("cannot read {}: {error}", session.display())))?;
    let commands = commands(&text);
    // Files that the commands write go with it.
    let folder = std::env::temp_dir().join(format!("bitnet-xtask-{}-session", std::process::id()));
    fs::create_dir_all(&folder)
        .map_err(|error| Failure(format!("cannot make {}: {error}", folder.display())))?;
    let mut recorder = Recorder::new(ROWS, COLUMNS);
    for command in &commands {
        if command == CLEAR {
            recorder.clear();
            continue;
        }
        type_in(&mut recorder, command);
        play(&mut recorder, command, &program, &folder)?;
        recorder.wait(PAUSE);
    }
    recorder.prompt();
    let _ = fs::remove_dir_all(&folder);
    let recording = recorder.finish(END);
    write(workspace, &recording)
}

/// The commands of a session, a line each.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn write(workspace: &Workspace, recording: &Recording) -> Outcome {
    let picture = svg::picture(recording);
    if picture.len() > MOST_BYTES {
        return Err(Failure(format!(
            "the picture has {} bytes, more than {MOST_BYTES}: shorten {SESSION}",
            picture.len()
        )));
    }
    let path = workspace.root().join(PICTURE);
    fs::write(&path, &picture)
        .map_err(|error| Failure(format!("cannot write {}: {error}", path.display())))?;
    eprintln!("{PICTURE}: {} bytes, {:.1} s", picture.len(), recording.length.as_secs_f64());
    Ok(())
}

fn type_in(recorder: &mut Recorder, command: &str) {
    recorder.prompt();
    recorder.wait(PATIENCE);
    for letter in command.chars() {
        recorder.write(letter.to_string().as_bytes());
        recorder.wait(LETTER);
    }
    recorder.write(b"\r\n");
}

/// Runs a command in a terminal, and records what it writes when it writes it.
fn play(recorder: &mut Recorder, command: &str, program: &Path, folder: &Path) -> Outcome {
    let programs = program.parent().unwrap_or(Path::new("."));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(paths).map_err(|error| Failure(error.to_string()))?;
    let inside = format!("stty cols {COLUMNS} rows {ROWS}; {command}");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &inside, "/dev/null"]);
    script
        .current_dir(folder)
        .env("PATH", path)
        .env("TERM", "xterm-256color")
        .env("BITNET_CONFIG", "")
        .env("HF_HUB_OFFLINE", "1");
    script.env("XDG_RUNTIME_DIR", std::env::temp_dir()).env("CLICOLOR_FORCE", "1");
    let failed = |why: String| Failure(format!("`{command}` {why}"));
    let mut child = script
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let mut last = Instant::now();
    let mut buffer = [0; 4096];
    if let Some(mut output) = child.stdout.take() {
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            recorder.wait(last.elapsed().min(PATIENCE));
            last = Instant::now();
            recorder.write(&buffer[..length]);
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("failed ({status})"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_lines_without_comments() {
        assert_eq!(
            commands("# one\n\nbitnet list\n  bitnet bench # all\n"),
            ["bitnet list", "bitnet bench # all"]
        );
    }
}
