//! A running `bitnet serve` for the steps that talk to one.
//!
//! It listens on a free port, which it names on standard error; everything it writes is kept, for messages and to find
//! panics. Dropping a [`Server`] ends it; [`Server::stop`] asks it to end and checks how it did.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::{Failure, Outcome, Workspace, wait_within};
use crate::smoke;

/// How long loading the model may take.
const STARTUP: Duration = Duration::from_secs(120);

/// How long the end may take: running requests are finished first.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// How much of the log is kept.
const LOG_BYTES: usize = 1 << 20;

/// The program to serve with: the one that `BITNET_BIN` names, or the `bitnet` of the `ci` profile, built.
///
/// # Errors
/// When it does not build.
pub(crate) fn program(workspace: &Workspace) -> Result<PathBuf, Failure> {
    std::env::var_os("BITNET_BIN").map_or_else(|| smoke::build(workspace), |path| Ok(PathBuf::from(path)))
}

/// A server process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts `program serve` on a free port of this machine, and waits until it listens.
    ///
    /// # Errors
    /// When it does not start, or ends before it listens: the message holds what it wrote.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(program)
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure(format!("cannot run `{} serve`: {error}", program.display())))?;
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, receiver) = mpsc::channel();
        let reader = child.stderr.take().map(|stderr| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || keep_log(stderr, &log, &sender))
        });
        let mut server = Self { child, address: String::new(), log, reader };
        match receiver.recv_timeout(STARTUP) {
            Ok(address) => {
                server.address = address;
                Ok(server)
            }
            Err(_) => Err(Failure(format!(
                "`bitnet serve` named no address it listens on; it wrote:\n{}",
                server.written()
            ))),
        }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// `http://127.0.0.1:PORT/`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it wrote so far.
    pub(crate) fn written(&self) -> String {
        self.log.lock().map_or_else(|_| String::new(), |log| log.clone())
    }

    /// Asks the server to end as an operating system does, and waits for it.
    ///
    /// # Errors
    /// When it does not end in time or not with 0, or a thread of it panicked.
    pub(crate) fn stop(mut self) -> Outcome {
        let terminated = cfg!(unix)
            && Command::new("kill")
                .args(["-TERM", &self.id().to_string()])
                .status()
                .is_ok_and(|status| status.success());
        if !terminated {
            // Without signals there is no way to ask.
            return self.check_log();
        }
        let status = wait_within(&mut self.child, SHUTDOWN)
            .map_err(|error| Failure(format!("cannot wait for `bitnet serve`: {error}")))?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        match status {
            Some(status) if status.success() => self.check_log(),
            Some(status) => Err(self.failure(&format!("ended with {status} when asked to end"))),
            None => Err(self.failure(&format!("did not end within {SHUTDOWN:?} of being asked to"))),
        }
    }

    /// Fails when the log tells of a panic.
    ///
    /// # Errors
    /// The part of the log that does.
    pub(crate) fn check_log(&self) -> Outcome {
        match panics(&self.written()) {
            Some(part) => Err(Failure(format!("`bitnet serve` panicked:\n{part}"))),
            None => Ok(()),
        }
    }

    fn failure(&self, what: &str) -> Failure {
        Failure(format!("`bitnet serve` {what}; it wrote:\n{}", self.written()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what the server writes, and sends the address when it comes by.
fn keep_log(stderr: impl Read, log: &Mutex<String>, sender: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line);
        if let Some(address) = address_in(&text) {
            // Only the first is waited for.
            let _ = sender.send(address);
        }
        if let Ok(mut log) = log.lock() {
            log.push_str(&text);
            if log.len() > 2 * LOG_BYTES {
                let cut = log.ceil_char_boundary(log.len() - LOG_BYTES);
                log.drain(..cut);
            }
        }
        line.clear();
    }
}

/// `127.0.0.1:PORT` in a line that names it.
fn address_in(line: &str) -> Option<String> {
    let rest = line.split_once("http://127.0.0.1:")?.1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let port: u16 = digits.parse().ok()?;
    (port > 0).then(|| format!("127.0.0.1:{port}"))
}

/// The first panic that a log tells of, with the lines behind it.
fn panics(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.iter().position(|line| line.contains("panicked at"))?;
    Some(lines[first..].iter().take(12).copied().collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_line() {
        for line in [
            "listening on http://127.0.0.1:8080",
            "INFO x url=\"http://127.0.0.1:8080/\" y",
            "http://127.0.0.1:8080\n",
        ] {
            assert_eq!(address_in(line).as_deref(), Some("127.0.0.1:8080"), "{line}");
        }
        for line in ["", "http://127.0.0.1", "http://127.0.0.1:", "http://127.0.0.1:0", "http://10.0.0.1:80"]
        {
            assert_eq!(address_in(line), None, "{line}");
        }
    }

    #[test]
    fn a_panic_is_found_in_a_log() {
        assert_eq!(panics("all is well\n"), None);
        let log = "a\nthread 'x' panicked at src/y.rs:1:2:\nboom\n";
        assert_eq!(panics(log).as_deref(), Some("thread 'x' panicked at src/y.rs:1:2:\nboom"));
    }

    #[test]
    fn a_program_that_is_no_server_is_a_failure() {
        let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let Err(Failure(message)) = Server::start(Path::new(&program), &[]) else {
            panic!("rustc serves");
        };
        assert!(message.contains("named no address"), "{message}");
    }
}
