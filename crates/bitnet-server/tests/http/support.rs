//! Servers for tests, and a client that does as it is told, also what no client should.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use bitnet_server::config::ServerConfig;
use bitnet_server::{Address, AppState, Server, ServerError};
use serde_json::Value;
use tokio::sync::oneshot;

/// How long a test waits for what must come; long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A server that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) state: AppState,
    shutdown: Option<oneshot::Sender<()>>,
    at_once: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

/// A configuration for tests: any free port, one thread that computes.
pub(crate) fn config() -> ServerConfig {
    let mut config = ServerConfig::default();
    config.port = 0;
    config.threads = Some(1);
    config
}

/// Starts a server with the bundled model.
pub(crate) fn start() -> Running {
    start_with(config())
}

/// Starts a server.
pub(crate) fn start_with(config: ServerConfig) -> Running {
    let (shutdown, ended) = oneshot::channel::<()>();
    let (at_once, ended_at_once) = oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let bound = Server::bind(config).await.unwrap();
            let Some(Address::Tcp(address)) = bound.address() else { panic!("not on the network") };
            tell.send((address, bound.server().state().clone())).unwrap();
            let wait = |channel: oneshot::Receiver<()>| async {
                if channel.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            bound.serve(wait(ended), wait(ended_at_once)).await
        })
    });
    let (address, state) = told.recv_timeout(PATIENCE).unwrap();
    let (shutdown, at_once) = (Some(shutdown), Some(at_once));
    Running { address, state, shutdown, at_once, thread: Some(thread) }
}

impl Running {
    /// A connection.
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, rest: Vec::new() }
    }

    /// Sends one request and reads its answer.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut client = self.connect();
        client.request(method, path, headers, body);
        client.answer().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Asks for an orderly end.
    pub(crate) fn ask_to_end(&mut self) {
        let _ = self.shutdown.take().map(|channel| channel.send(()));
    }

    /// Asks for an end without waiting.
    pub(crate) fn ask_to_end_at_once(&mut self) {
        let _ = self.at_once.take().map(|channel| channel.send(()));
    }

    /// Waits for the end.
    #[allow(dead_code, reason = "used when there is something to wait for")]
    pub(crate) fn join(&mut self) -> Result<(), ServerError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ask_to_end();
        self.ask_to_end_at_once();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    rest: Vec<u8>,
}

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Asserts that this is an error of this status with an error object; gives its message.
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let body = self.json();
        let error = &body["error"];
        assert!(error["type"].is_string() && error["message"].is_string(), "{body}");
        error["message"].as_str().unwrap().to_owned()
    }
}

impl Client {
    /// Sends a request.
    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).unwrap();
        // A server that has refused already may close before all is there.
        let _ = self.stream.write_all(body);
    }

    /// Reads more; false at the end.
    pub(crate) fn more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.rest.extend_from_slice(&buffer[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.rest.windows(mark.len()).position(|window| window == mark) {
                return Some(self.rest.drain(..at + mark.len()).collect());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads the head of an answer; none if the connection ends.
    pub(crate) fn head(&mut self) -> Option<Answer> {
        let head = String::from_utf8(self.until(b"\r\n\r\n")?).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        Some(Answer { status, headers, body: Vec::new() })
    }

    /// Reads an answer; none if the connection ends without one.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head()?;
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                answer.body.extend(chunk);
            }
            return Some(answer);
        }
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.rest.len() < length {
            assert!(self.more(), "the answer ended early");
        }
        answer.body = self.rest.drain(..length).collect();
        Some(answer)
    }

    /// Reads a chunk of a body; none behind the last.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = String::from_utf8(self.until(b"\r\n")?).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        while self.rest.len() < size + 2 {
            assert!(self.more(), "the answer ended early");
        }
        let chunk: Vec<u8> = self.rest.drain(..size).collect();
        self.rest.drain(..2);
        (size > 0).then_some(chunk)
    }
}
