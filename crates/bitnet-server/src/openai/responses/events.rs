//! [`Events`]: the parts of a response as its output items, and as the events of a stream.

use bitnet_inference::FinishReason;
use bitnet_inference::scheduler::OwnedLogprobs;
use serde_json::{Value, json};

use super::object::{State, Told};
use super::told_error;
use crate::common::ids::new_id;
use crate::common::pieces::Pieces;
use crate::common::reply::Part;
use crate::error::ApiError;
use crate::openai::logprobs;
use crate::openai::usage::Usage;

/// An event with its name.
type Event = (&'static str, Value);

/// Makes a response. Each part becomes events; when the parts are through, the response is whole.
#[derive(Debug)]
pub(super) struct Events {
    told: Told,
    /// Present if the log probabilities are told.
    pieces: Option<Pieces>,
    sequence: usize,
    /// Items that are whole.
    output: Vec<Value>,
    open: Option<Open>,
    /// Tokens that are still to be told of.
    waiting: Vec<Value>,
    finish: Option<FinishReason>,
    usage: Option<Value>,
}

/// The item under way.
#[derive(Debug)]
enum Open {
    Message { id: String, text: String, logprobs: Vec<Value> },
    Call { id: String, call_id: String, name: String, arguments: String },
}

impl Events {
    pub(super) fn new(told: Told, pieces: Option<Pieces>) -> Self {
        Self {
            told,
            pieces,
            sequence: 0,
            output: Vec::new(),
            open: None,
            waiting: Vec::new(),
            finish: None,
            usage: None,
        }
    }

    fn event(&mut self, name: &'static str, members: Value) -> Event {
        let mut event = json!({"type": name, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Value::Object(event), Value::Object(members)) = (&mut event, members) {
            event.extend(members);
        }
        (name, event)
    }

    /// The events that come first.
    pub(super) fn begin(&mut self) -> Vec<Event> {
        let response = self.in_progress();
        let created = self.event("response.created", json!({"response": response}));
        let progress = self.event("response.in_progress", json!({"response": response}));
        vec![created, progress]
    }

    fn in_progress(&self) -> Value {
        let state = State { status: "in_progress", output: &[], error: None, incomplete: None, usage: None };
        self.told.object(&state)
    }

    /// The events of a part.
    pub(super) fn part(&mut self, part: Part) -> Vec<Event> {
        let mut events = Vec::new();
        match part {
            Part::Text { text, logprobs } => self.text(&text, &logprobs, &mut events),
            Part::Call { name, .. } => {
                self.close("completed", &mut events);
                let open = Open::Call {
                    id: new_id("fc_"),
                    call_id: new_id("call_"),
                    name,
                    arguments: String::new(),
                };
                let item = open.item("in_progress");
                self.open = Some(open);
                let members = json!({"output_index": self.output.len(), "item": item});
                events.push(self.event("response.output_item.added", members));
            }
            Part::Arguments { json, .. } => {
                if let Some(Open::Call { id, arguments, .. }) = &mut self.open {
                    arguments.push_str(&json);
                    let members = json!({"item_id": id, "output_index": self.output.len(), "delta": json});
                    events.push(self.event("response.function_call_arguments.delta", members));
                }
            }
            Part::End(generation) => self.finish = Some(generation.finish),
        }
        events
    }

    fn text(&mut self, text: &str, tokens: &[OwnedLogprobs], events: &mut Vec<Event>) {
        if let Some(pieces) = &self.pieces {
            self.waiting.extend(logprobs::entries(pieces, tokens));
        }
        if text.is_empty() {
            return;
        }
        if !matches!(self.open, Some(Open::Message { .. })) {
            self.close("completed", events);
            self.begin_message(events);
        }
        let told = std::mem::take(&mut self.waiting);
        let Some(Open::Message { id, text: whole, logprobs }) = &mut self.open else { return };
        whole.push_str(text);
        logprobs.extend(told.iter().cloned());
        let members = json!({
            "item_id": id, "output_index": self.output.len(), "content_index": 0, "delta": text, "logprobs": told,
        });
        events.push(self.event("response.output_text.delta", members));
    }

    fn begin_message(&mut self, events: &mut Vec<Event>) {
        let open = Open::Message { id: new_id("msg_"), text: String::new(), logprobs: Vec::new() };
        let mut item = open.item("in_progress");
        item["content"] = json!([]);
        let (id, index) = (item["id"].clone(), self.output.len());
        let part = open.content();
        self.open = Some(open);
        events.push(self.event("response.output_item.added", json!({"output_index": index, "item": item})));
        let members = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
        events.push(self.event("response.content_part.added", members));
    }

    /// Ends the item under way.
    fn close(&mut self, status: &str, events: &mut Vec<Event>) {
        let Some(mut open) = self.open.take() else { return };
        let index = self.output.len();
        if let Open::Message { logprobs, .. } = &mut open {
            logprobs.append(&mut self.waiting);
        }
        match &open {
            Open::Message { id, text, logprobs } => {
                let members = json!({
                    "item_id": id, "output_index": index, "content_index": 0, "text": text, "logprobs": logprobs,
                });
                events.push(self.event("response.output_text.done", members));
                let part = open.content();
                let members = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
                events.push(self.event("response.content_part.done", members));
            }
            Open::Call { id, name, arguments, .. } => {
                let members =
                    json!({"item_id": id, "output_index": index, "name": name, "arguments": arguments});
                events.push(self.event("response.function_call_arguments.done", members));
            }
        }
        let item = open.item(status);
        self.output.push(item.clone());
        events.push(self.event("response.output_item.done", json!({"output_index": index, "item": item})));
    }

    /// The events that come last.
    pub(super) fn end(&mut self, usage: &Usage) -> Vec<Event> {
        self.usage = Some(usage.told_of_response());
        let mut events = Vec::new();
        if self.open.is_none() && self.output.is_empty() {
            // An answer without words is still a message.
            self.begin_message(&mut events);
        }
        let cut = self.incomplete().is_some();
        self.close(if cut { "incomplete" } else { "completed" }, &mut events);
        let name = if cut { "response.incomplete" } else { "response.completed" };
        let response = self.response();
        events.push(self.event(name, json!({"response": response})));
        events
    }

    /// Why the response is not all that it could be.
    fn incomplete(&self) -> Option<&'static str> {
        match self.finish {
            Some(FinishReason::Length | FinishReason::ContextFull) => Some("max_output_tokens"),
            _ => None,
        }
    }

    /// The response as it is at the end.
    pub(super) fn response(&self) -> Value {
        let incomplete = self.incomplete();
        let status = if incomplete.is_some() { "incomplete" } else { "completed" };
        let (output, usage) = (&self.output[..], self.usage.clone());
        self.told.object(&State { status, output, error: None, incomplete, usage })
    }

    /// The events of a failure on the way.
    pub(super) fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        let told = told_error(error);
        let state = State {
            status: "failed",
            output: &self.output,
            error: Some(told.clone()),
            incomplete: None,
            usage: None,
        };
        let response = self.told.object(&state);
        let mut members = error.openai_body();
        members["code"] = told["code"].clone();
        members["message"] = told["message"].clone();
        members["param"] = json!(error.param);
        let failed = self.event("response.failed", json!({"response": response}));
        vec![failed, self.event("error", members)]
    }
}

impl Open {
    /// The item in a state.
    fn item(&self, status: &str) -> Value {
        match self {
            Self::Message { id, .. } => {
                let content = [self.content()];
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Self::Call { id, call_id, name, arguments } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": arguments,
            }),
        }
    }

    /// The content of a message.
    fn content(&self) -> Value {
        match self {
            Self::Message { text, logprobs, .. } => {
                json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
            }
            Self::Call { .. } => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use bitnet_inference::{Generation, GenerationStats};

    use super::*;

    fn run(parts: Vec<Part>, finish: FinishReason) -> (Vec<Event>, Value) {
        let mut events = Events::new(Told::fixed(), None);
        let mut all = events.begin();
        for part in parts {
            all.extend(events.part(part));
        }
        let (text, tokens, logprobs, stats) = (String::new(), vec![], None, GenerationStats::default());
        all.extend(events.part(Part::End(Box::new(Generation { text, tokens, finish, logprobs, stats }))));
        all.extend(events.end(&Usage { prompt: 3, cached: 1, generated: 2, ..Usage::default() }));
        (all, events.response())
    }

    fn text(text: &str) -> Part {
        Part::Text { text: text.to_owned(), logprobs: vec![] }
    }

    fn names(events: &[Event]) -> Vec<&str> {
        for (number, (name, event)) in events.iter().enumerate() {
            assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)));
        }
        events.iter().map(|event| event.0).collect()
    }

    #[test]
    fn text_comes_in_the_order_of_the_api() {
        let (events, response) = run(vec![text("Hel"), text("lo")], FinishReason::Stop);
        let expected = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ];
        assert_eq!(names(&events), expected);
        assert_eq!((&events[2].1["item"]["content"], &events[6].1["text"]), (&json!([]), &json!("Hello")));
        assert_eq!(events.last().unwrap().1["response"], response);
        assert_eq!(
            (&response["status"], &response["error"], &response["incomplete_details"]),
            (&json!("completed"), &Value::Null, &Value::Null)
        );
        let item = &response["output"][0];
        assert_eq!(
            (&item["type"], &item["role"], &item["status"]),
            (&json!("message"), &json!("assistant"), &json!("completed"))
        );
        assert_eq!(
            item["content"],
            json!([{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}])
        );
        assert!(item["id"].as_str().unwrap().starts_with("msg_"));
        let usage = json!({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5});
        assert_eq!(response["usage"], usage);
    }

    #[test]
    fn calls_are_items_of_their_own() {
        let call = Part::Call { index: 0, name: "f".to_owned() };
        let piece = |json: &str| Part::Arguments { index: 0, json: json.to_owned() };
        let (events, response) =
            run(vec![text("x"), call, piece("{\"a\""), piece(": 1}")], FinishReason::Stop);
        let expected = [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ];
        assert_eq!(names(&events)[8..], expected);
        let item = &response["output"][1];
        assert_eq!(
            (&item["type"], &item["name"], &item["arguments"]),
            (&json!("function_call"), &json!("f"), &json!("{\"a\": 1}"))
        );
        assert!(item["call_id"].as_str().unwrap().starts_with("call_"));
        assert_eq!(events[9].1["output_index"], 1);
    }

    #[test]
    fn what_is_cut_off_is_incomplete() {
        let (events, response) = run(vec![text("x")], FinishReason::Length);
        assert_eq!(names(&events).last(), Some(&"response.incomplete"));
        assert_eq!(
            (&response["status"], &response["incomplete_details"]),
            (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
        );
        assert_eq!(response["output"][0]["status"], "incomplete");
        let (_, silent) = run(vec![], FinishReason::Stop);
        assert_eq!(silent["output"][0]["content"][0]["text"], "");
    }

    #[test]
    fn failures_are_told_twice() {
        let mut events = Events::new(Told::fixed(), None);
        events.begin();
        events.part(text("x"));
        let failed = events.fail(&ApiError::internal("broken"));
        assert_eq!((failed[0].0, failed[1].0), ("response.failed", "error"));
        assert_eq!(failed[0].1["response"]["error"], json!({"code": "server_error", "message": "broken"}));
        assert_eq!(
            (&failed[1].1["message"], &failed[1].1["error"]["message"]),
            (&json!("broken"), &json!("broken"))
        );
    }
}
