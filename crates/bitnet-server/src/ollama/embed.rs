//! `/api/embed`, and `/api/embeddings` from before it.

use axum::Json;
use axum::extract::State;
use bitnet_inference::EmbedOptions;
use serde::Deserialize;
use serde_json::{Value, json};

use super::keep_alive::KeepAlive;
use crate::common::clock::nanoseconds;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::state::AppState;

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Input {
    One(String),
    Many(Vec<String>),
}

/// The body of `/api/embed`.
#[derive(Debug, Deserialize)]
pub(super) struct EmbedRequest {
    #[serde(default)]
    model: String,
    input: Option<Input>,
    truncate: Option<bool>,
    dimensions: Option<usize>,
    keep_alive: Option<Value>,
}

/// `/api/embed`: a vector of length one for each text. Texts that are too long are cut unless the request forbids it.
pub(super) async fn embed(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<EmbedRequest>,
) -> Result<Json<Value>, ApiError> {
    let keep_alive = KeepAlive::read(body.keep_alive.as_ref())?;
    let loaded = super::loaded(&state, &body.model, keep_alive).await?;
    let texts = match body.input {
        None => return Err(ApiError::bad_param("input", "input is required: a string or a list of strings")),
        Some(Input::One(text)) if text.is_empty() => Vec::new(),
        Some(Input::One(text)) => vec![text],
        Some(Input::Many(texts)) => texts,
    };
    let options = EmbedOptions { truncate: body.truncate.unwrap_or(true), ..EmbedOptions::default() };
    let width = loaded.model.engine().spec().hidden_size;
    if let Some(dimensions) = body.dimensions.filter(|dimensions| !(1..=width).contains(dimensions)) {
        let message = format!("dimensions is {dimensions}; it must be from 1 to {width}");
        return Err(ApiError::bad_param("dimensions", message));
    }
    let done =
        loaded.model.blocking(move |engine| engine.embed_with(&texts, &options, &mut |_, _| {})).await?;
    let mut vectors = done.vectors;
    if let Some(dimensions) = body.dimensions {
        vectors.iter_mut().for_each(|vector| shorten(vector, dimensions));
    }
    Ok(Json(json!({
        "model": loaded.name,
        "embeddings": vectors,
        "total_duration": nanoseconds(context.arrived.elapsed()),
        "load_duration": nanoseconds(loaded.load),
        "prompt_eval_count": done.tokens.iter().sum::<usize>(),
    })))
}

/// Keeps the first dimensions, scaled to length one again.
fn shorten(vector: &mut Vec<f32>, dimensions: usize) {
    vector.truncate(dimensions);
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// The body of `/api/embeddings`.
#[derive(Debug, Deserialize)]
pub(super) struct EmbeddingsRequest {
    #[serde(default)]
    model: String,
    prompt: Option<String>,
    keep_alive: Option<Value>,
}

/// `/api/embeddings`: the vector of one text, of whatever length it has.
pub(super) async fn embeddings(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<EmbeddingsRequest>,
) -> Result<Json<Value>, ApiError> {
    let keep_alive = KeepAlive::read(body.keep_alive.as_ref())?;
    let loaded = super::loaded(&state, &body.model, keep_alive).await?;
    let text = body.prompt.unwrap_or_default();
    if text.is_empty() {
        return Ok(Json(json!({"embedding": []})));
    }
    let options = EmbedOptions { truncate: true, normalize: false, ..EmbedOptions::default() };
    let done =
        loaded.model.blocking(move |engine| engine.embed_with(&[text], &options, &mut |_, _| {})).await?;
    Ok(Json(json!({"embedding": done.vectors.first()})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_vectors_have_length_one() {
        let mut vector = vec![3.0, 4.0, 12.0];
        shorten(&mut vector, 2);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zeros = vec![0.0, 0.0];
        shorten(&mut zeros, 1);
        assert_eq!(zeros, [0.0]);
    }
}
