//! The outermost layer: gives each request its context, sees how it ends, and keeps a panic from being more than a 500.
//!
//! A line is logged and counted when the last byte of the answer is out, or when the client has gone. Bodies, prompts and
//! keys are never logged.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http_body::{Frame, SizeHint};
use tracing::Instrument;

use crate::context::{REQUEST_ID, RequestContext, peer};
use crate::error::ApiError;
use crate::state::AppState;

/// What is known of a request while its answer is on the way.
struct Observation {
    state: AppState,
    context: RequestContext,
    method: Method,
    path: String,
    /// The route, by which requests are counted: paths of strangers would be countless.
    route: Arc<str>,
    span: tracing::Span,
    status: u16,
    error: Option<String>,
    complete: bool,
}

impl Drop for Observation {
    fn drop(&mut self) {
        let status = if self.complete { self.status } else { 499 };
        self.span.record("status", status);
        let took = self.context.arrived.elapsed();
        self.state.metrics().request_done(&self.route, status, took);
        let (prompt_tokens, generated_tokens) = self.context.facts.tokens();
        let model = self.context.facts.model();
        let ms = took.as_secs_f64() * 1e3;
        let (id, client) = (&*self.context.id, &*self.context.client);
        let (method, path) = (self.method.as_str(), self.path.as_str());
        let model = model.as_deref().unwrap_or("-");
        let error = self.error.as_deref().unwrap_or("-");
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    id,
                    client,
                    method,
                    path,
                    status,
                    model,
                    prompt_tokens,
                    generated_tokens,
                    ms,
                    error,
                    "request"
                )
            };
        }
        // Those who ask every second whether the server lives do not fill the log.
        if status < 400 && matches!(&*self.route, "/health" | "/v1/health" | "/metrics") {
            tracing::debug!(id, client, method, path, status, ms, "request");
        } else if status >= 500 {
            tell!(error);
        } else {
            tell!(info);
        }
    }
}

/// A body that tells when it is over.
struct Observed {
    body: Body,
    observation: Observation,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => self.observation.complete = true,
            Poll::Ready(Some(Err(error))) => self.observation.error = Some(error.to_string()),
            // Nobody asks again for the frame behind the last.
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.observation.complete = true,
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// See the [module](self).
pub(super) async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let context = RequestContext::new(request.headers(), peer(request.extensions()));
    let known = request.extensions().get::<MatchedPath>();
    let route = known.map_or_else(|| Arc::from("other"), |path| Arc::from(path.as_str()));
    let path: String = request.uri().path().chars().take(200).collect();
    // For traces: open until the last byte is out.
    let span =
        tracing::info_span!("request", id = &*context.id, route = &*route, status = tracing::field::Empty);
    let mut observation = Observation {
        state,
        context: context.clone(),
        method: request.method().clone(),
        path,
        route,
        span,
        status: 499,
        error: None,
        complete: false,
    };
    let id = HeaderValue::from_str(&context.id).ok();
    request.extensions_mut().insert(context);
    let running = next.run(request).instrument(observation.span.clone());
    let mut response = match AssertUnwindSafe(running).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            observation.state.metrics().panicked();
            tracing::error!(id = &*observation.context.id, "a handler panicked: {}", message_of(&*panic));
            ApiError::internal("the request failed inside the server; its log says more").into_response()
        }
    };
    if let Some(id) = id {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), id);
    }
    observation.status = response.status().as_u16();
    observation.error = response.extensions_mut().remove::<ApiError>().map(|error| error.message);
    // A body without a frame is never asked for one.
    observation.complete = response.body().is_end_stream();
    response.map(|body| Body::new(Observed { body, observation }))
}

/// What a panic said.
fn message_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::config::ServerConfig;

    async fn call(path: &str) -> (Response, AppState) {
        let state = AppState::new(ServerConfig::default()).unwrap();
        async fn panics() -> &'static str {
            panic!("on purpose")
        }
        let routes = Router::new().route("/boom", get(panics)).route("/fine", get(async || "fine"));
        let routes = crate::middleware::wrap(routes, &state).unwrap().with_state(state.clone());
        let request = axum::http::Request::get(path).header(REQUEST_ID, "seven").body(Body::empty()).unwrap();
        (routes.oneshot(request).await.unwrap(), state)
    }

    #[tokio::test]
    async fn a_panic_is_an_error_object() {
        let (response, state) = call("/boom").await;
        assert_eq!(response.status().as_u16(), 500);
        assert_eq!(response.headers()[REQUEST_ID], "seven");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "server_error");
        let text = state.metrics().render(&state);
        assert!(text.contains("bitnet_handler_panics_total 1"), "{text}");
        assert!(text.contains("bitnet_requests_total{route=\"/boom\",status=\"500\"} 1"), "{text}");
    }

    #[tokio::test]
    async fn answers_are_counted_when_they_are_out() {
        let (response, state) = call("/fine").await;
        assert!(!state.metrics().render(&state).contains("route=\"/fine\""));
        axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(state.metrics().render(&state).contains("{route=\"/fine\",status=\"200\"} 1"));
        let (response, state) = call("/fine").await;
        drop(response);
        let text = state.metrics().render(&state);
        assert!(text.contains("{route=\"/fine\",status=\"499\"} 1"), "{text}");
    }
}
