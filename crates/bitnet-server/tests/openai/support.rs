//! Sends requests to a server's routes, without a network.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use bitnet_server::{AppState, Server, ServerConfig};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// The routes of a server with the bundled model.
pub(crate) struct Routes {
    routes: Router,
    state: AppState,
}

/// A stream that was read to its end.
pub(crate) struct Streamed {
    /// The JSON of all events.
    pub(crate) events: Vec<Value>,
    /// The names of events that have one.
    pub(crate) names: Vec<String>,
    /// Whether `[DONE]` came last.
    pub(crate) done: bool,
}

pub(crate) fn routes() -> Routes {
    let mut config = ServerConfig::default();
    config.threads = Some(1);
    let server = Server::new(config).unwrap();
    Routes { routes: server.router().unwrap(), state: server.state().clone() }
}

impl Routes {
    pub(crate) fn state(&self) -> &AppState {
        &self.state
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> axum::response::Response {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        self.routes.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        whole(self.send(Method::GET, path, Bytes::new()).await).await
    }

    pub(crate) async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        whole(self.send(Method::POST, path, body.into()).await).await
    }

    /// The answer to a request that is fine.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, value) = self.post_bytes(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{path} {body}: {value}");
        value
    }

    /// The error of a request that is not.
    pub(crate) async fn refused(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, value) = self.post_bytes(path, body.to_string()).await;
        assert_ne!(status, StatusCode::OK, "{path} {body}: {value}");
        (status.as_u16(), value["error"].clone())
    }

    /// The events of a request that is fine.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Streamed {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let response = self.send(Method::POST, path, Bytes::from(body.to_string())).await;
        assert_eq!(response.status(), StatusCode::OK, "{path} {body}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut text = Vec::new();
        let mut chunks = response.into_body().into_data_stream();
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with("\n\n"), "{text:?}");
        let (mut events, mut names, mut done) = (Vec::new(), Vec::new(), false);
        for event in text.trim_end().split("\n\n") {
            assert!(!done, "nothing follows [DONE]");
            for line in event.lines() {
                match line.split_once(": ") {
                    Some(("data", "[DONE]")) => done = true,
                    Some(("data", data)) => events.push(serde_json::from_str(data).unwrap()),
                    Some(("event", name)) => names.push(name.to_owned()),
                    _ => panic!("{line:?}"),
                }
            }
        }
        Streamed { events, names, done }
    }
}

async fn whole(response: axum::response::Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
}

/// A conversation of one turn, answered with a seed.
pub(crate) fn chat(content: &str) -> Value {
    json!({
        "model": "bitnet-tiny",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 24,
        "seed": 7,
        "temperature": 0.8,
    })
}

/// The names of an object's members, in their order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// `base` with the members of `more`.
pub(crate) fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// What the deltas of a choice add up to.
pub(crate) fn joined(events: &[Value], choice: usize) -> String {
    choices(events, choice).filter_map(|c| c["delta"]["content"].as_str()).collect()
}

/// The entries of a choice in all events.
pub(crate) fn choices(events: &[Value], choice: usize) -> impl Iterator<Item = &Value> {
    events.iter().flat_map(|event| event["choices"].as_array().unwrap()).filter(move |c| c["index"] == choice)
}
