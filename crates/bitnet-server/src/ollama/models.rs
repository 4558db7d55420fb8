//! What ollama's clients are told of models: `/api/tags`, `/api/ps`, `/api/show`, `/api/version`.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use bitnet_inference::{InferenceEngine, PenaltyWindow, SamplingOverrides, SamplingParams};
use bitnet_model::ModelSpec;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::common::clock::rfc3339;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::models::ModelSummary;
use crate::state::AppState;

/// The version of ollama whose API this is. Clients ask for one that is new enough.
const API_VERSION: &str = "0.12.6";

/// `/api/version`.
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": API_VERSION, "server": concat!("bitnet ", env!("CARGO_PKG_VERSION"))}))
}

/// `/api/tags`: all models.
pub(super) async fn tags(State(state): State<AppState>) -> Json<Value> {
    let models: Vec<Value> = state.models().iter().map(listed).collect();
    Json(json!({"models": models}))
}

/// `/api/ps`: the models that are loaded.
pub(super) async fn ps(State(state): State<AppState>) -> Json<Value> {
    let running = |model: &ModelSummary| {
        let mut entry = listed(model);
        entry["size"] = json!(model.weight_bytes.unwrap_or(model.size));
        entry["size_vram"] = json!(0);
        entry["context_length"] = json!(model.context);
        // When it is unloaded is not known beforehand, as every request changes it.
        entry["expires_at"] = json!("9999-12-31T23:59:59Z");
        entry
    };
    let models: Vec<Value> = state.models().iter().filter(|model| model.loaded).map(running).collect();
    Json(json!({"models": models}))
}

/// A name with a tag, as clients of ollama expect it.
fn tagged(id: &str) -> String {
    if id.contains(':') { id.to_owned() } else { format!("{id}:latest") }
}

/// A name for what a model is, in the form of a hash. It changes when place or size of the files do.
fn digest(model: &ModelSummary) -> String {
    let text = format!("{}\n{}\n{}", model.id, model.path, model.size);
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

fn listed(model: &ModelSummary) -> Value {
    let modified = UNIX_EPOCH + Duration::from_secs(model.created);
    let format = model.format.as_deref().unwrap_or(&model.path);
    let mut details = details(format);
    // What only a loaded model tells is empty for others, as clients expect texts.
    details["parameter_size"] = json!(model.parameters.map_or_else(String::new, short_count));
    json!({
        "name": tagged(&model.id), "model": tagged(&model.id), "modified_at": rfc3339(modified),
        "size": model.size, "digest": digest(model), "details": details,
    })
}

fn details(format: &str) -> Value {
    let format = if format.to_ascii_lowercase().contains("gguf") { "gguf" } else { "safetensors" };
    json!({
        "parent_model": "", "format": format, "family": "bitnet", "families": ["bitnet"], "parameter_size": "",
        "quantization_level": "b1.58",
    })
}

/// `2.4B`, `36.2M`.
fn short_count(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.1}K", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}B", count as f64 / 1e9),
    }
}

/// Which model is meant.
#[derive(Debug, Deserialize)]
pub(super) struct ShowRequest {
    model: Option<String>,
    /// As it was called in former versions.
    name: Option<String>,
}

/// `/api/show`: all about a model. Loads it.
pub(super) async fn show(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<ShowRequest>,
) -> Result<Json<Value>, ApiError> {
    let name = body.model.or(body.name).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ApiError::bad_param("model", "model is required"))?;
    let model = state.model(Some(&name)).await?;
    let summary = model.summary();
    let mut whole = shown(model.engine());
    whole["modified_at"] = json!(rfc3339(UNIX_EPOCH + Duration::from_secs(summary.created)));
    Ok(Json(whole))
}

fn shown(engine: &InferenceEngine) -> Value {
    let model = engine.model();
    let template = model.chat_template.as_ref();
    let mut details = details(&model.format);
    details["parameter_size"] = json!(short_count(engine.spec().parameters()));
    let mut capabilities = vec!["completion"];
    if template.is_some() {
        // Where the template knows no tools, the prompt explains them.
        capabilities.push("tools");
    }
    if model.embedding.pooling.is_some() {
        capabilities.push("embedding");
    }
    json!({
        "modelfile": format!("# served by bitnet\nFROM {}\n", model.place),
        "parameters": parameters(engine),
        "template": template.map_or("", |template| template.source()),
        "details": details,
        "model_info": info(engine.spec(), engine),
        "capabilities": capabilities,
    })
}

/// The sampling defaults, one a line.
fn parameters(engine: &InferenceEngine) -> String {
    let Ok(params) = SamplingParams::resolve(&SamplingOverrides::default(), engine.defaults()) else {
        return String::new();
    };
    let mut lines = vec![
        ("num_ctx", engine.context().to_string()),
        ("temperature", params.temperature.to_string()),
        ("top_k", params.top_k.to_string()),
        ("top_p", params.top_p.to_string()),
        ("min_p", params.min_p.to_string()),
        ("repeat_penalty", params.repeat_penalty.to_string()),
    ];
    if let PenaltyWindow::Last(tokens) = params.repeat_last_n {
        lines.push(("repeat_last_n", tokens.to_string()));
    }
    let tokenizer = engine.tokenizer().ok();
    let stops = engine.defaults().stop_tokens.iter();
    let stops = stops.filter_map(|&stop| tokenizer.and_then(|tokenizer| tokenizer.token_str(stop)));
    lines.extend(stops.map(|stop| ("stop", format!("{stop:?}"))));
    lines.iter().map(|(name, value)| format!("{name:<30} {value}")).collect::<Vec<_>>().join("\n")
}

/// Facts in the spelling of GGUF files.
fn info(spec: &ModelSpec, engine: &InferenceEngine) -> Value {
    const ARCHITECTURE: &str = "bitnet-b1.58";
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), json!(ARCHITECTURE));
    info.insert("general.basename".to_owned(), json!(engine.model().name));
    info.insert("general.parameter_count".to_owned(), json!(spec.parameters()));
    for (name, value) in [
        ("attention.head_count", json!(spec.num_heads)),
        ("attention.head_count_kv", json!(spec.num_kv_heads)),
        ("attention.layer_norm_rms_epsilon", json!(spec.rms_norm_eps)),
        ("block_count", json!(spec.num_layers)),
        ("context_length", json!(spec.context_length)),
        ("embedding_length", json!(spec.hidden_size)),
        ("feed_forward_length", json!(spec.intermediate_size)),
        ("rope.dimension_count", json!(spec.head_dim)),
        ("rope.freq_base", json!(spec.rope_theta)),
        ("vocab_size", json!(spec.vocab_size)),
    ] {
        info.insert(format!("{ARCHITECTURE}.{name}"), value);
    }
    if let Ok(tokenizer) = engine.tokenizer() {
        info.insert("tokenizer.ggml.model".to_owned(), json!(tokenizer.kind()));
        info.insert("tokenizer.ggml.bos_token_id".to_owned(), json!(tokenizer.bos()));
        info.insert("tokenizer.ggml.eos_token_id".to_owned(), json!(engine.defaults().stop_tokens.first()));
        // Ollama leaves the lists out as well, unless they are asked for.
        info.insert("tokenizer.ggml.tokens".to_owned(), Value::Null);
    }
    Value::Object(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert_eq!((tagged("a").as_str(), tagged("a:b").as_str()), ("a:latest", "a:b"));
        assert_eq!(short_count(2_412_820_480), "2.4B");
        assert_eq!(short_count(36_175_872), "36.2M");
        assert_eq!(short_count(900), "0.9K");
        assert_eq!(
            (&details("GGUF i2_s")["format"], &details("x")["format"]),
            (&json!("gguf"), &json!("safetensors"))
        );
    }
}
