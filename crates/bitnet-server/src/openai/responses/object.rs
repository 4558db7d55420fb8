//! [`Told`]: what a response tells of its request, and the object it becomes.

use bitnet_inference::{InferenceEngine, SamplingParams};
use serde_json::{Map, Value, json};

use crate::common::fields::find;
use crate::openai::envelope::Envelope;
use crate::openai::request::{Body, written};
use crate::openai::task::Task;
use crate::openai::tools::Choice;

/// The members of a response that do not change while it is made.
#[derive(Debug)]
pub(super) struct Told {
    id: String,
    created: u64,
    model: String,
    asked: Map<String, Value>,
}

impl Told {
    /// Those of a request.
    pub(super) fn new(envelope: &Envelope, body: &Body, engine: &InferenceEngine, task: &Task) -> Self {
        let params = SamplingParams::resolve(&task.request.sampling, engine.defaults()).unwrap_or_default();
        let given = |name: &str| find(body, &[name]).map_or(Value::Null, |(_, value)| value.clone());
        let or = |name: &str, default: Value| find(body, &[name]).map_or(default, |(_, value)| value.clone());
        let mut text = or("text", json!({}));
        if text.get("format").is_none_or(Value::is_null) {
            text["format"] = json!({"type": "text"});
        }
        let choice = match &task.tools.choice {
            Choice::None => json!("none"),
            Choice::Auto => json!("auto"),
            Choice::Required => json!("required"),
            Choice::Named(name) => json!({"type": "function", "name": name}),
        };
        let tools = task.tools.tools.iter().map(flat).collect::<Vec<_>>();
        let pairs = [
            ("instructions", given("instructions")),
            ("max_output_tokens", given("max_output_tokens")),
            ("parallel_tool_calls", json!(task.tools.parallel.unwrap_or(true))),
            ("previous_response_id", Value::Null),
            ("reasoning", json!({"effort": null, "summary": null})),
            ("store", json!(false)),
            ("temperature", written(params.temperature)),
            ("text", text),
            ("tool_choice", choice),
            ("tools", json!(tools)),
            ("top_p", written(params.top_p)),
            ("truncation", json!("disabled")),
            ("user", given("user")),
            ("metadata", or("metadata", json!({}))),
        ];
        let asked = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { id: envelope.id.clone(), created: envelope.created, model: envelope.model.clone(), asked }
    }

    /// The response in a state.
    pub(super) fn object(&self, state: &State<'_>) -> Value {
        let mut told = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": state.status,
            "background": false,
            "error": state.error,
            "incomplete_details": state.incomplete.map(|reason| json!({"reason": reason})),
            "model": self.model,
            "output": state.output,
        });
        if let Value::Object(map) = &mut told {
            map.extend(self.asked.clone());
            map.insert("usage".to_owned(), state.usage.clone().unwrap_or(Value::Null));
        }
        told
    }

    /// One for tests.
    #[cfg(test)]
    pub(super) fn fixed() -> Self {
        Self { id: "resp_1".to_owned(), created: 7, model: "m".to_owned(), asked: Map::new() }
    }
}

/// What changes while a response is made.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) status: &'static str,
    pub(super) output: &'a [Value],
    pub(super) error: Option<Value>,
    pub(super) incomplete: Option<&'static str>,
    pub(super) usage: Option<Value>,
}

/// A tool as responses write it.
fn flat(tool: &Value) -> Value {
    let mut told = json!({"type": "function"});
    if let (Value::Object(told), Some(function)) = (&mut told, tool["function"].as_object()) {
        told.extend(function.clone());
        told.entry("strict").or_insert(Value::Bool(false));
    }
    told
}
