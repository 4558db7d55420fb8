//! [`Chunks`]: the parts of a chat completion as chunks of a stream.

use bitnet_inference::scheduler::OwnedLogprobs;
use serde_json::{Value, json};

use crate::common::ids::new_id;
use crate::common::pieces::Pieces;
use crate::common::reply::Part;
use crate::openai::answer::finish_reason;
use crate::openai::envelope::Envelope;
use crate::openai::logprobs;

/// The kind of the chunks.
const OBJECT: &str = "chat.completion.chunk";

/// Makes the chunks of a stream: for each choice one with the role, those with text and calls, and one with the reason why
/// it ended; then, if it is wanted, one with the usage.
#[derive(Debug)]
pub(super) struct Chunks {
    envelope: Envelope,
    /// Present if the log probabilities are told.
    pieces: Option<Pieces>,
    /// For each choice, the calls that have begun.
    calls: Vec<usize>,
    /// For each choice, the tokens without text that are still to be told of.
    waiting: Vec<Vec<OwnedLogprobs>>,
    /// The last chunk of a choice is held until it is known whether it is the last of all.
    held: Option<Value>,
}

impl Chunks {
    pub(super) fn new(envelope: Envelope, choices: usize, pieces: Option<Pieces>) -> Self {
        Self { envelope, pieces, calls: vec![0; choices], waiting: vec![Vec::new(); choices], held: None }
    }

    /// The chunks that come first: those with the role.
    pub(super) fn begin(&self) -> Vec<Value> {
        let role = json!({"role": "assistant", "content": null});
        (0..self.calls.len()).map(|choice| self.chunk(choice, &role, &[], None)).collect()
    }

    /// The chunks of a part.
    pub(super) fn part(&mut self, choice: usize, part: Part) -> Vec<Value> {
        let mut chunks: Vec<Value> = self.held.take().into_iter().collect();
        match part {
            Part::Text { text, logprobs } => {
                let mut tokens = std::mem::take(&mut self.waiting[choice]);
                tokens.extend(logprobs);
                if text.is_empty() {
                    self.waiting[choice] = tokens;
                } else {
                    chunks.push(self.chunk(choice, &json!({"content": text}), &tokens, None));
                }
            }
            Part::Call { index, name } => {
                self.calls[choice] += 1;
                let function = json!({"name": name, "arguments": ""});
                let call =
                    json!({"index": index, "id": new_id("call_"), "type": "function", "function": function});
                chunks.push(self.chunk(choice, &json!({"tool_calls": [call]}), &[], None));
            }
            Part::Arguments { index, json } => {
                let call = json!({"index": index, "function": {"arguments": json}});
                chunks.push(self.chunk(choice, &json!({"tool_calls": [call]}), &[], None));
            }
            Part::End(generation) => {
                let reason = finish_reason(&generation, self.calls[choice]);
                let tokens = std::mem::take(&mut self.waiting[choice]);
                self.held = Some(self.chunk(choice, &json!({}), &tokens, Some(reason)));
            }
        }
        chunks
    }

    /// The chunks that come last; the last of them tells the times.
    pub(super) fn end(&mut self, usage: Option<Value>, timings: Value) -> Vec<Value> {
        self.envelope.last_chunks(OBJECT, self.held.take(), usage, timings)
    }

    /// A chunk that tells how much of the prompt is computed.
    pub(super) fn progress(&self, done: usize, total: usize, cached: usize, ms: f64) -> Value {
        self.envelope.progress(OBJECT, done, total, cached, ms)
    }

    fn chunk(&self, choice: usize, delta: &Value, tokens: &[OwnedLogprobs], reason: Option<&str>) -> Value {
        let mut told = json!({"index": choice, "delta": delta});
        if let Some(pieces) = self.pieces.as_ref().filter(|_| !tokens.is_empty()) {
            told["logprobs"] = logprobs::content(pieces, tokens);
        }
        told["finish_reason"] = json!(reason);
        Value::Object(self.envelope.with(OBJECT, vec![told]))
    }
}

#[cfg(test)]
mod tests {
    use bitnet_inference::sampling::TokenLogprob;
    use bitnet_inference::{FinishReason, Generation, GenerationStats};

    use super::*;

    fn end(finish: FinishReason) -> Part {
        Part::End(Box::new(Generation {
            text: String::new(),
            tokens: vec![],
            finish,
            logprobs: None,
            stats: GenerationStats::default(),
        }))
    }

    fn text(text: &str, logprobs: Vec<OwnedLogprobs>) -> Part {
        Part::Text { text: text.to_owned(), logprobs }
    }

    #[expect(clippy::needless_pass_by_value, reason = "cases are written as they are passed")]
    fn around(choices: Value) -> Value {
        json!({"id": "id-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "fp_1",
            "choices": choices})
    }

    #[test]
    fn a_stream_has_role_text_reason_and_usage() {
        let mut chunks = Chunks::new(Envelope::fixed(), 1, None);
        let delta = |delta: Value, reason: Value| {
            around(json!([{"index": 0, "delta": delta, "finish_reason": reason}]))
        };
        assert_eq!(chunks.begin(), [delta(json!({"role": "assistant", "content": null}), Value::Null)]);
        assert_eq!(chunks.part(0, text("Hi", vec![])), [delta(json!({"content": "Hi"}), Value::Null)]);
        assert_eq!(chunks.part(0, end(FinishReason::Stop)), [] as [Value; 0]);
        let last = chunks.end(Some(json!({"total_tokens": 2})), json!({"cache_n": 1}));
        let mut usage = around(json!([]));
        usage["usage"] = json!({"total_tokens": 2});
        usage["timings"] = json!({"cache_n": 1});
        assert_eq!(last, [delta(json!({}), json!("stop")), usage]);
        // The members stand in the order of the API's documents.
        let written = last[0].to_string();
        assert!(
            written.starts_with(r#"{"id":"id-1","object":"chat.completion.chunk","created":7,"model":"#),
            "{written}"
        );
    }

    #[test]
    fn without_usage_the_reason_carries_the_times() {
        let mut chunks = Chunks::new(Envelope::fixed(), 2, None);
        assert_eq!(chunks.begin().len(), 2);
        assert!(chunks.part(1, end(FinishReason::Length)).is_empty());
        let first = chunks.part(0, text("x", vec![]));
        assert_eq!((first.len(), &first[0]["choices"][0]["finish_reason"]), (2, &json!("length")));
        assert_eq!(first[0].get("timings"), None);
        chunks.part(0, end(FinishReason::StopString("y".to_owned())));
        let last = chunks.end(None, json!({}));
        assert_eq!((last.len(), &last[0]["timings"]), (1, &json!({})));
        assert_eq!(last[0]["choices"][0]["finish_reason"], "stop");
    }

    #[test]
    fn calls_come_as_id_and_name_and_then_their_arguments() {
        let mut chunks = Chunks::new(Envelope::fixed(), 1, None);
        let call = chunks.part(0, Part::Call { index: 0, name: "f".to_owned() });
        let delta = &call[0]["choices"][0]["delta"]["tool_calls"][0];
        assert!(delta["id"].as_str().unwrap().starts_with("call_"), "{delta}");
        assert_eq!(
            (&delta["type"], &delta["function"]),
            (&json!("function"), &json!({"name": "f", "arguments": ""}))
        );
        let piece = chunks.part(0, Part::Arguments { index: 0, json: "{}".to_owned() });
        let expected = json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]});
        assert_eq!(piece[0]["choices"][0]["delta"], expected);
        chunks.part(0, end(FinishReason::Stop));
        assert_eq!(chunks.end(None, json!({}))[0]["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn every_token_is_told_of_though_some_have_no_text() {
        let token = |token| OwnedLogprobs { chosen: TokenLogprob { token, logprob: -1.0 }, top: vec![] };
        let mut chunks = Chunks::new(Envelope::fixed(), 1, Some(Pieces::default()));
        let count = |chunk: &Value| chunk["choices"][0]["logprobs"]["content"].as_array().unwrap().len();
        assert!(chunks.part(0, text("", vec![token(1)])).is_empty());
        assert_eq!(count(&chunks.part(0, text("x", vec![token(2)]))[0]), 2);
        assert!(chunks.part(0, text("", vec![token(3)])).is_empty());
        chunks.part(0, end(FinishReason::Stop));
        let last = chunks.end(None, json!({}));
        assert_eq!((count(&last[0]), &last[0]["choices"][0]["delta"]), (1, &json!({})));
    }
}
