//! API keys: who may use the server.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::config::{ConfigError, ServerConfig};
use crate::context::RequestContext;
use crate::error::{ApiError, ServerError};
use crate::state::AppState;

/// Paths that need no key.
const PUBLIC: [&str; 5] = ["/health", "/v1/health", "/models", "/v1/models", "/api/tags"];

/// The keys that are good, as digests. Empty: everyone is.
#[derive(Clone, Default)]
pub(crate) struct Keys(Vec<[u8; SHA256_OUTPUT_LEN]>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

fn digest_of(key: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, key).as_ref());
    bytes
}

impl Keys {
    /// The keys of the configuration and of its file: one a line, `#` begins a comment.
    ///
    /// # Errors
    /// [`ConfigError::File`] if the file cannot be read, [`ConfigError::Value`] if it has no key, which would let everyone in.
    pub(crate) fn new(config: &ServerConfig) -> Result<Self, ServerError> {
        let mut keys: Vec<_> = config.api_key.iter().map(|key| digest_of(key.trim().as_bytes())).collect();
        if let Some(path) = &config.api_key_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::File { path: path.clone(), problem: error.to_string() })?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let before = keys.len();
            keys.extend(lines.map(|line| digest_of(line.as_bytes())));
            if keys.len() == before {
                let value = path.display().to_string();
                let allowed = "a file with at least one key, one a line";
                return Err(ConfigError::Value { key: "api_key_file", value, allowed }.into());
            }
        }
        Ok(Self(keys))
    }

    fn are_needed(&self) -> bool {
        !self.0.is_empty()
    }

    /// Which of the keys this is, if any. Takes the same time whether and where they differ.
    fn find(&self, key: &[u8]) -> Option<usize> {
        let given = digest_of(key);
        let mut found = None;
        for (at, good) in self.0.iter().enumerate() {
            let difference = good.iter().zip(&given).fold(0, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(at);
            }
        }
        found
    }
}

/// The key that a request brings: `Authorization: Bearer KEY` or `X-Api-Key: KEY`.
fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let bytes = value.as_bytes();
        let (scheme, key) = bytes.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii()))
}

/// Whether everyone may see what is there: the page, its files, what is asked to find out whether the server lives.
fn is_public(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && (PUBLIC.contains(&path) || path == "/" || path == "/favicon.ico" || path.starts_with("/web/"))
}

/// Lets in who has a key, and notes which.
pub(super) async fn authenticate(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let keys = state.keys();
    if !keys.are_needed() {
        return next.run(request).await;
    }
    let found = key_of(request.headers()).map(|key| keys.find(key));
    match found {
        Some(Some(at)) => {
            if let Some(context) = request.extensions_mut().get_mut::<RequestContext>() {
                context.client = Arc::from(format!("key {}", at + 1));
            }
        }
        _ if is_public(request.method(), request.uri().path()) => {}
        Some(None) => return ApiError::unauthorized("the API key is wrong").into_response(),
        None => {
            let message = "an API key is needed: send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`";
            return ApiError::unauthorized(message).into_response();
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# keys\n\n  two  \nthree\n").unwrap();
        let config = ServerConfig {
            api_key: vec!["one".to_owned()],
            api_key_file: Some(file.path().to_owned()),
            ..ServerConfig::default()
        };
        let keys = Keys::new(&config).unwrap();
        for (key, at) in
            [("one", Some(0)), ("two", Some(1)), ("three", Some(2)), ("", None), ("One", None), ("on", None)]
        {
            assert_eq!(keys.find(key.as_bytes()), at, "{key}");
        }
        std::fs::write(file.path(), "# none yet\n").unwrap();
        let config = ServerConfig { api_key_file: Some(file.path().to_owned()), ..ServerConfig::default() };
        assert!(Keys::new(&config).is_err());
        assert!(!format!("{keys:?}").contains("one"));
    }

    #[test]
    fn headers_are_read() {
        let headers = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), value.parse().unwrap())])
        };
        assert_eq!(key_of(&headers("authorization", "Bearer  abc")), Some(&b"abc"[..]));
        assert_eq!(key_of(&headers("authorization", "bearer abc")), Some(&b"abc"[..]));
        assert_eq!(key_of(&headers("authorization", "Basic abc")), None);
        assert_eq!(key_of(&headers("authorization", "B")), None);
        assert_eq!(key_of(&headers("x-api-key", "abc")), Some(&b"abc"[..]));
    }

    #[test]
    fn only_reading_is_public() {
        assert!(is_public(&Method::GET, "/health") && is_public(&Method::HEAD, "/"));
        assert!(!is_public(&Method::POST, "/models") && !is_public(&Method::GET, "/v1/models/x"));
        assert!(!is_public(&Method::GET, "/slots") && !is_public(&Method::GET, "//health"));
    }
}
