//! A route that streams text as it is generated and knows no API: what the tests of connections need.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bitnet_inference::scheduler::StreamEvent;
use bitnet_inference::{GenerateRequest, Prompt};
use bitnet_server::{ApiError, ApiJson, AppState, RequestContext};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

/// Where it is.
pub(crate) const PATH: &str = "/test/stream";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    prompt: String,
    max_tokens: Option<usize>,
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
    /// Completions.
    #[serde(default = "one")]
    n: usize,
    /// Bytes that are sent along with each token.
    #[serde(default)]
    padding: usize,
}

fn one() -> usize {
    1
}

pub(crate) fn routes() -> Router<AppState> {
    Router::new().route(PATH, post(stream))
}

fn request(asked: &Asked) -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::text(asked.prompt.clone())).n(asked.n);
    request.max_tokens = asked.max_tokens;
    request.sampling.seed = asked.seed;
    request.stop.clone_from(&asked.stop);
    // Texts are as long as was asked for.
    request.ignore_eos = true;
    request
}

async fn stream(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(asked): ApiJson<Asked>,
) -> Result<Response, ApiError> {
    let model = state.model(None).await?;
    let events = model.start(request(&asked), &context).await?;
    let chunks = events.map(move |event| match event {
        Ok(StreamEvent::Token { text, .. } | StreamEvent::Tail { text, .. }) => {
            Ok::<_, ApiError>(text + &"~".repeat(asked.padding))
        }
        Ok(_) => Ok(String::new()),
        Err(error) => Err(error.into()),
    });
    Ok(Response::new(Body::from_stream(chunks)))
}

/// A request for one completion.
pub(crate) fn short(prompt: &str, seed: u64) -> Value {
    json!({"prompt": prompt, "max_tokens": 24, "seed": seed})
}

/// A request that takes so long that a test can do something meanwhile.
pub(crate) fn long() -> Value {
    json!({"prompt": "Once upon a time", "n": 128, "seed": 1})
}
