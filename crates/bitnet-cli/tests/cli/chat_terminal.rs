//! `bitnet chat` at a terminal, which `script` of util-linux makes.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A chat at a terminal of 80 columns.
struct Terminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts one; `None` where there is no `script`, as in small containers.
    fn start(state: &Path, args: &[&str], env: &[(&str, &str)]) -> Option<Self> {
        let program = env!("CARGO_BIN_EXE_bitnet");
        let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
        let command = format!("stty cols 80 rows 24; exec {program} {}", quoted.join(" "));
        let mut script = Command::new("script");
        script.args(["-qefc", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        for name in ["BITNET_MODEL", "BITNET_HISTORY", "NO_COLOR", "VISUAL", "EDITOR", "XDG_STATE_HOME"] {
            script.env_remove(name);
        }
        script
            .env("BITNET_STATE_DIR", state)
            .env("TERM", "xterm")
            .env("HF_HUB_OFFLINE", "1")
            .envs(env.iter().copied());
        let mut child = script.spawn().ok()?;
        let mut stdout = child.stdout.take()?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = stdout.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Self { child, output, seen: String::new() })
    }

    /// Waits until the program has written this.
    fn wait_for(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "no {text:?} in {:?}", self.seen);
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
                self.seen += &String::from_utf8_lossy(&bytes);
            }
        }
    }

    fn send(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }

    /// Waits until it ends; gives its exit code.
    fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn lines_are_edited_completed_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let editor = folder.path().join("editor.sh");
    std::fs::write(&editor, "printf ' from the editor' >> \"$1\"").unwrap();
    let editor = format!("sh {}", editor.display());
    let args = ["chat", "--seed", "5", "-n", "12"];
    let Some(mut terminal) = Terminal::start(folder.path(), &args, &[("VISUAL", &editor)]) else { return };
    terminal.wait_for("/help lists the commands");
    terminal.wait_for("> ");
    // Tab completes the command, and the name of the setting.
    terminal.send("/sho\tpar\t\r");
    terminal.wait_for("temp ");
    terminal.wait_for("context-shift");
    terminal.wait_for("> ");
    // Text in quotes goes on over lines; the answer ends with its speed.
    terminal.send("\"\"\"Tell me\ra story.\"\"\"\r");
    terminal.wait_for("tok/s; context ");
    terminal.wait_for("> ");
    // Ctrl-G opens the editor with the line, which comes back to be sent.
    terminal.send("Hello\u{7}");
    terminal.wait_for("Hello from the editor");
    terminal.send("\r");
    terminal.wait_for("tok/s; context ");
    terminal.wait_for("> ");
    // One Ctrl-C at the prompt only warns; a line between makes the next one the first again.
    terminal.send("\u{3}");
    terminal.wait_for("Ctrl-C again");
    terminal.send("/tokens\r");
    terminal.wait_for("are left");
    terminal.wait_for("> ");
    terminal.send("\u{3}");
    terminal.wait_for("Ctrl-C again");
    // Only the prompt shows that the terminal gives keys to the program again.
    terminal.wait_for("> ");
    terminal.send("\u{3}");
    assert_eq!(terminal.end(), Some(0));
    let history = std::fs::read_to_string(folder.path().join("history")).unwrap();
    assert!(history.contains("Tell me") && history.contains("from the editor"), "{history}");
    let saved = std::fs::read_to_string(folder.path().join("sessions/last.json")).unwrap();
    assert!(saved.contains("Hello from the editor"), "{saved}");

    let Some(mut terminal) = Terminal::start(folder.path(), &["chat", "--continue"], &[]) else { return };
    terminal.wait_for("going on with last: 2 turns");
    terminal.wait_for("> ");
    // The line before the last is that of the conversation before.
    terminal.send("\u{10}\u{10}");
    terminal.wait_for("from the editor");
    terminal.send("\u{3}");
    terminal.wait_for("Ctrl-C again");
    terminal.wait_for("> ");
    terminal.send("\u{4}");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn ctrl_c_stops_an_answer_and_the_conversation_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    // A text that does not end before the context does, of which the first word tells that it has begun.
    let args = [
        "chat",
        "--regex",
        "Begin [a-z ]{100000}",
        "-n",
        "-1",
        "--no-save",
        "-t",
        "1",
        "--kernels",
        "scalar",
    ];
    let Some(mut terminal) = Terminal::start(folder.path(), &args, &[]) else { return };
    terminal.wait_for("> ");
    terminal.send("Hello\r");
    terminal.wait_for("Begin");
    terminal.send("\u{3}");
    terminal.wait_for("(stopped)");
    terminal.wait_for("> ");
    terminal.send("/bye\r");
    assert_eq!(terminal.end(), Some(0));
    assert!(!folder.path().join("sessions").exists());
}

#[test]
fn markdown_is_rendered_on_a_terminal_only() {
    let folder = tempfile::tempdir().unwrap();
    let text = "# Foxes\n\nThey are **red**.";
    let args = ["chat", "-q", "--choice", text, "Hi"];
    assert_eq!(crate::support::stdout(&args), format!("{text}\n"));
    let raw = [&args[..], &["--raw"]].concat();
    for (args, env, want) in [
        (&args[..], &[][..], "\u{1b}[1mred\u{1b}[0m"),
        (&args[..], &[("NO_COLOR", "1")][..], "**red**"),
        (&raw[..], &[][..], "**red**"),
    ] {
        let Some(mut terminal) = Terminal::start(folder.path(), args, env) else { return };
        terminal.wait_for(want);
        assert_eq!(terminal.end(), Some(0));
    }
}
