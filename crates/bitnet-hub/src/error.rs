//! [`HubError`]: why a model could not be found, fetched or removed. Messages say what to do.

use std::path::PathBuf;

use bitnet_core::MemorySize;

/// What can go wrong with the Hub and its cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name cannot be one.
    #[error(
        "{text:?} is no name of a model on the Hub: {why}; write org/name, org/name@revision or org/name:file"
    )]
    BadName {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A setting cannot be used.
    #[error("{name} cannot be used: {why}")]
    Config {
        /// Name of the variable or flag.
        name: &'static str,
        /// What is wrong; never the value of a token.
        why: String,
    },
    /// The network would be needed and must not be used.
    #[error(
        "{what} is not in the cache, and the network must not be used (--offline, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE); fetch it with `bitnet pull {what}` while online"
    )]
    Offline {
        /// The model.
        what: String,
    },
    /// There is no such repository, or nobody may know.
    #[error("{repo}: {server} has no such model, or it is private; {}", if *token { "check the spelling, and that the token may read it" } else { "check the spelling; for a private model set HF_TOKEN or give --token" })]
    RepoNotFound {
        /// The repository.
        repo: String,
        /// The server.
        server: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The licence must be accepted first.
    #[error("{repo} is gated: {}", if *token { format!("the account of this token has no access yet; ask for it on {page}") } else { format!("accept its terms on {page}, then set HF_TOKEN or give --token") })]
    Gated {
        /// The repository.
        repo: String,
        /// Its page.
        page: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The token is not valid.
    #[error(
        "{server} refuses the token: {message}; renew it on {server}/settings/tokens, or unset HF_TOKEN for public models"
    )]
    BadToken {
        /// The server.
        server: String,
        /// What it said.
        message: String,
    },
    /// The server refuses.
    #[error("{what}: access refused ({message}); check what the token may do")]
    Forbidden {
        /// What was asked for.
        what: String,
        /// What the server said.
        message: String,
    },
    /// There is no such branch, tag or commit.
    #[error(
        "{repo} has no revision {revision:?}; leave it out for the main branch, or look at the model's page for branches and tags"
    )]
    RevisionNotFound {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// There is no such file.
    #[error("{repo} has no file {file} at revision {revision}")]
    FileNotFound {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
    },
    /// Too many requests.
    #[error("{server} limits the rate of requests{}", wait.map_or_else(|| "; wait some minutes, or set HF_TOKEN, which raises the limit".to_owned(), |seconds| format!("; try again in {seconds} seconds, or set HF_TOKEN, which raises the limit")))]
    RateLimited {
        /// The server.
        server: String,
        /// Seconds to wait, if it told.
        wait: Option<u64>,
    },
    /// The server has trouble.
    #[error("{url}: the server answered with status {status}; try again later")]
    Server {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// The server cannot be reached.
    #[error(
        "cannot reach {server}: {why}; check the connection and the proxy, or use --offline with models that are in the cache"
    )]
    Unreachable {
        /// The server.
        server: String,
        /// What happened.
        why: String,
    },
    /// Nothing came for too long, or the connection ended early.
    #[error("{what}: {why}; run the command again, it goes on from where it was")]
    Interrupted {
        /// What was fetched.
        what: String,
        /// What happened.
        why: String,
    },
    /// The server said something that cannot be understood.
    #[error("{url}: the answer cannot be used: {why}; is HF_ENDPOINT right, and no login page in between?")]
    BadAnswer {
        /// The address.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// A redirect led to where nothing may be fetched from.
    #[error("{url}: {why}")]
    BadRedirect {
        /// The address that redirected.
        url: String,
        /// What is wrong with where it led.
        why: String,
    },
    /// The repository holds nothing that can be run.
    #[error("{repo}: {why}; expected config.json with *.safetensors, a .gguf file, PyTorch or ONNX weights")]
    NoModel {
        /// The repository.
        repo: String,
        /// What is there instead.
        why: String,
    },
    /// The repository holds several models.
    #[error("{repo} holds several models; name one: {}", names.iter().map(|name| format!("{repo}:{name}")).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// The repository.
        repo: String,
        /// The candidates.
        names: Vec<String>,
    },
    /// What was asked for by file or quantisation is not there.
    #[error("{repo} has no {wanted:?}; it has {}", if names.is_empty() { "no weights".to_owned() } else { names.join(", ") })]
    NoSuchChoice {
        /// The repository.
        repo: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// A file has not the size it should have.
    #[error(
        "{file}: {found} bytes came, {expected} were announced; try again, and mistrust what stands between you and the server"
    )]
    WrongSize {
        /// The file.
        file: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came or would come.
        found: u64,
    },
    /// A file has not the content it should have.
    #[error(
        "{file}: the content has the hash {found}, announced was {expected}; it was thrown away. Try again, and mistrust what stands between you and the server"
    )]
    WrongHash {
        /// The file.
        file: String,
        /// The hash announced.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// The server gives no hash to check a file against.
    #[error(
        "{file}: {server} tells no SHA-256 and no git hash (etag {etag:?}), so the file cannot be verified; use a server that passes the headers of the Hub on"
    )]
    Unverifiable {
        /// The file.
        file: String,
        /// The server.
        server: String,
        /// The etag it gave.
        etag: String,
    },
    /// The disk has not enough room.
    #[error("{}: {needed} are needed{}; free some room (`bitnet du` shows what the cache holds) or set HF_HOME to another disk", path.display(), free.map_or_else(|| " and the disk is full".to_owned(), |free| format!(", {free} are free")))]
    DiskFull {
        /// The cache.
        path: PathBuf,
        /// Bytes needed.
        needed: MemorySize,
        /// Bytes there are, if that is known.
        free: Option<MemorySize>,
    },
    /// Another process works on it.
    #[error("{what} is being downloaded by another process; wait for it or end it")]
    Busy {
        /// What it works on.
        what: String,
    },
    /// Nothing of this name is in the cache.
    #[error("{what} is not in the cache {}; `bitnet list` shows what is", cache.display())]
    NotCached {
        /// The model.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// A file or folder could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Whoever watched said to stop.
    #[error("stopped")]
    Stopped,
}

/// Result with [`HubError`].
pub type Result<T, E = HubError> = std::result::Result<T, E>;

/// Says for a file what was tried when the operating system refused.
pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError::Io { action, path, source }
}
