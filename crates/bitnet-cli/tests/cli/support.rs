//! Running the command, and small models for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use assert_cmd::Command;

/// The command with nothing of the tester's environment that changes what it does.
pub(crate) fn bitnet(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("bitnet").unwrap();
    for name in ["BITNET_MODEL", "BITNET_THREADS", "BITNET_KERNELS", "BITNET_HISTORY", "VISUAL", "EDITOR"] {
        command.env_remove(name);
    }
    for name in
        ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "SSL_CERT_FILE"]
    {
        command.env_remove(name);
    }
    // Nor does what the tester set once and for all.
    command.env("BITNET_CONFIG", "").env("XDG_RUNTIME_DIR", "/dev/null/runtime");
    // No test reaches out; those that need a Hub bring one.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent/huggingface");
    // Nothing is kept in the tester's folders.
    command.env("BITNET_STATE_DIR", "/nonexistent/bitnet");
    command.env("NO_COLOR", "1").args(args);
    command
}

/// What the command printed.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs it with this on stdin.
pub(crate) fn run_with(args: &[&str], stdin: &str) -> Output {
    let output = bitnet(args).write_stdin(stdin).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs it with nothing on stdin.
pub(crate) fn run(args: &[&str]) -> Output {
    run_with(args, "")
}

/// Runs it; it must succeed.
pub(crate) fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
    output.stdout
}

/// Runs it; it must fail with this exit code and one line that begins with `error:` and contains all of `parts`.
pub(crate) fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = run(args);
    assert_eq!(output.code, Some(code), "{args:?}: {output:?}");
    assert_eq!(output.stdout, "", "{args:?}");
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{args:?}: {}", output.stderr);
    // The complaints of clap take several lines.
    let said = if code == 2 { &output.stderr } else { errors[0] };
    for part in parts {
        assert!(said.contains(part), "{args:?}: no {part:?} in {}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{args:?}: {}", output.stderr);
}

/// Writes the bundled model as a folder.
pub(crate) fn write_model(folder: &Path) {
    for (name, bytes) in bitnet_tiny::files() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The server as a process; killed if a test fails.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) address: String,
    pub(crate) log: BufReader<std::process::ChildStderr>,
}

/// Starts a server on a free port, with these variables in its environment.
pub(crate) fn serve(args: &[&str], variables: &[(&str, &str)]) -> Serving {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bitnet"));
    command.args(["serve", "--port", "0", "--threads", "1"]).args(args);
    command.env("NO_COLOR", "1").env("BITNET_CONFIG", "").env("XDG_RUNTIME_DIR", "/dev/null/runtime");
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
        if let Some((_, rest)) = line.split_once("serving at ") {
            let url = rest.split([',', ';']).next().unwrap().trim();
            break url.strip_prefix("http://").unwrap_or(url).to_owned();
        }
    };
    Serving { child, address, log }
}

impl Serving {
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
