//! Rows that are requests of OpenAI's batch API, answered by the same code as those over HTTP.

use bitnet_inference::InferenceEngine;
use bitnet_server::{Offline, Server, ServerConfig};
use serde_json::{Map, Value, json};

use super::input::{Content, Row};
use super::outcome::Done;
use super::request::{mixed, row_seed};
use super::run::End;
use crate::error::CliError;

/// The endpoints that files may name.
const ENDPOINTS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"];

/// Longest time of a request, in seconds: a day.
const TIMEOUT: u64 = 86_400;

/// Answers rows.
#[derive(Debug)]
pub(super) struct Answers {
    server: Offline,
    seed: u64,
    /// When the run began, in seconds since 1970: what answers tell as the time they were made.
    created: u64,
    timings: bool,
}

/// What a line asks for.
struct Asked {
    path: &'static str,
    body: Map<String, Value>,
}

impl Answers {
    /// Answers with this engine; at most `waiting` rows are handed over at a time.
    pub(super) fn new(
        engine: &InferenceEngine,
        waiting: usize,
        seed: u64,
        created: u64,
        timings: bool,
    ) -> Result<Self, CliError> {
        let mut config = ServerConfig::default();
        config.queue = waiting;
        config.timeout = TIMEOUT;
        config.body_limit =
            bitnet_server::config::Size(bitnet_core::MemorySize::bytes(super::input::LARGEST));
        Ok(Self { server: Server::with_engine(config, engine)?.offline()?, seed, created, timings })
    }

    /// What a row calls itself, and its answer, which is being made from now on.
    pub(super) fn start(&self, row: &Row) -> (Option<Value>, End) {
        let fields = match &row.content {
            Ok(Content::Object(fields)) => fields,
            Ok(_) => {
                return (
                    None,
                    failed("it is no request: a line must be an object with custom_id, method, url and body"),
                );
            }
            Err(error) => return (None, failed(error)),
        };
        let id = fields.get("custom_id").cloned();
        let Asked { path, mut body } = match asked(fields) {
            Ok(asked) => asked,
            Err(error) => return (id, failed(&error)),
        };
        if body.get("seed").is_none_or(Value::is_null) {
            body.insert("seed".to_owned(), json!(row_seed(self.seed, row.number)));
        }
        let request_id = format!("req_{:016x}", mixed(self.seed, row.number));
        let (server, created, timings) = (self.server.clone(), self.created, self.timings);
        let answer = tokio::spawn(async move {
            let answered = server.answer(path, &request_id, &body).await;
            let mut body = answered.body;
            settle(&mut body, &request_id, created, timings);
            Ok(Done::Answer { status: answered.status, request_id, body })
        });
        (id, Box::pin(async move { answer.await.unwrap_or_else(|error| Err(error.to_string())) }))
    }
}

fn failed(message: &str) -> End {
    Box::pin(std::future::ready(Err(message.to_owned())))
}

/// Reads a line.
fn asked(fields: &Map<String, Value>) -> Result<Asked, String> {
    if !fields.get("custom_id").is_some_and(Value::is_string) {
        return Err("custom_id is required: a string".to_owned());
    }
    match fields.get("method").and_then(Value::as_str) {
        Some("POST") => {}
        _ => return Err("method must be \"POST\"".to_owned()),
    }
    let url = fields.get("url").and_then(Value::as_str).unwrap_or_default();
    let path = ENDPOINTS.into_iter().find(|endpoint| *endpoint == url);
    let path = path.ok_or_else(|| {
        format!("url = {url:?} is not possible: it must be one of {}", ENDPOINTS.join(", "))
    })?;
    let body = fields.get("body").and_then(Value::as_object).ok_or("body is required: an object")?;
    if body.get("stream").is_some_and(|stream| *stream != json!(false) && !stream.is_null()) {
        return Err("body.stream is not possible: answers in files come whole".to_owned());
    }
    Ok(Asked { path, body: body.clone() })
}

/// Takes out of an answer what would be different each time: random ids, the clock, and what depends on neighbours. What is
/// left is the same for the same requests, model and seed.
fn settle(body: &mut Value, request_id: &str, created: u64, timings: bool) {
    let Some(body) = body.as_object_mut() else { return };
    if let Some(Value::String(id)) = body.get_mut("id") {
        let prefix = id.split_once(['-', '_']).map_or("", |(prefix, _)| prefix);
        *id = format!("{prefix}-{}", request_id.trim_start_matches("req_"));
    }
    for name in ["created", "created_at"] {
        if let Some(time) = body.get_mut(name) {
            *time = json!(created);
        }
    }
    if !timings {
        body.remove("timings");
    }
    if let Some(Value::Object(usage)) = body.get_mut("usage") {
        // How many tokens were cached or guessed depends on what ran before and beside.
        usage.retain(|name, _| !name.ends_with("_details"));
    }
    for list in ["choices", "output"] {
        for (number, item) in
            body.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().enumerate()
        {
            settle_ids(item, request_id, &mut (number * 1000));
        }
    }
}

/// Gives calls of tools and parts of responses ids that are the same each time.
fn settle_ids(value: &mut Value, request_id: &str, count: &mut usize) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(id) if name == "id" || name == "call_id" => {
                        let prefix = id.split_once('_').map_or("id", |(prefix, _)| prefix);
                        *id = format!("{prefix}_{}_{count}", request_id.trim_start_matches("req_"));
                        *count += 1;
                    }
                    value => settle_ids(value, request_id, count),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle_ids(item, request_id, count)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = |changed: Value| {
            let mut line = json!({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}});
            line.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
            asked(line.as_object().unwrap()).map(|asked| asked.path)
        };
        assert_eq!(line(json!({})), Ok("/v1/completions"));
        for (changed, part) in [
            (json!({"custom_id": 1}), "custom_id"),
            (json!({"method": "GET"}), "method"),
            (json!({"url": "/v1/images"}), "\"/v1/images\""),
            (json!({"body": []}), "body"),
            (json!({"body": {"stream": true}}), "stream"),
        ] {
            assert!(line(changed.clone()).unwrap_err().contains(part), "{changed}");
        }
    }

    #[test]
    fn what_changes_each_time_is_taken_out() {
        let made = |id: &str, created: u64| {
            let call = json!({"id": format!("call_{id}"), "type": "function"});
            let mut body = json!({"id": format!("chatcmpl-{id}"), "created": created, "timings": {"a": created},
                "choices": [{"message": {"tool_calls": [call, call]}}],
                "usage": {"total_tokens": 3, "prompt_tokens_details": {"cached_tokens": created}}});
            settle(&mut body, "req_1", 9, false);
            body
        };
        let body = made("x", 1);
        assert_eq!(body, made("y", 2));
        assert_eq!(
            (&body["id"], &body["created"], &body["usage"]),
            (&json!("chatcmpl-1"), &json!(9), &json!({"total_tokens": 3}))
        );
        let calls = &body["choices"][0]["message"]["tool_calls"];
        assert_ne!(calls[0]["id"], calls[1]["id"]);
    }
}
