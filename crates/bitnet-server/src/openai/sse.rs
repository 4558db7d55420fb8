//! Streams of server-sent events.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;

use crate::error::ApiError;

/// What ends a stream of completions.
pub(super) const DONE: &str = "data: [DONE]\n\n";

/// After so much silence a comment is sent, so that nobody on the way takes the connection for dead.
const SILENCE: Duration = Duration::from_secs(15);

/// Tells proxies not to collect what they pass on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A source of events.
pub(super) trait Source: Send + 'static {
    /// The text of the next events; `None` after the last. It is dropped while it waits, and asked again.
    fn next(&mut self) -> impl Future<Output = Option<String>> + Send;
}

/// An event with this JSON.
pub(super) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// An event that has a name as well.
pub(super) fn named(name: &str, value: &Value) -> String {
    format!("event: {name}\ndata: {value}\n\n")
}

/// What a stream tells when something goes wrong on the way; it is the last event.
pub(super) fn error(error: &ApiError) -> String {
    data(&error.openai_body())
}

/// The response that streams a source. When the client goes away, the source is dropped.
pub(super) fn response(source: impl Source) -> Response {
    let events = stream::unfold(source, |mut source| async move {
        let text = match tokio::time::timeout(SILENCE, source.next()).await {
            Ok(next) => next?,
            Err(_) => ": still here\n\n".to_owned(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), source))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache"), (ACCEL_BUFFERING, "no")];
    (headers, Body::from_stream(events)).into_response()
}
