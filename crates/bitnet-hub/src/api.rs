//! What the Hub is asked: which files a revision has, and what is known of one file.

use std::io::Read;
use std::time::Instant;

use serde::Deserialize;

use crate::digest::Digest;
use crate::events::Observer;
use crate::http::{Answer, Client, Follow};
use crate::hub::Reached;
use crate::name::{ModelName, is_commit, is_relative_path};
use crate::retry::{Attempts, Failure};
use crate::url::{encode, encode_path, without_query};
use crate::{HubConfig, HubError, Result};

/// The largest list of files that is read.
const MOST_LIST_BYTES: u64 = 64 << 20;

/// A file that the list of a revision names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// Path in the repository.
    pub(crate) path: String,
    /// Bytes, if the list tells.
    pub(crate) size: Option<u64>,
    /// Hash, if the list tells.
    pub(crate) digest: Option<Digest>,
}

/// A revision of a repository.
#[derive(Debug)]
pub(crate) struct Revision {
    /// Its commit.
    pub(crate) commit: String,
    /// Its files.
    pub(crate) files: Vec<RemoteFile>,
}

/// What is known of a file before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileMeta {
    /// Name of its blob in the cache.
    pub(crate) etag: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Its hash.
    pub(crate) digest: Digest,
}

/// The Hub.
#[derive(Debug)]
pub(crate) struct Api {
    /// Where and how.
    pub(crate) config: HubConfig,
    client: Client,
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Account {
    name: String,
}

impl Api {
    /// Prepares; nothing is asked yet.
    pub(crate) fn new(config: HubConfig) -> Result<Self> {
        Ok(Self { client: Client::new(&config)?, config })
    }

    /// Whether the Hub answers, and whose the token is.
    pub(crate) fn reach(&self) -> Result<Reached> {
        if self.config.offline {
            return Err(HubError::Offline { what: self.config.server() });
        }
        let (endpoint, token) = (&self.config.endpoint, self.client.has_token());
        let path = if token { "api/whoami-v2" } else { "api/models?limit=1" };
        let start = Instant::now();
        let answer = self.client.send("GET", &format!("{endpoint}/{path}"), &[], Follow::SameOrigin);
        let mut answer = answer.map_err(|failure| failure.error)?;
        let (time, status) = (start.elapsed(), answer.status);
        if token && matches!(status, 401 | 403) {
            return Err(HubError::BadToken { server: endpoint.clone(), message: answer.message() });
        }
        if status >= 400 {
            return Err(HubError::Server { url: without_query(&answer.url).to_owned(), status });
        }
        let mut text = Vec::new();
        // Without a token the answer says nothing of interest.
        if token {
            let body = answer.body.as_reader().take(MOST_LIST_BYTES).read_to_end(&mut text);
            body.map_err(|error| crate::http::broken_off("the name of the account", error).error)?;
        }
        let account: Option<Account> = serde_json::from_slice(&text).ok();
        Ok(Reached { user: account.map(|account| account.name), time })
    }

    /// The commit and files of a revision.
    pub(crate) fn revision(&self, name: &ModelName, observer: &Observer<'_>) -> Result<Revision> {
        let (repo, revision) = (name.repo.as_str(), name.revision());
        let url =
            format!("{}/api/models/{repo}/revision/{}?blobs=true", self.config.endpoint, encode(revision));
        Attempts::new(repo, &self.config, observer).run(|| {
            let mut answer = self.client.send("GET", &url, &[], Follow::SameOrigin)?;
            self.check(&answer, name, None)?;
            let mut text = Vec::new();
            let body = answer.body.as_reader().take(MOST_LIST_BYTES + 1).read_to_end(&mut text);
            body.map_err(|error| crate::http::broken_off(repo, error))?;
            let bad = |why: String| HubError::BadAnswer { url: without_query(&answer.url).to_owned(), why };
            if text.len() as u64 > MOST_LIST_BYTES {
                return Err(bad("the list of files is too long".to_owned()).into());
            }
            Ok(read_revision(&text).map_err(bad)?)
        })
    }

    /// Size and hash of a file at a commit. `listed` is what the list of files told.
    pub(crate) fn file(
        &self,
        name: &ModelName,
        commit: &str,
        listed: &RemoteFile,
        observer: &Observer<'_>,
    ) -> Result<FileMeta> {
        let url = self.file_url(name, commit, &listed.path);
        Attempts::new(&listed.path, &self.config, observer).run(|| {
            let answer = self.client.send("HEAD", &url, &[], Follow::SameOrigin)?;
            self.check(&answer, name, Some((commit, &listed.path)))?;
            Ok(self.read_meta(&answer, commit, listed)?)
        })
    }

    fn read_meta(&self, answer: &Answer, commit: &str, listed: &RemoteFile) -> Result<FileMeta> {
        let bad = |why: String| HubError::BadAnswer { url: without_query(&answer.url).to_owned(), why };
        match answer.header("x-repo-commit") {
            Some(found) if found == commit => {}
            Some(found) => return Err(bad(format!("it is of commit {found:.40} and not of {commit}"))),
            None => return Err(bad("there is no header X-Repo-Commit".to_owned())),
        }
        let etag = answer.header("x-linked-etag").or_else(|| answer.header("etag")).unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let is_redirect = (300..400).contains(&answer.status);
        let length = if is_redirect { None } else { answer.number("content-length") };
        let size = answer.number("x-linked-size").or(length).or(listed.size);
        let size = size.ok_or_else(|| bad("it does not tell the size of the file".to_owned()))?;
        let digest = match (Digest::from_etag(etag), &listed.digest) {
            (Some(told), Some(listed))
                if matches!(told, Digest::Sha256(_)) == matches!(listed, Digest::Sha256(_)) =>
            {
                if told != *listed {
                    return Err(bad(format!(
                        "its hash {} is not the {} of the list",
                        told.hex(),
                        listed.hex()
                    )));
                }
                told
            }
            (Some(told), _) => told,
            (None, Some(listed)) => listed.clone(),
            (None, None) => {
                let (file, server, etag) = (listed.path.clone(), self.config.server(), etag.to_owned());
                return Err(HubError::Unverifiable { file, server, etag });
            }
        };
        Ok(FileMeta { etag: digest.hex().to_owned(), size, digest })
    }

    /// Begins to fetch a file from byte `from` on. Statuses that tell about the range are answers.
    pub(crate) fn open(
        &self,
        name: &ModelName,
        commit: &str,
        path: &str,
        from: u64,
        meta: &FileMeta,
    ) -> Result<Answer, Failure> {
        let url = self.file_url(name, commit, path);
        let mut headers = Vec::new();
        if from > 0 {
            headers.push(("range", format!("bytes={from}-")));
            // Only small files keep the Hub's own etag to the end; large ones come from a store that has its own, and
            // would always start again. The hash decides for both.
            if matches!(meta.digest, Digest::GitBlob(_)) {
                headers.push(("if-range", format!("\"{}\"", meta.etag)));
            }
        }
        let answer = self.client.send("GET", &url, &headers, Follow::All)?;
        if !(from > 0 && answer.status == 416) {
            self.check(&answer, name, Some((commit, path)))?;
        }
        Ok(answer)
    }

    fn file_url(&self, name: &ModelName, commit: &str, path: &str) -> String {
        format!("{}/{}/resolve/{}/{}", self.config.endpoint, name.repo, encode(commit), encode_path(path))
    }

    /// Turns statuses into errors; redirects pass.
    fn check(&self, answer: &Answer, name: &ModelName, file: Option<(&str, &str)>) -> Result<(), Failure> {
        let (status, server) = (answer.status, self.config.server());
        if status < 400 {
            return Ok(());
        }
        let repo = name.repo.to_string();
        let token = self.client.has_token();
        let url = without_query(&answer.url).to_owned();
        if status == 429 {
            let wait = answer.wait();
            let error = HubError::RateLimited { server, wait: wait.map(|wait| wait.as_secs()) };
            return Err(Failure::after(error, wait));
        }
        if status >= 500 || status == 408 {
            return Err(Failure::after(HubError::Server { url, status }, answer.wait()));
        }
        if !answer.from_hub {
            // The address of the content is signed for a short time; the next attempt gets a new one.
            return Err(Failure::passing(HubError::Server { url, status }));
        }
        let code = answer.header("x-error-code").unwrap_or_default();
        let error = match (status, code) {
            (_, "GatedRepo") => {
                let page = format!("{}/{repo}", self.config.endpoint);
                HubError::Gated { repo, page, token }
            }
            (_, "RepoNotFound") => HubError::RepoNotFound { repo, server, token },
            (_, "RevisionNotFound") => {
                HubError::RevisionNotFound { repo, revision: name.revision().to_owned() }
            }
            (401, _) if token && answer.message().to_ascii_lowercase().contains("credential") => {
                HubError::BadToken { server: self.config.endpoint.clone(), message: answer.message() }
            }
            (401, _) => HubError::RepoNotFound { repo, server, token },
            (403, _) => HubError::Forbidden { what: repo, message: answer.message() },
            (404, _) => match file {
                Some((revision, file)) => {
                    HubError::FileNotFound { repo, revision: revision.to_owned(), file: file.to_owned() }
                }
                None => HubError::RepoNotFound { repo, server, token },
            },
            _ => HubError::Server { url, status },
        };
        Err(error.into())
    }
}

/// Reads the list of files; what could leave the cache is refused.
fn read_revision(text: &[u8]) -> Result<Revision, String> {
    let info: ModelInfo =
        serde_json::from_slice(text).map_err(|error| format!("it is not a list of files: {error}"))?;
    let commit = info.sha.filter(|sha| is_commit(sha)).ok_or("it names no commit")?;
    let mut files = Vec::with_capacity(info.siblings.len());
    for sibling in info.siblings {
        let path = sibling.rfilename;
        if !is_relative_path(&path) {
            return Err(format!("it names a file {path:?}, which would leave the cache"));
        }
        let digest = match &sibling.lfs {
            Some(lfs) => lfs.sha256.as_deref().and_then(Digest::from_etag),
            None => sibling.blob_id.as_deref().and_then(Digest::from_etag),
        };
        let size = sibling.lfs.as_ref().and_then(|lfs| lfs.size).or(sibling.size);
        files.push(RemoteFile { path, size, digest });
    }
    Ok(Revision { commit, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_files_are_read() {
        let commit = "ab".repeat(20);
        let sha256 = "cd".repeat(32);
        let text = format!(
            r#"{{"sha":"{commit}","siblings":[
                {{"rfilename":"config.json","size":5,"blobId":"{commit}"}},
                {{"rfilename":"m.gguf","size":9,"blobId":"{commit}","lfs":{{"sha256":"{sha256}","size":9,"pointerSize":1}}}},
                {{"rfilename":"README.md"}}]}}"#
        );
        let revision = read_revision(text.as_bytes()).unwrap();
        assert_eq!(revision.commit, commit);
        assert_eq!(revision.files[0].digest, Some(Digest::GitBlob(commit)));
        assert_eq!(
            (revision.files[1].size, &revision.files[1].digest),
            (Some(9), &Some(Digest::Sha256(sha256)))
        );
        assert_eq!((revision.files[2].size, &revision.files[2].digest), (None, &None));
    }

    #[test]
    fn hostile_lists_are_refused() {
        let commit = "ab".repeat(20);
        for name in ["../x", "/etc/passwd", "a//b", "a\\b", "", "a/../b", "C:x", "a\u{0}b"] {
            let text = serde_json::json!({"sha": commit, "siblings": [{"rfilename": name}]}).to_string();
            assert!(read_revision(text.as_bytes()).is_err(), "{name}");
        }
        for text in ["", "<html>", "{}", r#"{"sha":"main"}"#, r#"{"sha":"../../x"}"#] {
            assert!(read_revision(text.as_bytes()).is_err(), "{text}");
        }
    }
}
