//! [`ApiJson`]: bodies of requests, with rejections that say which field is wrong.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::ApiError;
use crate::state::AppState;

/// A JSON body, whatever its content type says. Rejects with [`ApiError`]: 400 with the field where it can be told, 413 for
/// bodies over the limit, 408 for bodies that do not come in time.
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let bytes = body(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// The whole body of a request, within the limits of size and time.
///
/// # Errors
/// 413, 408, or 400 if the connection breaks.
pub(crate) async fn body(request: Request, state: &AppState) -> Result<Bytes, ApiError> {
    let config = state.config();
    let limit = config.body_limit.as_bytes();
    let read = tokio::time::timeout(config.body_timeout(), Bytes::from_request(request, state));
    let Ok(read) = read.await else {
        let seconds = config.body_timeout;
        return Err(ApiError::request_timeout(format!("the body did not come within {seconds} seconds")));
    };
    read.map_err(|rejection| unreadable(&rejection, limit))
}

fn unreadable(rejection: &BytesRejection, limit: u64) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limit),
        _ => ApiError::bad_request(format!("the body cannot be read: {}", rejection.body_text())),
    }
}

/// Reads JSON.
///
/// # Errors
/// 400 with the path of the field where it went wrong.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("the body is empty; send a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // Values of strangers may be long.
        let said: String = error.to_string().chars().take(400).collect();
        if error.classify() != Category::Data {
            return ApiError::bad_request(format!("the body is not valid JSON: {said}"));
        }
        let mut steps = steps_to(bytes, offset(bytes, error.line(), error.column()));
        if let Some(name) = said.strip_prefix("missing field `").or(said.strip_prefix("unknown field `"))
            && let (Some(Step::Key(last)), Some((name, _))) = (steps.last_mut(), name.split_once('`'))
        {
            name.clone_into(last);
        }
        match path(&steps) {
            path if path.is_empty() => {
                ApiError::bad_request(format!("the body is not what is expected: {said}"))
            }
            path => ApiError::bad_param(&path, format!("{path}: {said}")),
        }
    })
}

/// The byte of a line and column as serde_json counts them, from 1.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        start += bytes[start..].iter().position(|&b| b == b'\n').map_or(0, |at| at + 1);
    }
    (start + column).min(bytes.len())
}

/// A part of a path to a value.
enum Step {
    Key(String),
    Index(usize),
}

/// The way to the value that ends at or around this byte.
fn steps_to(bytes: &[u8], end: usize) -> Vec<Step> {
    let (mut steps, mut at) = (Vec::new(), 0);
    while at < end {
        match bytes[at] {
            b'"' => {
                let close = string_end(bytes, at);
                // A string is a key if a colon follows; only objects have those.
                let next = bytes[close..].iter().find(|b| !b.is_ascii_whitespace());
                if next == Some(&b':')
                    && let Some(Step::Key(last)) = steps.last_mut()
                {
                    *last = String::from_utf8_lossy(&bytes[at + 1..close - 1]).into_owned();
                }
                at = close;
                continue;
            }
            b'{' => steps.push(Step::Key(String::new())),
            b'[' => steps.push(Step::Index(0)),
            // What ends in the last byte is the value meant.
            b'}' | b']' if at + 1 < end => drop(steps.pop()),
            b',' if at + 1 < end => {
                if let Some(Step::Index(index)) = steps.last_mut() {
                    *index += 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    steps
}

/// The steps as people write them: `messages[0].content`.
fn path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps.iter().take(16) {
        match step {
            Step::Key(name) if name.is_empty() => {}
            Step::Key(name) => {
                path.push_str(if path.is_empty() { "" } else { "." });
                path.extend(name.chars().take(80));
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Behind the quotation mark that closes the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 2,
            b'"' => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read into")]
    struct Message {
        role: String,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read into")]
    struct Body {
        messages: Vec<Message>,
        n: Option<u8>,
    }

    fn error(text: &str) -> ApiError {
        parse::<Body>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn wrong_types_name_the_field() {
        let cases = [
            (r#"{"messages": [{"role": "user"}, {"role": 7}]}"#, "messages[1].role"),
            (r#"{"messages": [], "n": "two"}"#, "n"),
            (r#"{"messages": [], "n": 300}"#, "n"),
            (r#"{"messages": "hello"}"#, "messages"),
            ("{\"messages\":\n [\n\n {\"role\": null}]}", "messages[0].role"),
            (r#"{"n": {"a": "b,c]}"}, "messages": []}"#, "n"),
        ];
        for (text, path) in cases {
            let error = error(text);
            assert_eq!((error.param.as_deref(), error.status.as_u16()), (Some(path), 400), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_so() {
        for text in ["", "  \n", "{", "nope", r#"{"messages": [}"#, "\u{feff}{}", r#"{"messages": []} x"#] {
            let error = error(text);
            assert_eq!((error.status.as_u16(), error.kind), (400, "invalid_request_error"), "{text}");
            assert_eq!(error.param, None, "{text}");
        }
        let error = parse::<Body>(b"{\"messages\": \"\xff\xfe\"}").unwrap_err();
        assert_eq!(error.status.as_u16(), 400);
        let deep = "[".repeat(100_000);
        assert_eq!(parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().status.as_u16(), 400);
        let missing = parse::<Body>(b"{\"n\": 1}").unwrap_err();
        assert_eq!(missing.param.as_deref(), Some("messages"), "{missing}");
        let missing = parse::<Body>(br#"{"messages": [{"name": "a"}]}"#).unwrap_err();
        assert_eq!(missing.param.as_deref(), Some("messages[0].role"), "{missing}");
    }
}
