//! [`Texts`]: the choices of completions, as chunks of a stream or whole.

use bitnet_inference::Generation;
use bitnet_inference::sampling::Logprobs;
use bitnet_inference::scheduler::OwnedLogprobs;
use serde_json::{Map, Value, json};

use crate::common::pieces::Pieces;
use crate::common::reply::Part;
use crate::openai::answer::finish_reason;
use crate::openai::envelope::Envelope;
use crate::openai::logprobs;

/// The kind of whole answers and of chunks.
const OBJECT: &str = "text_completion";

/// Makes the choices of completions.
#[derive(Debug)]
pub(super) struct Texts {
    envelope: Envelope,
    /// Present if the log probabilities are told.
    pieces: Option<Pieces>,
    choices: Vec<Choice>,
    /// The last chunk of a choice is held until it is known whether it is the last of all.
    held: Option<Value>,
}

#[derive(Debug, Clone, Default)]
struct Choice {
    text: String,
    tokens: Vec<OwnedLogprobs>,
    /// Where the next token stands in the text, in characters.
    offset: usize,
    reason: Option<&'static str>,
}

impl Texts {
    /// `n` choices for each of the echoes, with which their texts begin.
    pub(super) fn new(envelope: Envelope, echoes: &[String], n: usize, pieces: Option<Pieces>) -> Self {
        let choice =
            |echo: &String| Choice { offset: echo.chars().count(), text: echo.clone(), ..Choice::default() };
        let choices = echoes.iter().flat_map(|echo| std::iter::repeat_n(choice(echo), n)).collect();
        Self { envelope, pieces, choices, held: None }
    }

    /// The chunks that come first: the echoes.
    pub(super) fn begin(&mut self) -> Vec<Value> {
        let mut chunks = Vec::new();
        for index in 0..self.choices.len() {
            let echo = std::mem::take(&mut self.choices[index].text);
            if !echo.is_empty() {
                chunks.push(self.chunk(index, &echo));
            }
        }
        chunks
    }

    /// The chunks of a part.
    pub(super) fn part(&mut self, index: usize, part: Part) -> Vec<Value> {
        let mut chunks: Vec<Value> = self.held.take().into_iter().collect();
        match part {
            Part::Text { text, logprobs } => {
                self.choices[index].tokens.extend(logprobs);
                if !text.is_empty() {
                    chunks.push(self.chunk(index, &text));
                }
            }
            Part::End(generation) => {
                self.choices[index].reason = Some(finish_reason(&generation, 0));
                self.held = Some(self.chunk(index, ""));
            }
            Part::Call { .. } | Part::Arguments { .. } => {}
        }
        chunks
    }

    /// The chunks that come last; the last of them tells the times.
    pub(super) fn end(&mut self, usage: Option<Value>, timings: Value) -> Vec<Value> {
        self.envelope.last_chunks(OBJECT, self.held.take(), usage, timings)
    }

    /// A chunk that tells how much of a prompt is computed.
    pub(super) fn progress(&self, done: usize, total: usize, cached: usize, ms: f64) -> Value {
        self.envelope.progress(OBJECT, done, total, cached, ms)
    }

    /// Adds a part to a choice that is to be whole.
    pub(super) fn collect(&mut self, index: usize, part: Part) {
        let choice = &mut self.choices[index];
        match part {
            Part::Text { text, logprobs } => {
                choice.text.push_str(&text);
                choice.tokens.extend(logprobs);
            }
            Part::End(generation) => choice.reason = Some(finish_reason(&generation, 0)),
            Part::Call { .. } | Part::Arguments { .. } => {}
        }
    }

    /// Makes a choice of a generation.
    pub(super) fn take(&mut self, index: usize, generation: &Generation) {
        let choice = &mut self.choices[index];
        choice.text.push_str(&generation.text);
        choice.reason = Some(finish_reason(generation, 0));
        if self.pieces.is_some() {
            choice.tokens =
                generation.logprobs.iter().flat_map(Logprobs::iter).map(OwnedLogprobs::from).collect();
        }
    }

    /// The whole answer.
    pub(super) fn whole(&self) -> Map<String, Value> {
        let told = |(index, choice): (usize, &Choice)| {
            let mut offset = choice.offset;
            let lists =
                self.pieces.as_ref().map(|pieces| logprobs::lists(pieces, &choice.tokens, &mut offset));
            json!({"text": choice.text, "index": index, "logprobs": lists, "finish_reason": choice.reason.unwrap_or("stop")})
        };
        self.envelope.with(OBJECT, self.choices.iter().enumerate().map(told).collect())
    }

    /// A chunk with the tokens that wait.
    fn chunk(&mut self, index: usize, text: &str) -> Value {
        let choice = &mut self.choices[index];
        let tokens = std::mem::take(&mut choice.tokens);
        let told = self.pieces.as_ref().filter(|_| !tokens.is_empty());
        let lists = told.map(|pieces| logprobs::lists(pieces, &tokens, &mut choice.offset));
        let told = json!({"text": text, "index": index, "logprobs": lists, "finish_reason": choice.reason});
        Value::Object(self.envelope.with(OBJECT, vec![told]))
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

    fn text(text: &str) -> Part {
        Part::Text { text: text.to_owned(), logprobs: vec![] }
    }

    #[test]
    fn streams_and_whole_answers_tell_the_same() {
        let echoes = || vec!["é ".to_owned(), String::new()];
        let mut whole = Texts::new(Envelope::fixed(), &echoes(), 2, None);
        let mut stream = Texts::new(Envelope::fixed(), &echoes(), 2, None);
        let mut chunks = stream.begin();
        assert_eq!(chunks.len(), 2);
        for (index, part) in [
            (0, text("a")),
            (3, text("b")),
            (3, end(FinishReason::Stop)),
            (0, text("c")),
            (0, end(FinishReason::Length)),
            (1, end(FinishReason::Stop)),
            (2, end(FinishReason::Stop)),
        ] {
            whole.collect(index, part.clone());
            chunks.extend(stream.part(index, part));
        }
        chunks.extend(stream.end(Some(json!({})), json!({})));
        let told = whole.whole();
        for (index, choice) in told["choices"].as_array().unwrap().iter().enumerate() {
            let own =
                chunks.iter().flat_map(|c| c["choices"].as_array().unwrap()).filter(|c| c["index"] == index);
            let joined: String = own.clone().map(|c| c["text"].as_str().unwrap()).collect();
            assert_eq!(choice["text"], joined);
            assert_eq!(choice["finish_reason"], own.clone().next_back().unwrap()["finish_reason"]);
        }
        assert_eq!(told["object"], "text_completion");
        assert_eq!(
            told["choices"][0],
            json!({"text": "é ac", "index": 0, "logprobs": null, "finish_reason": "length"})
        );
        let last = chunks.last().unwrap();
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &json!({})));
    }
}
