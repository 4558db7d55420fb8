//! [`Message`]: an answer as events in the order of Anthropic's API, or as one message.
//!
//! ```text
//! message_start
//!   content_block_start, content_block_delta (text_delta | input_json_delta) .., content_block_stop   for each block
//! message_delta (stop_reason, usage)
//! message_stop
//! ```

use bitnet_inference::{FinishReason, Generation};
use serde_json::{Value, json};

use super::error_body;
use crate::common::ids::new_id;
use crate::common::reply::{Collected, Part, Piece};
use crate::error::ApiError;

/// Beginning of the ids of calls.
const CALL: &str = "toolu_";

/// An event to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    /// Its name, which is its type as well.
    pub(super) name: &'static str,
    /// Its data.
    pub(super) data: Value,
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Message {
    id: String,
    model: String,
    prompt_tokens: usize,
    cached_tokens: usize,
    /// Blocks that were begun.
    blocks: usize,
    /// The last of them.
    open: Option<Block>,
    calls: usize,
    collected: Collected,
    end: Option<Box<Generation>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Call,
}

impl Message {
    /// An answer that has no content yet.
    pub(super) fn new(model: String, prompt_tokens: usize, cached_tokens: usize) -> Self {
        Self {
            id: new_id("msg_"),
            model,
            prompt_tokens,
            cached_tokens,
            blocks: 0,
            open: None,
            calls: 0,
            collected: Collected::default(),
            end: None,
        }
    }

    /// Cached tokens are not counted among those of the input.
    fn usage(&self, output_tokens: usize) -> Value {
        json!({
            "input_tokens": self.prompt_tokens - self.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self.cached_tokens,
            "output_tokens": output_tokens,
        })
    }

    fn envelope(&self, content: &Value, reason: &Value, sequence: &Value, output_tokens: usize) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": reason, "stop_sequence": sequence, "usage": self.usage(output_tokens),
        })
    }

    /// The first event.
    pub(super) fn begin(&self) -> Vec<Sent> {
        let message = self.envelope(&json!([]), &Value::Null, &Value::Null, 0);
        vec![sent("message_start", json!({"type": "message_start", "message": message}))]
    }

    /// The events of a part.
    pub(super) fn stream(&mut self, part: Part) -> Vec<Sent> {
        let mut events = Vec::new();
        match part {
            Part::Text { text, .. } => {
                if !text.is_empty() {
                    if self.open != Some(Block::Text) {
                        self.close(&mut events);
                        self.open(&mut events, Block::Text, &json!({"type": "text", "text": ""}));
                    }
                    events.push(self.delta(&json!({"type": "text_delta", "text": text})));
                }
            }
            Part::Call { name, .. } => {
                self.close(&mut events);
                let block = json!({"type": "tool_use", "id": new_id(CALL), "name": name, "input": {}});
                self.open(&mut events, Block::Call, &block);
                self.calls += 1;
            }
            Part::Arguments { json, .. } => {
                events.push(self.delta(&json!({"type": "input_json_delta", "partial_json": json})));
            }
            Part::End(generation) => {
                self.close(&mut events);
                let (reason, sequence) = stop(&generation.finish, self.calls > 0);
                let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
                let usage = self.usage(generation.stats.generated_tokens);
                events.push(sent(
                    "message_delta",
                    json!({"type": "message_delta", "delta": delta, "usage": usage}),
                ));
                events.push(sent("message_stop", json!({"type": "message_stop"})));
            }
        }
        events
    }

    fn open(&mut self, events: &mut Vec<Sent>, block: Block, content: &Value) {
        let data = json!({"type": "content_block_start", "index": self.blocks, "content_block": content});
        events.push(sent("content_block_start", data));
        self.blocks += 1;
        self.open = Some(block);
    }

    fn close(&mut self, events: &mut Vec<Sent>) {
        if self.open.take().is_some() {
            let data = json!({"type": "content_block_stop", "index": self.blocks - 1});
            events.push(sent("content_block_stop", data));
        }
    }

    fn delta(&self, delta: &Value) -> Sent {
        let index = self.blocks.saturating_sub(1);
        sent("content_block_delta", json!({"type": "content_block_delta", "index": index, "delta": delta}))
    }

    /// Takes a part of an answer that is not streamed.
    pub(super) fn collect(&mut self, part: Part) {
        match part {
            Part::End(generation) => self.end = Some(generation),
            part => self.collected.push(part, CALL),
        }
    }

    /// The whole answer.
    pub(super) fn whole(&self) -> Value {
        let content: Vec<Value> = self.collected.pieces.iter().map(block).collect();
        let called = self.collected.calls().next().is_some();
        let (reason, sequence, tokens) = match &self.end {
            Some(generation) => {
                let (reason, sequence) = stop(&generation.finish, called);
                (json!(reason), sequence, generation.stats.generated_tokens)
            }
            None => (Value::Null, Value::Null, 0),
        };
        self.envelope(&Value::Array(content), &reason, &sequence, tokens)
    }
}

fn sent(name: &'static str, data: Value) -> Sent {
    Sent { name, data }
}

/// A block of content. Arguments that were cut off are no object; what is there of them is lost with the call's sense.
fn block(piece: &Piece) -> Value {
    match piece {
        Piece::Text(text) => json!({"type": "text", "text": text}),
        Piece::Call(call) => {
            let input = serde_json::from_str(&call.arguments).ok().filter(Value::is_object);
            let input = input.unwrap_or_else(|| json!({}));
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
        }
    }
}

/// `stop_reason` and `stop_sequence`.
fn stop(finish: &FinishReason, called: bool) -> (&'static str, Value) {
    match finish {
        FinishReason::Length => ("max_tokens", Value::Null),
        FinishReason::ContextFull => ("model_context_window_exceeded", Value::Null),
        FinishReason::StopString(text) => ("stop_sequence", json!(text)),
        _ if called => ("tool_use", Value::Null),
        _ => ("end_turn", Value::Null),
    }
}

/// Shows that a stream is alive.
pub(super) fn ping() -> Sent {
    sent("ping", json!({"type": "ping"}))
}

/// Ends a stream that failed.
pub(super) fn failed(error: &ApiError) -> Sent {
    sent("error", error_body(error))
}

#[cfg(test)]
mod tests {
    use bitnet_inference::GenerationStats;

    use super::*;

    fn text(text: &str) -> Part {
        Part::Text { text: text.to_owned(), logprobs: Vec::new() }
    }

    fn end(finish: FinishReason) -> Part {
        let stats = GenerationStats { generated_tokens: 7, ..GenerationStats::default() };
        let (text, tokens) = (String::new(), Vec::new());
        Part::End(Box::new(Generation { text, tokens, finish, logprobs: None, stats }))
    }

    fn call() -> Vec<Part> {
        let arguments = |json: &str| Part::Arguments { index: 0, json: json.to_owned() };
        let call = Part::Call { index: 0, name: "f".to_owned() };
        vec![text("I "), text("look."), call, arguments("{\"a\""), arguments(": 1}"), end(FinishReason::Stop)]
    }

    fn streamed(parts: Vec<Part>) -> Vec<Sent> {
        let mut message = Message::new("m".to_owned(), 10, 4);
        let mut events = message.begin();
        for part in parts {
            events.extend(message.stream(part));
        }
        events
    }

    #[test]
    fn events_come_in_order() {
        let events = streamed(call());
        let names: Vec<&str> = events.iter().map(|event| event.name).collect();
        let expected = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names, expected);
        assert!(events.iter().all(|event| event.data["type"] == event.name));
        let start = &events[0].data["message"];
        assert_eq!((&start["content"], &start["stop_reason"]), (&json!([]), &Value::Null));
        let usage = json!({"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 0});
        assert_eq!(start["usage"], usage);
        assert_eq!(events[1].data["content_block"], json!({"type": "text", "text": ""}));
        assert_eq!(events[2].data["delta"], json!({"type": "text_delta", "text": "I "}));
        let block = &events[5].data["content_block"];
        assert_eq!(
            (&block["type"], &block["name"], &block["input"]),
            (&json!("tool_use"), &json!("f"), &json!({}))
        );
        assert!(block["id"].as_str().unwrap().starts_with("toolu_"));
        assert_eq!(events[6].data["delta"], json!({"type": "input_json_delta", "partial_json": "{\"a\""}));
        assert_eq!((&events[8].data["index"], &events[4].data["index"]), (&json!(1), &json!(0)));
        assert_eq!(events[9].data["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
        assert_eq!(events[9].data["usage"]["output_tokens"], 7);
    }

    #[test]
    fn a_whole_answer_has_the_same_content() {
        let mut message = Message::new("m".to_owned(), 10, 4);
        for part in call() {
            message.collect(part);
        }
        let whole = message.whole();
        assert_eq!(whole["content"][0], json!({"type": "text", "text": "I look."}));
        let call = &whole["content"][1];
        assert_eq!((&call["name"], &call["input"]), (&json!("f"), &json!({"a": 1})));
        assert_eq!((&whole["stop_reason"], &whole["role"]), (&json!("tool_use"), &json!("assistant")));
        assert_eq!(whole["usage"]["output_tokens"], 7);
    }

    #[test]
    fn reasons_to_stop() {
        for (finish, reason, sequence) in [
            (FinishReason::Stop, "end_turn", Value::Null),
            (FinishReason::Length, "max_tokens", Value::Null),
            (FinishReason::ContextFull, "model_context_window_exceeded", Value::Null),
            (FinishReason::StopString("END".to_owned()), "stop_sequence", json!("END")),
        ] {
            let events = streamed(vec![end(finish)]);
            assert_eq!(events.len(), 3, "no block without content: {events:?}");
            assert_eq!(events[1].data["delta"], json!({"stop_reason": reason, "stop_sequence": sequence}));
        }
    }
}
