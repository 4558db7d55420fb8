//! [`Whole`]: the parts of a chat completion as whole choices.

use bitnet_inference::Generation;
use serde_json::{Value, json};

use crate::common::pieces::Pieces;
use crate::common::reply::{Collected, Part};
use crate::openai::answer::finish_reason;
use crate::openai::logprobs;

/// Collects the choices of a completion.
#[derive(Debug)]
pub(super) struct Whole(Vec<Choice>);

#[derive(Debug, Default)]
struct Choice {
    collected: Collected,
    end: Option<Box<Generation>>,
}

impl Whole {
    pub(super) fn new(choices: usize) -> Self {
        Self((0..choices).map(|_| Choice::default()).collect())
    }

    /// Adds a part.
    pub(super) fn push(&mut self, choice: usize, part: Part) {
        let choice = &mut self.0[choice];
        match part {
            Part::End(generation) => choice.end = Some(generation),
            part => choice.collected.push(part, "call_"),
        }
    }

    /// The list of choices, with log probabilities if there are pieces for them.
    pub(super) fn choices(&self, pieces: Option<&Pieces>) -> Vec<Value> {
        self.0.iter().enumerate().map(|(index, choice)| choice.told(index, pieces)).collect()
    }
}

impl Choice {
    fn told(&self, index: usize, pieces: Option<&Pieces>) -> Value {
        let calls: Vec<Value> = self
            .collected
            .calls()
            .map(|call| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            })
            .collect();
        let text = self.collected.text();
        let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { json!(text) };
        let mut message = json!({"role": "assistant", "content": content});
        let reason = self.end.as_ref().map_or("stop", |end| finish_reason(end, calls.len()));
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        let logprobs = pieces.map(|pieces| logprobs::content(pieces, &self.collected.logprobs));
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason})
    }
}

#[cfg(test)]
mod tests {
    use bitnet_inference::{FinishReason, GenerationStats};

    use super::*;

    fn end(finish: FinishReason) -> Part {
        let (text, tokens, logprobs, stats) = (String::new(), vec![], None, GenerationStats::default());
        Part::End(Box::new(Generation { text, tokens, finish, logprobs, stats }))
    }

    #[test]
    fn text_and_calls() {
        let text = |text: &str| Part::Text { text: text.to_owned(), logprobs: vec![] };
        let mut whole = Whole::new(2);
        for part in [text("a"), text("b"), end(FinishReason::Length)] {
            whole.push(1, part);
        }
        for part in [
            Part::Call { index: 0, name: "f".to_owned() },
            Part::Arguments { index: 0, json: "{\"x\"".to_owned() },
            Part::Arguments { index: 0, json: ": 1}".to_owned() },
            end(FinishReason::Stop),
        ] {
            whole.push(0, part);
        }
        let choices = whole.choices(None);
        let expected = json!({"index": 1, "message": {"role": "assistant", "content": "ab"}, "logprobs": null, "finish_reason": "length"});
        assert_eq!(choices[1], expected);
        assert_eq!(
            (&choices[0]["finish_reason"], &choices[0]["message"]["content"]),
            (&json!("tool_calls"), &Value::Null)
        );
        let call = &choices[0]["message"]["tool_calls"][0];
        assert_eq!(call["function"], json!({"name": "f", "arguments": "{\"x\": 1}"}));
        assert_eq!(call["type"], "function");
    }
}
