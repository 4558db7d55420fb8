//! A Hub, a cache and a client for each test.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bitnet_hub::{Event, Found, Hub, HubConfig, HubError, ModelName, Token};

use crate::server::{Content, Repo, Server, noise};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const REPO: &str = "org/model";
/// Bytes of the weights: several reads, no round number.
pub const WEIGHTS: usize = 700_001;

/// A server with one model, and an empty cache.
pub struct World {
    pub server: Server,
    pub repo: Repo,
    pub dir: tempfile::TempDir,
}

/// The files of a small model.
pub fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"*.bin filter=lfs".to_vec()),
        ("README.md", b"---\nlicense: mit\n---\n# A model\n".to_vec()),
        ("config.json", br#"{"model_type":"bitnet"}"#.to_vec()),
        ("model.safetensors", noise(WEIGHTS, 1)),
        ("pytorch_model.bin", noise(5000, 2)),
        ("tokenizer.json", b"{}".to_vec()),
        ("empty.txt", Vec::new()),
    ]
}

impl World {
    pub fn new() -> Self {
        Self::with(&files())
    }

    pub fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let server = Server::start();
        let repo = server.publish(REPO, COMMIT, files);
        Self { server, repo, dir: tempfile::tempdir().unwrap() }
    }

    pub fn config(&self) -> HubConfig {
        HubConfig {
            endpoint: self.server.url().to_owned(),
            cache: self.cache(),
            token: None,
            token_file: None,
            offline: false,
            symlinks: true,
            connections: 3,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            retries: 2,
            first_pause: Duration::from_millis(1),
            certificates: None,
        }
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("hub")
    }

    pub fn folder(&self) -> PathBuf {
        self.cache().join("models--org--model")
    }

    pub fn snapshot(&self) -> PathBuf {
        self.folder().join("snapshots").join(COMMIT)
    }

    pub fn content(&self, path: &str) -> &Content {
        self.repo.files.iter().find(|content| content.path == path).unwrap()
    }

    pub fn blob(&self, path: &str) -> PathBuf {
        self.folder().join("blobs").join(self.content(path).etag())
    }

    /// Where the beginning of a file waits.
    pub fn incomplete(&self, path: &str) -> PathBuf {
        self.folder().join("blobs").join(format!("{}.incomplete", self.content(path).etag()))
    }

    /// Leaves the first bytes of a file as an interrupted download would.
    pub fn leave(&self, path: &str, bytes: &[u8]) {
        let at = self.incomplete(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, bytes).unwrap();
    }

    /// Asserts that the snapshot has these files with their content, and nothing else.
    pub fn assert_snapshot(&self, paths: &[&str]) {
        let mut there = files_below(&self.snapshot());
        there.sort();
        let mut expected: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        expected.sort();
        assert_eq!(there, expected);
        for path in paths {
            let bytes = std::fs::read(self.snapshot().join(path)).unwrap();
            assert!(bytes == self.content(path).bytes, "{path} has other content");
        }
    }

    /// Asserts that nothing is left of downloads.
    pub fn assert_clean(&self) {
        let left: Vec<_> = files_below(&self.folder())
            .into_iter()
            .filter(|f| f.contains("incomplete") || f.contains(".tmp"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub const TAKEN: [&str; 4] = ["README.md", "config.json", "model.safetensors", "tokenizer.json"];

/// Paths of the files below a folder.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            out.extend(files_below(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            out.push(name);
        }
    }
    out
}

pub fn name(text: &str) -> ModelName {
    ModelName::parse(text).unwrap()
}

/// Plans and fetches.
pub fn pull(config: HubConfig, text: &str) -> Result<Found, HubError> {
    pull_watched(config, text).0
}

/// Plans and fetches; also gives the events as text, without the progress.
pub fn pull_watched(config: HubConfig, text: &str) -> (Result<Found, HubError>, Vec<String>) {
    let events = Mutex::new(Vec::new());
    let observer = |event: Event<'_>| {
        if !matches!(event, Event::Progress { .. }) {
            events.lock().unwrap().push(format!("{event:?}"));
        }
        ControlFlow::Continue(())
    };
    let hub = Hub::new(config).unwrap();
    let result = hub.plan(&name(text), &observer).and_then(|plan| hub.fetch(&plan, &observer));
    (result, events.into_inner().unwrap())
}

pub fn token(text: &str) -> Option<Token> {
    Some(Token::new(text, "the test").unwrap())
}
