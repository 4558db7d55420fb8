//! A Hub on loopback: an HTTP server with the addresses, headers and redirects of the real one, and with faults on order.
//!
//! It listens on two ports, one for the Hub and one for the store that large files are redirected to, and notes every
//! request it sees.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which of the two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The Hub.
    Hub,
    /// The store of large files.
    Store,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Only this status, with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection closes after so many bytes of the body.
    Drop(usize),
    /// Nothing comes after so many bytes of the body.
    Stall(usize),
    /// The first byte of the body is wrong.
    Damage,
    /// Ranges are not understood: the whole file comes.
    NoRanges,
    /// The range that comes is not the one asked for.
    OtherRange,
    /// A byte too many is announced and comes.
    Longer,
    /// The body comes in pieces of so many bytes, with a pause after each.
    Slow(usize, Duration),
    /// A redirect to there.
    Redirect(String),
    /// A web page instead.
    Page,
}

/// A request that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    pub side: Side,
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub struct Content {
    pub path: String,
    pub bytes: Vec<u8>,
    pub large: bool,
}

impl Content {
    /// The etag that the Hub gives.
    pub fn etag(&self) -> String {
        use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
        let hash = if self.large {
            digest(&SHA256, &self.bytes)
        } else {
            let mut object = format!("blob {}\0", self.bytes.len()).into_bytes();
            object.extend_from_slice(&self.bytes);
            digest(&SHA1_FOR_LEGACY_USE_ONLY, &object)
        };
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A repository at one commit.
#[derive(Debug, Clone, Default)]
pub struct Repo {
    pub commit: String,
    pub revisions: Vec<String>,
    pub files: Vec<Content>,
    /// Whether the list of files tells sizes and hashes.
    pub detailed: bool,
    /// The token that is asked for.
    pub token: Option<String>,
}

struct Order {
    side: Side,
    part: String,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    repos: Mutex<HashMap<String, Repo>>,
    seen: Mutex<Vec<Seen>>,
    orders: Mutex<Vec<Order>>,
    store: Mutex<String>,
    end: AtomicBool,
}

/// The running server; it ends with this value.
pub struct Server {
    state: Arc<State>,
    hub: String,
}

/// Bytes that look like nothing in particular, the same for each seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

impl Server {
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let listen = |side| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if state.end.load(Ordering::Relaxed) {
                        break;
                    }
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve(&state, side, &stream));
                }
            });
            url
        };
        let hub = listen(Side::Hub);
        *state.store.lock().unwrap() = listen(Side::Store);
        Self { state, hub }
    }

    /// The address of the Hub.
    pub fn url(&self) -> &str {
        &self.hub
    }

    /// The address of the store.
    pub fn store_url(&self) -> String {
        self.state.store.lock().unwrap().clone()
    }

    /// Publishes a repository. Files that end as weights do are large.
    pub fn publish(&self, repo: &str, commit: &str, files: &[(&str, Vec<u8>)]) -> Repo {
        let large = |path: &str| [".safetensors", ".gguf", ".bin"].iter().any(|end| path.ends_with(end));
        let content = |(path, bytes): &(&str, Vec<u8>)| Content {
            path: (*path).to_owned(),
            bytes: bytes.clone(),
            large: large(path),
        };
        let repo_state = Repo {
            commit: commit.to_owned(),
            revisions: vec!["main".to_owned(), commit.to_owned()],
            files: files.iter().map(content).collect(),
            detailed: true,
            token: None,
        };
        self.state.repos.lock().unwrap().insert(repo.to_owned(), repo_state.clone());
        repo_state
    }

    /// Changes a repository.
    pub fn change(&self, repo: &str, change: impl FnOnce(&mut Repo)) {
        change(self.state.repos.lock().unwrap().get_mut(repo).unwrap());
    }

    /// Orders a fault for the next `times` requests on a side whose method and path contain `part`.
    pub fn order(&self, side: Side, part: &str, times: usize, fault: Fault) {
        self.state.orders.lock().unwrap().push(Order { side, part: part.to_owned(), times, fault });
    }

    /// Forgets all orders.
    pub fn behave(&self) {
        self.state.orders.lock().unwrap().clear();
    }

    /// The requests so far whose method and path contain `part`.
    pub fn seen(&self, part: &str) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|seen| format!("{} {}", seen.method, seen.path).contains(part)).cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.end.store(true, Ordering::Relaxed);
        for url in [self.hub.clone(), self.store_url()] {
            // Wakes the thread that accepts.
            let _ = TcpStream::connect(url.trim_start_matches("http://"));
        }
    }
}

/// An answer before faults.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, headers: &[(&str, String)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self { status, headers, body: body.to_vec() }
    }
}

/// Answers the requests of one connection.
fn serve(state: &State, side: Side, stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read_request(&mut reader, side) {
        state.seen.lock().unwrap().push(seen.clone());
        let fault = take_order(state, &seen);
        let asked = seen.headers.clone();
        let mut seen = seen;
        if matches!(fault, Some(Fault::NoRanges)) {
            seen.headers.remove("range");
        }
        let mut reply = match &fault {
            Some(Fault::Status(status, headers)) => Reply::new(*status, headers, b"refused"),
            Some(Fault::Redirect(to)) => Reply::new(302, &[("location", to.clone())], b""),
            Some(Fault::Page) => {
                Reply::new(200, &[("content-type", "text/html".into())], b"<html>log in</html>")
            }
            _ => answer(state, &seen),
        };
        match fault {
            Some(Fault::Damage) if !reply.body.is_empty() => reply.body[0] ^= 1,
            Some(Fault::Longer) => reply.body.push(0),
            Some(Fault::OtherRange) if asked.contains_key("range") => {
                reply.headers.retain(|(name, _)| name != "content-range");
                reply.headers.push(("content-range".into(), "bytes 0-0/1".into()));
            }
            _ => {}
        }
        let written = write_reply(stream, &reply, seen.method == "HEAD", fault.as_ref(), state);
        if written.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead, side: Side) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => return Some(Seen { side, method, path, headers }),
        };
    }
}

fn take_order(state: &State, seen: &Seen) -> Option<Fault> {
    let line = format!("{} {}", seen.method, seen.path);
    let mut orders = state.orders.lock().unwrap();
    let order = orders
        .iter_mut()
        .find(|order| order.side == seen.side && order.times > 0 && line.contains(&order.part))?;
    order.times -= 1;
    Some(order.fault.clone())
}

fn write_reply(
    mut stream: &TcpStream,
    reply: &Reply,
    is_head: bool,
    fault: Option<&Fault>,
    state: &State,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| name == "content-length") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if is_head {
        return Ok(());
    }
    let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    match fault {
        Some(Fault::Drop(bytes)) => {
            stream.write_all(&reply.body[..(*bytes).min(reply.body.len())])?;
            stream.flush()?;
            Err(gone())
        }
        Some(Fault::Stall(bytes)) => {
            stream.write_all(&reply.body[..(*bytes).min(reply.body.len())])?;
            while !state.end.load(Ordering::Relaxed) && stream.take_error()?.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(gone())
        }
        Some(Fault::Slow(bytes, pause)) => {
            for piece in reply.body.chunks(*bytes) {
                stream.write_all(piece)?;
                std::thread::sleep(*pause);
            }
            Ok(())
        }
        _ => stream.write_all(&reply.body),
    }
}

/// What the real Hub would answer.
fn answer(state: &State, seen: &Seen) -> Reply {
    let path = seen.path.split('?').next().unwrap().trim_start_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let not_found = |code: &str| Reply::new(404, &[("x-error-code", code.to_owned())], b"");
    match parts.as_slice() {
        ["api", "models"] => Reply::new(200, &[], b"[]"),
        ["api", "whoami-v2"] => {
            let named = Repo { token: Some("hf_person".to_owned()), ..Repo::default() };
            refusal(&named, seen).unwrap_or_else(|| Reply::new(200, &[], br#"{"name":"person"}"#))
        }
        ["api", "models", org, name, "revision", revision] => {
            let repos = state.repos.lock().unwrap();
            let Some(repo) = repos.get(&format!("{org}/{name}")) else {
                return Reply::new(401, &[("x-error-code", "RepoNotFound".into())], b"");
            };
            if let Some(refusal) = refusal(repo, seen) {
                return refusal;
            }
            let revision = revision.replace("%2F", "/");
            if !repo.revisions.contains(&revision) {
                return not_found("RevisionNotFound");
            }
            Reply::new(200, &[], list(repo).to_string().as_bytes())
        }
        [org, name, "resolve", commit, file @ ..] => {
            let repos = state.repos.lock().unwrap();
            let Some(repo) = repos.get(&format!("{org}/{name}")) else { return not_found("RepoNotFound") };
            if let Some(refusal) = refusal(repo, seen) {
                return refusal;
            }
            if *commit != repo.commit && !repo.revisions.iter().any(|revision| revision == commit) {
                return not_found("RevisionNotFound");
            }
            let file = file.join("/").replace("%20", " ");
            match repo.files.iter().find(|content| content.path == file) {
                None => not_found("EntryNotFound"),
                Some(content) if content.large => {
                    let to = format!("{}/{path}?signature=secret", state.store.lock().unwrap());
                    let headers = [
                        ("location", to),
                        ("x-repo-commit", repo.commit.clone()),
                        ("x-linked-etag", format!("\"{}\"", content.etag())),
                        ("x-linked-size", content.bytes.len().to_string()),
                        ("etag", "\"of-the-redirect\"".to_owned()),
                    ];
                    if seen.side == Side::Store {
                        ranged(&content.bytes, seen, &[])
                    } else {
                        Reply::new(302, &headers, b"moved")
                    }
                }
                Some(content) => {
                    let headers = [
                        ("x-repo-commit", repo.commit.clone()),
                        ("etag", format!("W/\"{}\"", content.etag())),
                    ];
                    ranged(&content.bytes, seen, &headers)
                }
            }
        }
        _ => not_found("EntryNotFound"),
    }
}

/// Asks for the token on the Hub's side.
fn refusal(repo: &Repo, seen: &Seen) -> Option<Reply> {
    let wanted = format!("Bearer {}", repo.token.as_ref()?);
    match seen.headers.get("authorization") {
        _ if seen.side == Side::Store => None,
        Some(given) if *given == wanted => None,
        Some(_) => Some(Reply::new(
            401,
            &[("x-error-message", "Invalid credentials in Authorization header".into())],
            b"",
        )),
        None => Some(Reply::new(401, &[("x-error-code", "GatedRepo".into())], b"")),
    }
}

fn list(repo: &Repo) -> serde_json::Value {
    let sibling = |content: &Content| {
        let mut out = serde_json::json!({ "rfilename": content.path });
        if repo.detailed {
            out["size"] = content.bytes.len().into();
            if content.large {
                out["blobId"] = "00".repeat(20).into();
                out["lfs"] = serde_json::json!({ "sha256": content.etag(), "size": content.bytes.len() });
            } else {
                out["blobId"] = content.etag().into();
            }
        }
        out
    };
    serde_json::json!({ "sha": repo.commit, "siblings": repo.files.iter().map(sibling).collect::<Vec<_>>() })
}

/// The body, or the part of it that is asked for.
fn ranged(bytes: &[u8], seen: &Seen, headers: &[(&str, String)]) -> Reply {
    let start = seen
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let Some(start) = start.map(|start: usize| start) else {
        let length = if seen.method == "HEAD" {
            vec![("content-length", bytes.len().to_string())]
        } else {
            Vec::new()
        };
        return Reply::new(
            200,
            &[headers, &length].concat(),
            if seen.method == "HEAD" { b"" } else { bytes },
        );
    };
    if start >= bytes.len() {
        return Reply::new(416, &[("content-range", format!("bytes */{}", bytes.len()))], b"");
    }
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::new(206, &[headers, &[("content-range", range)]].concat(), &bytes[start..])
}
