//! OpenAI's API: chat completions, completions, embeddings, models and responses.
//!
//! * `request`: the fields that all of them share; `task`: what chat-like endpoints ask of the engine;
//! * `messages`, `tools`, `format`: conversations, functions and forms of answers, as bodies have them;
//! * `answer`: running requests as a sequence of parts; `sse`: such a sequence as a stream of events;
//! * `envelope`, `usage`, `logprobs`: what is around and beside the text;
//! * `chat`, `completions`, `embeddings`, `models`, `responses`: one endpoint each.
//!
//! Reading bodies and writing answers are functions of their arguments; handlers only put them together. Fields that nobody
//! knows are ignored, as OpenAI does; fields of a wrong type or value are refused by name.

mod answer;
mod chat;
mod completions;
mod embeddings;
mod envelope;
mod format;
mod logprobs;
mod messages;
mod models;
mod request;
mod responses;
mod sse;
mod task;
mod tools;
mod usage;

use axum::Router;
use axum::routing::{get, post};

pub(crate) use self::messages::read as messages;
use crate::state::AppState;

/// The routes of this family.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/embeddings", post(embeddings::embed))
        .route("/v1/responses", post(responses::respond))
        .route("/responses", post(responses::respond))
        .route("/v1/models", get(models::list))
        .route("/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
}
