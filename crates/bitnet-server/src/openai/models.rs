//! `/v1/models`: what can be asked for.

use axum::Json;
use axum::extract::{Path, State};
use bitnet_inference::{GenerateRequest, InferenceEngine, Prompt, SamplingParams};
use serde_json::{Value, json};

use super::request::written;
use crate::common::clock::rfc3339;
use crate::error::ApiError;
use crate::models::ModelSummary;
use crate::state::AppState;

/// All models, in OpenAI's form under `data` and in the form of ollama's lists under `models`.
pub(super) async fn list(State(state): State<AppState>) -> Json<Value> {
    let models = state.models();
    let mut data = Vec::with_capacity(models.len());
    for model in &models {
        data.push(told(&state, model).await);
    }
    let also: Vec<Value> = models.iter().map(as_in_ollama).collect();
    Json(json!({"object": "list", "data": data, "models": also}))
}

/// One model, by its name or another of its names.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let models = state.models();
    let found = models.iter().find(|model| model.id == id || model.aliases.contains(&id));
    match found {
        Some(model) => Ok(Json(told(&state, model).await)),
        None => {
            let there: Vec<String> = models.into_iter().map(|model| model.id).collect();
            Err(ApiError::model_not_found(&id, &there))
        }
    }
}

/// A model. What only its files tell is there while it is loaded; telling of it does not load it.
async fn told(state: &AppState, model: &ModelSummary) -> Value {
    let mut meta = json!({
        "n_ctx": model.context,
        "n_ctx_train": model.trained_context,
        "n_vocab": model.vocab_size,
        "n_embd": model.hidden_size,
        "size": model.size,
        "format": model.format,
        "loaded": model.loaded,
    });
    if model.loaded
        && let Ok(handle) = state.model(Some(&model.id)).await
    {
        let engine = handle.engine();
        let template = engine.model().chat_template.as_ref();
        meta["chat_template"] = json!(template.is_some());
        meta["tools"] = json!(template.is_some_and(bitnet_text::ChatTemplate::supports_tools));
        meta["default_generation_settings"] = defaults(engine);
    }
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "bitnet",
        "aliases": model.aliases,
        "meta": meta,
    })
}

/// What holds where a request says nothing.
fn defaults(engine: &InferenceEngine) -> Value {
    let request = GenerateRequest::new(Prompt::text(""));
    let params = SamplingParams::resolve(&request.sampling, engine.defaults()).unwrap_or_default();
    json!({
        "temperature": written(params.temperature),
        "top_k": params.top_k,
        "top_p": written(params.top_p),
        "min_p": written(params.min_p),
        "repeat_penalty": written(params.repeat_penalty),
        "max_tokens": engine.defaults().max_new_tokens,
    })
}

fn as_in_ollama(model: &ModelSummary) -> Value {
    let created = std::time::UNIX_EPOCH + std::time::Duration::from_secs(model.created);
    json!({
        "name": model.id,
        "model": model.id,
        "modified_at": rfc3339(created),
        "size": model.size,
        "digest": "",
        "type": "model",
        "description": "",
        "tags": [""],
        "capabilities": ["completion"],
        "parameters": "",
        "details": {
            "parent_model": "", "format": model.format, "family": "bitnet", "families": ["bitnet"],
            "parameter_size": "", "quantization_level": "",
        },
    })
}
