//! Ollama's API under `/api/`: `generate`, `chat`, `embed`, `embeddings`, `tags`, `show`, `ps`, `version`.
//!
//! [`request`] reads bodies and makes requests to the engine of them, [`answer`] makes the parts of an answer into the
//! objects of a stream (one a line) or into one object, [`models`] tells of models, [`embed`] embeds. Ollama's own store of
//! models (`pull`, `create`, `copy`, `delete`, `push`, blobs) is not here: `bitnet pull` and `bitnet rm` manage models.

mod answer;
mod embed;
mod keep_alive;
mod message;
mod models;
mod request;

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde_json::{Value, json};

use self::answer::{Answer, Kind};
use self::keep_alive::KeepAlive;
use self::request::{ChatRequest, GenerateBody, Plan};
use crate::common::reply::Reply;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::models::ModelHandle;
use crate::state::AppState;

/// The paths of this API.
pub(crate) fn routes() -> Router<AppState> {
    let routes = Router::new()
        .route("/api/generate", post(generate))
        .route("/api/chat", post(chat))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/version", get(models::version))
        .route("/api/blobs/{digest}", any(no_store));
    let store = ["/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"];
    store.into_iter().fold(routes, |routes, path| routes.route(path, any(no_store)))
}

/// Errors as ollama writes them.
pub(crate) fn error_body(error: &ApiError) -> Value {
    json!({"error": error.message})
}

async fn no_store() -> ApiError {
    ApiError::not_supported(
        "this server does not change its models over ollama's API; use `bitnet pull`, `bitnet rm` and \
         `bitnet serve --models-dir`",
    )
}

/// The model of a request, and how long getting it took.
struct Loaded {
    model: ModelHandle,
    /// The name that the client used.
    name: String,
    load: std::time::Duration,
}

async fn loaded(state: &AppState, name: &str, keep_alive: Option<KeepAlive>) -> Result<Loaded, ApiError> {
    if name.is_empty() {
        return Err(ApiError::bad_param("model", "model is required"));
    }
    let start = Instant::now();
    let model = state.model(Some(name)).await?;
    if let Some(keep_alive) = keep_alive {
        model.keep_for(keep_alive.time());
    }
    Ok(Loaded { model, name: name.to_owned(), load: start.elapsed() })
}

async fn generate(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<GenerateBody>,
) -> Result<Response, ApiError> {
    let keep_alive = body.keep_alive()?;
    if body.only_loads() {
        return only_load(&state, body.model(), keep_alive, Kind::Generate).await;
    }
    let loaded = loaded(&state, body.model(), keep_alive).await?;
    let streamed = body.is_streamed();
    let model = loaded.model.clone();
    let plan = state.blocking(move || body.plan(model.engine())).await?;
    run(loaded, plan, &context, Kind::Generate, streamed).await
}

async fn chat(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<ChatRequest>,
) -> Result<Response, ApiError> {
    let keep_alive = body.keep_alive()?;
    if body.only_loads() {
        return only_load(&state, body.model(), keep_alive, Kind::Chat).await;
    }
    let loaded = loaded(&state, body.model(), keep_alive).await?;
    let streamed = body.is_streamed();
    let plan = body.plan(loaded.model.engine())?;
    run(loaded, plan, &context, Kind::Chat, streamed).await
}

/// A request without anything to answer loads its model, or unloads it where it is not to be kept.
async fn only_load(
    state: &AppState,
    name: &str,
    keep_alive: Option<KeepAlive>,
    kind: Kind,
) -> Result<Response, ApiError> {
    let unloads = keep_alive.is_some_and(KeepAlive::is_zero);
    let unloaded = if unloads { state.registry().unload_named(name).await.map(|_| ()) } else { Ok(()) };
    match unloaded {
        Ok(()) if unloads => {}
        // One that is answering goes when it is done.
        Err(error) if error.status != StatusCode::CONFLICT => return Err(error),
        _ => drop(loaded(state, name, keep_alive).await?),
    }
    Ok(Json(answer::nothing(kind, name, if unloads { "unload" } else { "load" })).into_response())
}

async fn run(
    loaded: Loaded,
    plan: Plan,
    context: &RequestContext,
    kind: Kind,
    streamed: bool,
) -> Result<Response, ApiError> {
    let Loaded { model, name, load } = loaded;
    let answer = Answer::new(kind, name, context.arrived, load, &plan, model.engine());
    let Plan { request, parser, .. } = plan;
    let mut reply = Reply::start(&model, request, context, parser).await?;
    if streamed {
        return Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines(reply, answer)))
            .into_response());
    }
    let mut answer = answer;
    loop {
        let part = reply.next().await?.ok_or_else(|| ApiError::internal("the answer has no end"))?;
        if let Some(whole) = answer.collect(part) {
            return Ok(Json(whole).into_response());
        }
    }
}

/// The objects of an answer, one a line. After an error nothing follows.
fn lines(
    reply: Reply,
    answer: Answer,
) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(Some((reply, answer)), async |running| {
        let (mut reply, mut answer) = running?;
        loop {
            let (objects, next) = match reply.next().await {
                Ok(Some(part)) => (answer.stream(part), Some((reply, answer))),
                Ok(None) => return None,
                Err(error) => (vec![error_body(&error)], None),
            };
            if objects.is_empty() {
                (reply, answer) = next?;
                continue;
            }
            let text: String = objects.iter().map(|object| format!("{object}\n")).collect();
            return Some((Ok(Bytes::from(text)), next));
        }
    })
}
