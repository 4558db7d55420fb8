//! A server without a socket, and readers of its streams.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bitnet_server::{Server, ServerConfig};
use serde_json::Value;
use tower::ServiceExt;

/// What comes back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body of a request that must have worked.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.any_json()
    }

    /// The body, whatever the status.
    pub(crate) fn any_json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The lines of a stream of objects.
    pub(crate) fn lines(&self) -> Vec<Value> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/x-ndjson");
        assert!(self.text.ends_with('\n'));
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The events of a server-sent stream: names (empty if there is none) and data.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert!(self.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let event = |block: &str| {
            let mut name = String::new();
            let mut data = None;
            for line in block.lines() {
                if let Some(value) = line.strip_prefix("event: ") {
                    value.clone_into(&mut name);
                } else if let Some(value) = line.strip_prefix("data: ") {
                    data = Some(serde_json::from_str(value).unwrap());
                }
            }
            data.map(|data| (name, data))
        };
        self.text.split("\n\n").filter_map(event).collect()
    }
}

/// The routes of a server with the bundled model.
pub(crate) fn router() -> Router {
    router_with(|_| {})
}

/// As [`router`], with a changed configuration.
pub(crate) fn router_with(change: impl FnOnce(&mut ServerConfig)) -> Router {
    let mut config = ServerConfig::default();
    config.threads = Some(1);
    change(&mut config);
    Server::new(config).unwrap().router().unwrap()
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = to_bytes(response.into_body(), 64 << 20).await.unwrap();
    Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(router: &Router, path: &str, body: &Value) -> Answer {
    post_text(router, path, body.to_string()).await
}

pub(crate) async fn post_text(router: &Router, path: &str, body: String) -> Answer {
    let request =
        Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    send(router, request.body(Body::from(body)).unwrap()).await
}

/// `body` with some members set.
pub(crate) fn with(mut body: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("members are an object") };
    body.as_object_mut().unwrap().extend(members);
    body
}

/// The names of an object's members, in order.
pub(crate) fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}
