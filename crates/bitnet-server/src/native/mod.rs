//! llama-server's own API: `/completion`, `/tokenize`, `/detokenize`, `/apply-template`, `/props`, `/slots`,
//! `/embedding`.
//!
//! [`request`] reads the many fields of a completion, [`answer`] makes the events of the engine into its chunks and its
//! final object, [`settings`] tells the parameters that were used. What is known there and not done here (filling in,
//! ranking, adapters, saved slots) is refused by name, so that clients learn why.

mod answer;
mod completion;
mod embed;
mod props;
mod request;
mod settings;
mod slots;
mod tokens;

use axum::Router;
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::state::AppState;

/// The paths of this API.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/completion", post(completion::completion))
        .route("/completions", post(completion::completion))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/apply-template", post(tokens::apply_template))
        .route("/embedding", post(embed::embedding))
        .route("/embeddings", post(embed::embedding))
        .route("/props", get(props::props).post(read_only))
        .route("/slots", get(slots::slots))
        .route("/slots/{id}", post(no_saved_slots))
        .route("/lora-adapters", get(no_adapters).post(no_lora))
        .route("/infill", post(no_infill))
        .route("/rerank", post(no_ranking))
        .route("/reranking", post(no_ranking))
        .route("/v1/rerank", post(no_ranking))
        .route("/v1/reranking", post(no_ranking))
}

async fn read_only() -> ApiError {
    ApiError::not_supported("properties are set when the server starts; see `bitnet serve --help`")
}

async fn no_saved_slots() -> ApiError {
    ApiError::not_supported(
        "slots cannot be saved, restored or erased; prompts that begin alike share their keys and values by themselves",
    )
}

async fn no_adapters() -> axum::Json<Value> {
    axum::Json(json!([]))
}

async fn no_lora() -> ApiError {
    ApiError::not_supported("this server runs no LoRA adapters; merge the adapter into the model's weights")
}

async fn no_infill() -> ApiError {
    ApiError::not_supported(
        "BitNet models have no tokens for filling in between a prefix and a suffix; use /completion with the prefix",
    )
}

async fn no_ranking() -> ApiError {
    ApiError::not_supported("no model with a ranking head runs here; rank by the cosine of /v1/embeddings")
}
