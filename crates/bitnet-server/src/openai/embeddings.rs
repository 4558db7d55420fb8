//! `/v1/embeddings`.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitnet_inference::EmbedOptions;
use serde_json::{Value, json};

use super::completions::{Inputs, inputs};
use super::request::{Body, model, read};
use crate::common::fields;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::state::AppState;

/// Most texts of a request, as in OpenAI's API.
const MOST_INPUTS: usize = 2048;

/// Embeds texts. `dimensions` keeps the first so many numbers of each vector and scales it to length one again, as OpenAI's
/// models do; only models that were trained for it lose little.
pub(super) async fn embed(
    State(state): State<AppState>,
    context: RequestContext,
    ApiJson(body): ApiJson<Body>,
) -> Result<Json<Value>, ApiError> {
    let asked = Asked::read(&body)?;
    let model = state.model(model(&body)?).await?;
    context.facts.set_model(model.shared_id());
    let width = model.engine().spec().hidden_size;
    if let Some(dimensions) = asked.dimensions.filter(|&dimensions| dimensions == 0 || dimensions > width) {
        let message = format!("dimensions = {dimensions} is not possible: it must be from 1 to {width}");
        return Err(ApiError::bad_param("dimensions", message));
    }
    let inputs = asked.inputs;
    let done = model
        .blocking(move |engine| {
            let options = EmbedOptions::default();
            match inputs {
                Inputs::Texts(texts) => engine.embed_with(&texts, &options, &mut |_, _| {}),
                Inputs::Tokens(lists) => engine.embed_ids(lists, &options, &mut |_, _| {}),
            }
        })
        .await?;
    let vectors = done.vectors.into_iter().map(|vector| match asked.dimensions {
        Some(dimensions) => shortened(vector, dimensions),
        None => vector,
    });
    let data = vectors.enumerate().map(|(index, vector)| {
        let told = if asked.base64 { json!(in_base64(&vector)) } else { json!(vector) };
        json!({"object": "embedding", "index": index, "embedding": told})
    });
    let data: Vec<Value> = data.collect();
    let tokens: usize = done.tokens.iter().sum();
    context.facts.prompt_tokens.fetch_add(tokens as u64, std::sync::atomic::Ordering::Relaxed);
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(Json(json!({"object": "list", "data": data, "model": model.id(), "usage": usage})))
}

/// What a body asks for.
#[derive(Debug)]
struct Asked {
    inputs: Inputs,
    base64: bool,
    dimensions: Option<usize>,
}

impl Asked {
    fn read(body: &Body) -> Result<Self, ApiError> {
        let inputs = inputs("input", body)?;
        let count = match &inputs {
            Inputs::Texts(texts) => texts.len(),
            Inputs::Tokens(lists) => lists.len(),
        };
        if count > MOST_INPUTS {
            let message = format!("{count} inputs are too many: at most {MOST_INPUTS} are possible");
            return Err(ApiError::bad_param("input", message));
        }
        let base64 = match read(body, "encoding_format", fields::text)? {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => {
                let message = "encoding_format must be \"float\" or \"base64\"";
                return Err(ApiError::bad_param("encoding_format", message));
            }
        };
        Ok(Self { inputs, base64, dimensions: read(body, "dimensions", fields::count)? })
    }
}

/// The first numbers of a vector, scaled to length one.
fn shortened(mut vector: Vec<f32>, dimensions: usize) -> Vec<f32> {
    vector.truncate(dimensions);
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}

/// The numbers as little-endian bytes, in base64.
fn in_base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_shortened_and_written() {
        assert_eq!(shortened(vec![3.0, 4.0, 12.0], 2), [0.6, 0.8]);
        assert_eq!(shortened(vec![0.0, 0.0], 1), [0.0]);
        assert_eq!(in_base64(&[1.0, -2.5]), "AACAPwAAIMA=");
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (body, param) in [
            (json!({}), "input"),
            (json!({"input": [[]], "encoding_format": "hex"}), "encoding_format"),
            (json!({"input": "a", "dimensions": "x"}), "dimensions"),
            (json!({"input": vec!["a"; 2049]}), "input"),
            (json!({"input": {"text": "a"}}), "input"),
        ] {
            let error = Asked::read(body.as_object().unwrap()).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{body}: {error}"
            );
        }
    }
}
