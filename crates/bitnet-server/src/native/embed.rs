//! `/embedding` and `/embeddings`: vectors in llama-server's own form.

use axum::Json;
use axum::extract::State;
use bitnet_inference::EmbedOptions;
use serde_json::{Map, Value, json};

use super::request::{WHOLE, inputs};
use crate::common::fields::{self, find};
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::state::AppState;

/// The vectors of one text or several: `[{"index": 0, "embedding": [[..]]}, ..]`. `embd_normalize` says how they are scaled:
/// -1 not at all, 0 by the largest magnitude, 1 by the sum of magnitudes, 2 to length one, p by the p-norm.
pub(super) async fn embedding(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(find(&body, &["model"]).map(fields::text).transpose()?).await?;
    let (field, value) = find(&body, &["content", "input"])
        .ok_or_else(|| ApiError::bad_param("content", "content is required: a text or a list of texts"))?;
    let texts = texts(value);
    let tokens = if texts.is_none() { inputs(field, value)? } else { Vec::new() };
    let norm = find(&body, &["embd_normalize"]).map_or(Ok(2), fields::whole)?;
    let options = EmbedOptions { normalize: false, ..EmbedOptions::default() };
    let done = model
        .blocking(move |engine| match texts {
            Some(texts) => engine.embed_with(&texts, &options, &mut |_, _| {}),
            None => {
                let lists =
                    tokens.iter().map(|input| input.encode(engine, WHOLE)).collect::<Result<_, _>>()?;
                engine.embed_ids(lists, &options, &mut |_, _| {})
            }
        })
        .await?;
    let vectors = done.vectors.into_iter().enumerate();
    let told = vectors.map(|(index, vector)| json!({"index": index, "embedding": [scaled(vector, norm)]}));
    Ok(Json(told.collect()))
}

/// The texts of a body that has nothing but texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) if !list.is_empty() => {
            list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

/// Scales a vector as `embd_normalize` says.
fn scaled(mut vector: Vec<f32>, norm: i64) -> Vec<f32> {
    let magnitudes = vector.iter().map(|&x| f64::from(x).abs());
    let size = match norm {
        i64::MIN..=-1 => return vector,
        // llama.cpp scales to the range of 16-bit integers here.
        0 => magnitudes.fold(0.0, f64::max) / 32_760.0,
        1 => magnitudes.sum(),
        2 => magnitudes.map(|x| x * x).sum::<f64>().sqrt(),
        p => magnitudes.map(|x| x.powf(p as f64)).sum::<f64>().powf(1.0 / p as f64),
    };
    if size > 0.0 && size.is_finite() {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / size) as f32);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms() {
        let vector = || vec![3.0, -4.0];
        assert_eq!(scaled(vector(), -1), [3.0, -4.0]);
        assert_eq!(scaled(vector(), 0), [24_570.0, -32_760.0]);
        assert_eq!(scaled(vector(), 1), [3.0 / 7.0, -4.0 / 7.0]);
        assert_eq!(scaled(vector(), 2), [0.6, -0.8]);
        let cubes = scaled(vector(), 3);
        assert!((f64::from(cubes[0]) - 3.0 / 91.0_f64.powf(1.0 / 3.0)).abs() < 1e-6, "{cubes:?}");
        assert_eq!(scaled(vec![0.0], 2), [0.0]);
        assert!(scaled(vector(), i64::MAX).iter().all(|x| x.is_finite()));
    }

    #[test]
    fn texts_are_told_from_tokens() {
        assert_eq!(texts(&json!(["a", ""])).unwrap(), ["a", ""]);
        for value in [json!([1, 2]), json!([]), json!(1), json!(["a", [1]])] {
            assert!(texts(&value).is_none(), "{value}");
        }
    }
}
