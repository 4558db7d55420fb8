//! [`Answer`]: an answer as the objects of ollama's streams, or as one object.

use std::time::{Duration, Instant, SystemTime};

use bitnet_inference::sampling::TokenLogprob;
use bitnet_inference::scheduler::OwnedLogprobs;
use bitnet_inference::{FinishReason, Generation, InferenceEngine};
use serde_json::{Map, Value, json};

use super::request::Plan;
use crate::common::clock::{nanoseconds, rfc3339};
use crate::common::ids::new_id;
use crate::common::pieces::Pieces;
use crate::common::reply::{Collected, Part, WholeCall};

/// Which endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/api/generate`: text in `response`.
    Generate,
    /// `/api/chat`: text in `message`.
    Chat,
}

/// Beginning of the ids of calls.
const CALL: &str = "call_";

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answer {
    kind: Kind,
    model: String,
    arrived: Instant,
    load: Duration,
    /// The tokens of the prompt, if the end tells the whole conversation.
    context: Option<Vec<u32>>,
    /// What follows a turn of the model in its template.
    closing: Vec<u32>,
    pieces: Pieces,
    /// The call whose arguments are coming.
    call: Option<WholeCall>,
    calls: usize,
    collected: Collected,
}

impl Answer {
    /// An answer that has no content yet.
    pub(super) fn new(
        kind: Kind,
        model: String,
        arrived: Instant,
        load: Duration,
        plan: &Plan,
        engine: &InferenceEngine,
    ) -> Self {
        let closing = if plan.context.is_some() { closing(engine) } else { Vec::new() };
        Self {
            kind,
            model,
            arrived,
            load,
            context: plan.context.clone(),
            closing,
            pieces: Pieces::of(engine),
            call: None,
            calls: 0,
            collected: Collected::default(),
        }
    }

    fn object(&self, content: &str, calls: Vec<Value>, done: bool) -> Map<String, Value> {
        object(self.kind, &self.model, content, calls, done)
    }

    /// The objects of a part.
    pub(super) fn stream(&mut self, part: Part) -> Vec<Value> {
        let mut objects = Vec::new();
        // A call is told when it is complete: when something else follows.
        if !matches!(part, Part::Arguments { .. })
            && let Some(call) = self.call.take()
        {
            let (content, calls) = told(&call, self.calls);
            self.calls += 1;
            objects.push(Value::Object(self.object(&content, calls, false)));
        }
        match part {
            Part::Text { text, logprobs } => {
                let mut object = self.object(&text, Vec::new(), false);
                self.add_logprobs(&mut object, &logprobs);
                objects.push(Value::Object(object));
            }
            Part::Call { name, .. } => {
                self.call = Some(WholeCall { id: new_id(CALL), name, arguments: String::new() });
            }
            Part::Arguments { json, .. } => {
                if let Some(call) = &mut self.call {
                    call.arguments.push_str(&json);
                }
            }
            Part::End(generation) => {
                let mut object = self.object("", Vec::new(), true);
                self.end(&mut object, &generation);
                objects.push(Value::Object(object));
            }
        }
        objects
    }

    /// Takes a part of an answer that is not streamed; returns the whole when it is complete.
    pub(super) fn collect(&mut self, part: Part) -> Option<Value> {
        let Part::End(generation) = part else {
            self.collected.push(part, CALL);
            return None;
        };
        let mut content = self.collected.text();
        let mut calls = Vec::new();
        for (index, call) in self.collected.calls().enumerate() {
            let (text, call) = told(call, index);
            content.push_str(&text);
            calls.extend(call);
        }
        let mut object = self.object(&content, calls, true);
        let logprobs = std::mem::take(&mut self.collected.logprobs);
        self.add_logprobs(&mut object, &logprobs);
        self.end(&mut object, &generation);
        Some(Value::Object(object))
    }

    fn add_logprobs(&self, object: &mut Map<String, Value>, logprobs: &[OwnedLogprobs]) {
        if logprobs.is_empty() {
            return;
        }
        let token = |at: &TokenLogprob| {
            let bytes = self.pieces.bytes(at.token);
            json!({"token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": at.logprob})
        };
        let entry = |at: &OwnedLogprobs| {
            let mut entry = token(&at.chosen);
            if !at.top.is_empty() {
                entry["top_logprobs"] = at.top.iter().map(token).collect();
            }
            entry
        };
        object.insert("logprobs".to_owned(), logprobs.iter().map(entry).collect());
    }

    /// Adds why and when it ended. Durations are in nanoseconds.
    fn end(&mut self, object: &mut Map<String, Value>, generation: &Generation) {
        let stats = &generation.stats;
        let reason = match generation.finish {
            FinishReason::Length | FinishReason::ContextFull => "length",
            _ => "stop",
        };
        object.insert("done_reason".to_owned(), json!(reason));
        if let Some(mut context) = self.context.take() {
            context.extend(&generation.tokens);
            context.append(&mut self.closing);
            object.insert("context".to_owned(), json!(context));
        }
        for (name, value) in [
            ("total_duration", nanoseconds(self.arrived.elapsed())),
            ("load_duration", nanoseconds(self.load)),
            ("prompt_eval_count", stats.prompt_tokens as u64),
            ("prompt_eval_duration", nanoseconds(stats.prefill)),
            ("eval_count", stats.generated_tokens as u64),
            ("eval_duration", nanoseconds(stats.decode)),
        ] {
            object.insert(name.to_owned(), json!(value));
        }
    }
}

/// The object with which answers begin.
fn object(kind: Kind, model: &str, content: &str, calls: Vec<Value>, done: bool) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("model".to_owned(), json!(model));
    object.insert("created_at".to_owned(), json!(rfc3339(SystemTime::now())));
    match kind {
        Kind::Generate => object.insert("response".to_owned(), json!(content)),
        Kind::Chat => {
            let mut message = json!({"role": "assistant", "content": content});
            if !calls.is_empty() {
                message["tool_calls"] = Value::Array(calls);
            }
            object.insert("message".to_owned(), message)
        }
    };
    object.insert("done".to_owned(), json!(done));
    object
}

/// The answer to a request that only loads or unloads.
pub(super) fn nothing(kind: Kind, model: &str, reason: &str) -> Value {
    let mut object = object(kind, model, "", Vec::new(), true);
    object.insert("done_reason".to_owned(), json!(reason));
    Value::Object(object)
}

/// A call as content and entries of `tool_calls`. One whose arguments were cut off is no call; its text is all there is.
fn told(call: &WholeCall, index: usize) -> (String, Vec<Value>) {
    match serde_json::from_str::<Value>(&call.arguments).ok().filter(Value::is_object) {
        Some(arguments) => {
            let function = json!({"index": index, "name": call.name, "arguments": arguments});
            (String::new(), vec![json!({"id": call.id, "function": function})])
        }
        None => (format!("{} {}", call.name, call.arguments), Vec::new()),
    }
}

/// The tokens that the model's template writes behind a turn of the model.
fn closing(engine: &InferenceEngine) -> Vec<u32> {
    use bitnet_text::{ChatMessage, EncodeOptions};
    const MARK: &str = "\u{E000}";
    let (Some(template), Ok(tokenizer)) = (&engine.model().chat_template, engine.tokenizer()) else {
        return Vec::new();
    };
    let turns = [ChatMessage::user("x"), ChatMessage::assistant(MARK)];
    let rendered = template.render(&turns, false).unwrap_or_default();
    let rest = rendered.rsplit_once(MARK).map_or("", |(_, rest)| rest);
    tokenizer.encode(rest, EncodeOptions::TEMPLATE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bitnet_inference::GenerationStats;

    use super::*;

    fn answer(kind: Kind, context: Option<Vec<u32>>) -> Answer {
        Answer {
            kind,
            model: "m".to_owned(),
            arrived: Instant::now(),
            load: Duration::from_nanos(5),
            context,
            closing: vec![99],
            pieces: Pieces::default(),
            call: None,
            calls: 0,
            collected: Collected::default(),
        }
    }

    fn end(finish: FinishReason) -> Part {
        let stats = GenerationStats {
            prompt_tokens: 12,
            generated_tokens: 3,
            prefill: Duration::from_micros(2),
            decode: Duration::from_micros(7),
            ..GenerationStats::default()
        };
        let (text, tokens) = ("ab".to_owned(), vec![4, 5, 6]);
        Part::End(Box::new(Generation { text, tokens, finish, logprobs: None, stats }))
    }

    fn text(text: &str) -> Part {
        Part::Text { text: text.to_owned(), logprobs: Vec::new() }
    }

    fn call(arguments: &str) -> Vec<Part> {
        let name = "f".to_owned();
        vec![Part::Call { index: 0, name }, Part::Arguments { index: 0, json: arguments.to_owned() }]
    }

    #[test]
    fn generated_text_comes_in_objects() {
        let mut answer = answer(Kind::Generate, Some(vec![1, 2]));
        let first = answer.stream(text("a")).remove(0);
        assert_eq!(
            (&first["model"], &first["response"], &first["done"]),
            (&json!("m"), &json!("a"), &json!(false))
        );
        assert!(first["created_at"].as_str().unwrap().ends_with('Z'));
        let last = answer.stream(end(FinishReason::Stop)).remove(0);
        assert_eq!(
            (&last["response"], &last["done"], &last["done_reason"]),
            (&json!(""), &json!(true), &json!("stop"))
        );
        assert_eq!(last["context"], json!([1, 2, 4, 5, 6, 99]));
        assert_eq!((&last["load_duration"], &last["prompt_eval_count"]), (&json!(5), &json!(12)));
        assert_eq!((&last["prompt_eval_duration"], &last["eval_count"]), (&json!(2000), &json!(3)));
        assert_eq!(last["eval_duration"], json!(7000));
        assert!(last["total_duration"].is_u64());
    }

    #[test]
    fn calls_are_told_when_they_are_complete() {
        let mut streamed = answer(Kind::Chat, None);
        let mut whole = answer(Kind::Chat, None);
        let parts =
            [vec![text("I look.")], call("{\"a\": 1}"), call("{}"), vec![end(FinishReason::Stop)]].concat();
        let objects: Vec<Value> = parts.iter().flat_map(|part| streamed.stream(part.clone())).collect();
        assert_eq!(objects.len(), 4);
        assert_eq!(objects[0]["message"], json!({"role": "assistant", "content": "I look."}));
        let first = &objects[1]["message"]["tool_calls"][0];
        assert_eq!(first["function"], json!({"index": 0, "name": "f", "arguments": {"a": 1}}));
        assert_eq!(objects[2]["message"]["tool_calls"][0]["function"]["index"], 1);
        assert_eq!((&objects[3]["done"], objects[3].get("context")), (&json!(true), None));
        let whole = parts.into_iter().find_map(|part| whole.collect(part)).unwrap();
        assert_eq!(whole["message"]["content"], "I look.");
        assert_eq!(whole["message"]["tool_calls"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_call_that_was_cut_off_is_text() {
        let mut streamed = answer(Kind::Chat, None);
        let parts = [call("{\"a\": "), vec![end(FinishReason::Length)]].concat();
        let objects: Vec<Value> = parts.into_iter().flat_map(|part| streamed.stream(part)).collect();
        assert_eq!(objects[0]["message"], json!({"role": "assistant", "content": "f {\"a\": "}));
        assert_eq!(objects[1]["done_reason"], "length");
    }

    #[test]
    fn nothing_to_answer() {
        let loaded = nothing(Kind::Chat, "m", "load");
        assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
        assert_eq!(loaded["message"]["content"], "");
        assert_eq!(nothing(Kind::Generate, "m", "unload")["response"], "");
    }
}
