//! The table of routes.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitnet_inference::scheduler::{SlotState, SlotStats};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::models::ModelSummary;
use crate::state::AppState;

/// All routes, without what stands around them.
pub(crate) fn routes(state: &AppState) -> Router<AppState> {
    let mut routes = Router::new()
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/models/status", get(status))
        .route("/models/load", post(load))
        .route("/models/unload", post(unload))
        .merge(crate::openai::routes())
        .merge(crate::anthropic::routes())
        .merge(crate::ollama::routes())
        .merge(crate::native::routes());
    if state.config().metrics {
        routes = routes.route("/metrics", get(metrics));
    }
    if state.config().webui {
        routes = routes.merge(crate::web::routes());
    }
    routes.fallback(no_route).method_not_allowed_fallback(wrong_method)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::no_route(&uri)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let mut error = ApiError::no_route(&uri);
    error.status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    error.kind = "invalid_request_error";
    let path: String = uri.path().chars().take(200).collect();
    error.message = format!("{path} does not take {method}");
    error
}

/// 503 while the models that are served from the start are being loaded.
async fn health(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    if state.is_starting() {
        return Err(ApiError::unavailable("Loading model"));
    }
    Ok(Json(json!({"status": "ok"})))
}

/// Everything about a model. Of one that is loaded also what it is doing.
fn told_with_load(state: &AppState, model: &ModelSummary) -> Value {
    let mut told = told(model);
    let loaded = state.registry().loaded().into_iter().find(|(id, _)| **id == *model.id);
    let Some((id, engine)) = loaded else { return told };
    let stats = engine.scheduler().stats();
    let slots = stats.slots.iter().filter(|slot| slot.state == SlotState::Decode);
    let rate =
        |slot: &SlotStats| slot.generated_tokens as f64 / slot.started.elapsed().as_secs_f64().max(1e-3);
    told["slots"] = json!({"running": stats.running, "waiting": stats.queued, "most": stats.max_running});
    told["tokens_per_second"] = json!({
        "now": slots.map(rate).sum::<f64>(),
        "of_a_text": state.metrics().model(&id).rate(),
    });
    told["kv_bytes"] = json!(engine.kv_memory().as_bytes());
    told["loaded_seconds"] = json!(model.loaded_for.map(|time| time.as_secs_f64()));
    told
}

fn told(model: &ModelSummary) -> Value {
    json!({
        "id": model.id,
        "aliases": model.aliases,
        "status": {"value": model.state.name(), "failure": model.failure},
        "path": model.path,
        "format": model.format,
        "size": model.size,
        "weight_bytes": model.weight_bytes,
        "context": model.context,
    })
}

async fn status(State(state): State<AppState>) -> Json<Value> {
    let cache = state.registry().cache_stats();
    let models: Vec<Value> = state.models().iter().map(|model| told_with_load(&state, model)).collect();
    Json(json!({
        "server": {
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": state.started().elapsed().as_secs_f64(),
        },
        "models": models,
        "memory": {"resident_bytes": cache.resident_bytes, "budget_bytes": cache.budget_bytes},
    }))
}

/// Which model is meant.
#[derive(Debug, Deserialize)]
struct Named {
    model: String,
}

async fn load(
    State(state): State<AppState>,
    ApiJson(named): ApiJson<Named>,
) -> Result<Json<Value>, ApiError> {
    let model = state.registry().load_named(&named.model).await?;
    Ok(Json(json!({"success": true, "model": told(&model)})))
}

async fn unload(
    State(state): State<AppState>,
    ApiJson(named): ApiJson<Named>,
) -> Result<Json<Value>, ApiError> {
    let model = state.registry().unload_named(&named.model).await?;
    Ok(Json(json!({"success": true, "model": told(&model)})))
}

async fn metrics(State(state): State<AppState>) -> Response {
    let text = state.metrics().render(&state);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
