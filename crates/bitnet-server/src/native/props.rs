//! `/props`: what the server is and with which parameters it generates.

use axum::Json;
use axum::extract::{Query, State};
use bitnet_inference::{EngineError, GenerateRequest, InferenceEngine, Prompt, SamplingParams};
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::Wanted;
use super::settings::settings;
use crate::error::ApiError;
use crate::state::AppState;

/// Which model is meant.
#[derive(Debug, Deserialize)]
pub(super) struct Chosen {
    pub(super) model: Option<String>,
}

/// `GET /props`. Loads the model.
pub(super) async fn props(
    State(state): State<AppState>,
    Query(chosen): Query<Chosen>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(chosen.model.as_deref()).await?;
    let engine = model.engine();
    let config = state.config();
    let template = engine.model().chat_template.as_ref();
    let tokenizer = engine.tokenizer().ok();
    let spelled =
        |token: Option<u32>| token.and_then(|id| tokenizer.and_then(|tokenizer| tokenizer.token_str(id)));
    Ok(Json(json!({
        "default_generation_settings": defaults(engine)?,
        "total_slots": config.parallel,
        "model_alias": model.id(),
        "model_path": engine.model().place,
        "modalities": {"vision": false, "audio": false},
        "chat_template": template.map_or("", |template| template.source()),
        "chat_template_caps": {
            "supports_tools": template.is_some_and(bitnet_text::ChatTemplate::supports_tools),
            "supports_system_role": template.is_some(),
        },
        "bos_token": spelled(tokenizer.and_then(|tokenizer| tokenizer.bos())).unwrap_or_default(),
        "eos_token": spelled(engine.defaults().stop_tokens.first().copied()).unwrap_or_default(),
        "build_info": concat!("bitnet ", env!("CARGO_PKG_VERSION")),
        "is_sleeping": false,
        "endpoint_slots": config.slots,
        "endpoint_props": false,
        "endpoint_metrics": config.metrics,
        "webui": config.webui,
    })))
}

/// The parameters of a request that sets none, in the form of a slot.
fn defaults(engine: &InferenceEngine) -> Result<Value, ApiError> {
    let request = GenerateRequest {
        max_tokens: engine.defaults().max_new_tokens.map(|tokens| tokens as usize),
        ..GenerateRequest::new(Prompt::Tokens(Vec::new()))
    };
    let params = SamplingParams::resolve(&request.sampling, engine.defaults()).map_err(EngineError::from)?;
    let wanted = Wanted { stream: true, ..Wanted::default() };
    Ok(json!({
        "id": 0,
        "id_task": -1,
        "n_ctx": engine.context(),
        "speculative": false,
        "is_processing": false,
        "params": settings(&params, None, &request, &wanted),
        "prompt": "",
        "next_token": {"has_next_token": true, "has_new_line": false, "n_remain": -1, "n_decoded": 0, "stopping_word": ""},
    }))
}
