//! [`Completion`]: the events of a generation as llama-server's chunks and final object.

use std::time::Instant;

use bitnet_inference::sampling::TokenLogprob;
use bitnet_inference::scheduler::{OwnedLogprobs, StreamEvent};
use bitnet_inference::{FinishReason, Generation, GenerationStats};
use serde_json::{Map, Value, json};

use super::request::Wanted;
use crate::common::pieces::Pieces;
use crate::common::timings::timings;

/// A completion under way.
#[derive(Debug)]
pub(super) struct Completion {
    index: usize,
    model: String,
    wanted: Wanted,
    pieces: Pieces,
    /// The prompt as text.
    prompt: String,
    /// All but the seed, which the end tells.
    settings: Map<String, Value>,
    /// What is known so far.
    stats: GenerationStats,
    clock: Clock,
    /// Tokens whose text is still to come.
    tokens: Vec<u32>,
    probs: Vec<Value>,
}

/// When things happened, for times before the end is there to tell them.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
    first_token: Option<Instant>,
}

impl Completion {
    /// A completion that has no content yet.
    pub(super) fn new(
        index: usize,
        model: String,
        wanted: Wanted,
        pieces: Pieces,
        prompt: String,
        settings: Map<String, Value>,
    ) -> Self {
        let clock = Clock { started: Instant::now(), first_token: None };
        let stats = GenerationStats::default();
        Self {
            index,
            model,
            wanted,
            pieces,
            prompt,
            settings,
            stats,
            clock,
            tokens: Vec::new(),
            probs: Vec::new(),
        }
    }

    /// The objects that an event makes, in a stream those of all events, else only the last.
    pub(super) fn push(&mut self, event: StreamEvent) -> Vec<Value> {
        match event {
            StreamEvent::Started { prompt_tokens, cached_tokens } => {
                (self.stats.prompt_tokens, self.stats.cached_tokens) = (prompt_tokens, cached_tokens);
                self.clock.started = Instant::now();
                self.progress(cached_tokens, prompt_tokens)
            }
            StreamEvent::Prefill { done, total } => self.progress(done, total),
            StreamEvent::Token { id, text, logprobs, .. } => {
                if self.wanted.only_prompt {
                    return Vec::new();
                }
                let now = Instant::now();
                let mut objects = Vec::new();
                if self.clock.first_token.is_none() {
                    // The prompt is done, which no event of its own tells.
                    objects = self.progress(self.stats.prompt_tokens, self.stats.prompt_tokens);
                }
                let first = *self.clock.first_token.get_or_insert(now);
                self.stats.prefill = first - self.clock.started;
                self.stats.decode = now - first;
                self.stats.generated_tokens += 1;
                self.tokens.push(id);
                self.probs.extend(logprobs.map(|at| self.probabilities(&at)));
                objects.extend(self.chunk(&text));
                objects
            }
            StreamEvent::Tail { text, .. } if !self.wanted.only_prompt => self.chunk(&text),
            StreamEvent::Finished { generation, .. } => {
                let mut objects = Vec::new();
                if self.wanted.stream && !self.tokens.is_empty() {
                    objects.push(self.object(""));
                }
                objects.push(self.end(&generation));
                objects
            }
            _ => Vec::new(),
        }
    }

    /// A chunk, if there is anything to tell now. Tokens without text wait for those with.
    fn chunk(&mut self, text: &str) -> Vec<Value> {
        if !self.wanted.stream || text.is_empty() {
            return Vec::new();
        }
        vec![self.object(text)]
    }

    /// A chunk with this text and the tokens that wait.
    fn object(&mut self, text: &str) -> Value {
        let mut object = json!({
            "index": self.index, "content": text, "tokens": std::mem::take(&mut self.tokens), "stop": false, "id_slot": -1,
            "tokens_predicted": self.stats.generated_tokens, "tokens_evaluated": self.stats.prompt_tokens,
        });
        if self.wanted.timings_per_token {
            object["timings"] = timings(&self.stats);
        }
        if !self.probs.is_empty() {
            object["completion_probabilities"] = Value::Array(std::mem::take(&mut self.probs));
        }
        object
    }

    fn progress(&mut self, done: usize, total: usize) -> Vec<Value> {
        if !self.wanted.stream || !self.wanted.return_progress {
            return Vec::new();
        }
        let mut object = self.object("");
        let ms = self.clock.started.elapsed().as_secs_f64() * 1e3;
        object["prompt_progress"] =
            json!({"total": total, "cache": self.stats.cached_tokens, "processed": done, "time_ms": ms});
        vec![object]
    }

    fn probabilities(&self, at: &OwnedLogprobs) -> Value {
        let token = |at: &TokenLogprob| {
            let bytes = self.pieces.bytes(at.token);
            json!({"id": at.token, "token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": at.logprob})
        };
        let mut told = token(&at.chosen);
        told["top_logprobs"] = at.top.iter().map(token).collect();
        told
    }

    /// The final object.
    fn end(&mut self, generation: &Generation) -> Value {
        let mut stats = generation.stats;
        let (mut content, mut tokens) = (generation.text.as_str(), generation.tokens.as_slice());
        if self.wanted.only_prompt {
            (content, tokens, stats.generated_tokens) = ("", &[], 0);
        }
        let has_new_line = content.contains('\n');
        if self.wanted.stream {
            // The chunks told it.
            (content, tokens) = ("", &[]);
        } else if !self.wanted.return_tokens {
            tokens = &[];
        }
        let (stop_type, stopping_word) = stop(&generation.finish);
        let mut settings = std::mem::take(&mut self.settings);
        settings.insert("seed".to_owned(), json!(stats.seed));
        let mut object = json!({
            "index": self.index,
            "content": content,
            "tokens": tokens,
            "id_slot": -1,
            "stop": true,
            "model": self.model,
            "tokens_predicted": stats.generated_tokens,
            "tokens_evaluated": stats.prompt_tokens,
            "generation_settings": settings,
            "prompt": self.prompt,
            "has_new_line": has_new_line,
            "truncated": generation.finish == FinishReason::ContextFull,
            "stop_type": stop_type,
            "stopping_word": stopping_word,
            "tokens_cached": stats.cached_tokens,
            "timings": timings(&stats),
        });
        if !self.wanted.stream && self.wanted.n_probs > 0 {
            self.probs.truncate(stats.generated_tokens);
            object["completion_probabilities"] = Value::Array(std::mem::take(&mut self.probs));
        }
        match &self.wanted.response_fields {
            Some(fields) => picked(&object, fields),
            None => object,
        }
    }
}

/// `stop_type` and `stopping_word`.
fn stop(finish: &FinishReason) -> (&'static str, &str) {
    match finish {
        FinishReason::Stop => ("eos", ""),
        FinishReason::StopString(text) => ("word", text),
        FinishReason::Length | FinishReason::ContextFull => ("limit", ""),
        _ => ("none", ""),
    }
}

/// Only these members; `a/b` is the member `b` of `a`, and comes as `b`. What is not there is left out.
fn picked(object: &Value, fields: &[String]) -> Value {
    let mut picked = Map::new();
    for field in fields {
        let found = field.split('/').try_fold(object, |value, name| value.get(name));
        if let (Some(value), Some(name)) = (found, field.rsplit('/').next()) {
            picked.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(wanted: Wanted) -> Completion {
        let settings = Map::from_iter([("seed".to_owned(), json!(1)), ("top_k".to_owned(), json!(5))]);
        Completion::new(2, "m".to_owned(), wanted, Pieces::default(), "p".to_owned(), settings)
    }

    fn token(id: u32, text: &str) -> StreamEvent {
        let chosen = TokenLogprob { token: id, logprob: -0.5 };
        let logprobs = Some(OwnedLogprobs { chosen, top: vec![chosen] });
        StreamEvent::Token { choice: 0, id, text: text.to_owned(), logprobs }
    }

    fn events(finish: FinishReason) -> Vec<StreamEvent> {
        let stats = GenerationStats {
            prompt_tokens: 10,
            cached_tokens: 4,
            generated_tokens: 3,
            seed: 77,
            ..GenerationStats::default()
        };
        let (text, tokens) = ("a\nb".to_owned(), vec![1, 2, 3]);
        let generation = Generation { text, tokens, finish, logprobs: None, stats };
        vec![
            StreamEvent::Started { prompt_tokens: 10, cached_tokens: 4 },
            StreamEvent::Prefill { done: 8, total: 10 },
            token(1, "a"),
            token(2, ""),
            token(3, "\nb"),
            StreamEvent::Finished { choice: 0, generation },
        ]
    }

    fn run(wanted: Wanted, finish: FinishReason) -> Vec<Value> {
        let mut completion = completion(wanted);
        events(finish).into_iter().flat_map(|event| completion.push(event)).collect()
    }

    #[test]
    fn a_whole_answer_is_one_object() {
        let wanted = Wanted { n_probs: 1, return_tokens: true, ..Wanted::default() };
        let objects = run(wanted, FinishReason::Stop);
        let [object] = objects.as_slice() else { panic!("{objects:?}") };
        let mut object = object.clone();
        let timings = object.as_object_mut().unwrap().remove("timings").unwrap();
        assert_eq!(
            (&timings["cache_n"], &timings["prompt_n"], &timings["predicted_n"]),
            (&json!(4), &json!(6), &json!(3))
        );
        let probs = object.as_object_mut().unwrap().remove("completion_probabilities").unwrap();
        assert_eq!(probs.as_array().unwrap().len(), 3);
        let first = json!({"id": 1, "token": "", "bytes": [], "logprob": -0.5});
        assert_eq!((&probs[0]["top_logprobs"][0], &probs[0]["id"]), (&first, &json!(1)));
        let expected = json!({
            "index": 2, "content": "a\nb", "tokens": [1, 2, 3], "id_slot": -1, "stop": true, "model": "m",
            "tokens_predicted": 3, "tokens_evaluated": 10, "generation_settings": {"seed": 77, "top_k": 5}, "prompt": "p",
            "has_new_line": true, "truncated": false, "stop_type": "eos", "stopping_word": "", "tokens_cached": 4,
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn chunks_have_text_and_the_tokens_since_the_last() {
        let wanted = Wanted {
            stream: true,
            n_probs: 1,
            timings_per_token: true,
            return_progress: true,
            ..Wanted::default()
        };
        let objects = run(wanted, FinishReason::Length);
        assert_eq!(objects.len(), 6);
        let objects = &objects[2..];
        let progress = &objects[0]["prompt_progress"];
        assert_eq!(
            (&progress["total"], &progress["cache"], &progress["processed"]),
            (&json!(10), &json!(4), &json!(10))
        );
        let told: Vec<(&str, &Value, &Value)> = objects[1..3]
            .iter()
            .map(|object| {
                (object["content"].as_str().unwrap(), &object["tokens"], &object["tokens_predicted"])
            })
            .collect();
        assert_eq!(told, [("a", &json!([1]), &json!(1)), ("\nb", &json!([2, 3]), &json!(3))]);
        assert_eq!(objects[2]["completion_probabilities"].as_array().unwrap().len(), 2);
        assert_eq!(objects[1]["timings"]["predicted_n"], 1);
        let last = &objects[3];
        assert_eq!(
            (&last["stop"], &last["content"], &last["tokens"]),
            (&json!(true), &json!(""), &json!([]))
        );
        assert_eq!((&last["stop_type"], last.get("completion_probabilities")), (&json!("limit"), None));
    }

    #[test]
    fn reasons_to_stop() {
        for (finish, kind, word, truncated) in [
            (FinishReason::Stop, "eos", "", false),
            (FinishReason::StopString("x".to_owned()), "word", "x", false),
            (FinishReason::Length, "limit", "", false),
            (FinishReason::ContextFull, "limit", "", true),
        ] {
            let object = run(Wanted::default(), finish).remove(0);
            assert_eq!((&object["stop_type"], &object["stopping_word"]), (&json!(kind), &json!(word)));
            assert_eq!(object["truncated"], json!(truncated));
        }
    }

    #[test]
    fn only_the_prompt_generates_nothing() {
        for stream in [false, true] {
            let objects =
                run(Wanted { only_prompt: true, stream, ..Wanted::default() }, FinishReason::Length);
            assert_eq!(objects.len(), 1);
            let object = &objects[0];
            assert_eq!((&object["content"], &object["tokens_predicted"]), (&json!(""), &json!(0)));
        }
    }

    #[test]
    fn members_can_be_picked() {
        let fields = ["content", "generation_settings/top_k", "no/such"].map(str::to_owned).to_vec();
        let wanted = Wanted { response_fields: Some(fields), ..Wanted::default() };
        assert_eq!(run(wanted, FinishReason::Stop), [json!({"content": "a\nb", "top_k": 5})]);
    }
}
