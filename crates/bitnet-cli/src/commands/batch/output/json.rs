//! JSON lines: our own, and those of OpenAI's batch API.

use bitnet_inference::FinishReason;
use serde_json::{Map, Value, json};

use crate::commands::batch::outcome::{Done, Outcome};

/// A row as an object. Every row has the same members but for `id` and `input`, which only rows with fields have.
pub(super) fn line(outcome: &Outcome, timings: bool) -> String {
    let mut line = Map::new();
    let mut set = |name: &str, value: Value| line.insert(name.to_owned(), value);
    set("row", json!(outcome.row));
    set("source", json!(outcome.source));
    if let Some(id) = &outcome.id {
        set("id", id.clone());
    }
    if let Some(input) = &outcome.input {
        set("input", json!(input));
    }
    set("prompt", json!(outcome.prompt));
    let text = match &outcome.end {
        Ok(Done::Text(text)) => Some(text),
        _ => None,
    };
    set("text", json!(text.map(|t| &t.text)));
    set("finish_reason", json!(text.map(|t| t.finish.name())));
    if let Some(FinishReason::StopString(stop)) = text.map(|t| &t.finish) {
        set("stop_string", json!(stop));
    }
    set("prompt_tokens", json!(text.map(|t| t.prompt_tokens)));
    set("generated_tokens", json!(text.map(|t| t.generated_tokens)));
    set("seed", json!(text.map(|t| t.seed)));
    if timings {
        for (name, ms) in text.map(|t| t.timings).unwrap_or_default().told() {
            set(name, if text.is_some() { json!(ms) } else { Value::Null });
        }
    }
    set("error", json!(outcome.error()));
    Value::Object(line).to_string() + "\n"
}

/// A row as a line of OpenAI's batch output.
pub(super) fn answer(outcome: &Outcome) -> String {
    let (response, error) = match &outcome.end {
        Ok(Done::Answer { status, request_id, body }) => {
            (json!({"status_code": status, "request_id": request_id, "body": body}), Value::Null)
        }
        Ok(Done::Text(_)) => (Value::Null, Value::Null),
        Err(message) => (Value::Null, json!({"code": "invalid_request", "message": message})),
    };
    let id = format!("batch_req_{}", outcome.row);
    json!({"id": id, "custom_id": outcome.id, "response": response, "error": error}).to_string() + "\n"
}
