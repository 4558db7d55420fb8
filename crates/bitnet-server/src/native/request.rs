//! [`CompletionRequest`]: the body of `/completion`.

use bitnet_inference::{EngineError, GenerateRequest, InferenceEngine, Prompt};
use bitnet_text::EncodeOptions;
use serde_json::{Map, Value};

use crate::common::constraint::constraint;
use crate::common::fields::{self, FieldError, find};
use crate::common::sampling::SamplingFields;
use crate::error::ApiError;

/// Most completions of one request.
const MOST: usize = 128;

/// How texts of prompts are encoded: spellings of special tokens stand for them, since a client may send what
/// `/apply-template` gave it.
pub(super) const WHOLE: EncodeOptions = EncodeOptions { add_bos: true, parse_special: true };

/// What the answer consists of.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Wanted {
    pub(super) stream: bool,
    /// Probabilities of so many alternatives.
    pub(super) n_probs: usize,
    pub(super) return_tokens: bool,
    pub(super) timings_per_token: bool,
    pub(super) return_progress: bool,
    /// The prompt is computed, but nothing generated.
    pub(super) only_prompt: bool,
    /// Only these members of the final object.
    pub(super) response_fields: Option<Vec<String>>,
}

/// The body of `/completion`, read.
#[derive(Debug)]
pub(super) struct CompletionRequest {
    pub(super) prompts: Vec<Input>,
    /// How often each prompt is continued.
    copies: usize,
    pub(super) wanted: Wanted,
    /// Everything but the prompt.
    request: GenerateRequest,
}

/// A prompt as the client gave it: texts and tokens in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input(Vec<Segment>);

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Text(String),
    Token(u32),
}

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 naming the field; 501 for what this server does not do.
    pub(super) fn read(body: &Map<String, Value>) -> Result<Self, ApiError> {
        refuse(body)?;
        let prompt = body.get("prompt").filter(|prompt| !prompt.is_null());
        let prompt = prompt.ok_or_else(|| ApiError::bad_param("prompt", "prompt is required"))?;
        let prompts = inputs("prompt", prompt)?;
        let flag = |name: &'static str| find(body, &[name]).map_or(Ok(false), fields::truth);
        let count = |names: &[&'static str]| find(body, names).map(fields::count).transpose();
        let copies = count(&["n_cmpl", "n"])?.unwrap_or(1);
        if copies == 0 || prompts.is_empty() || prompts.len().saturating_mul(copies) > MOST {
            let message = format!("a request can ask for 1 to {MOST} completions, prompts times n_cmpl");
            return Err(ApiError::bad_param("prompt", message));
        }
        let sampling = SamplingFields::from_map(body)?;
        let n_probs = count(&["n_probs", "logprobs"])?.unwrap_or(0);
        let mut request = GenerateRequest::new(Prompt::Tokens(Vec::new()));
        sampling.apply(&mut request);
        let only_prompt = request.max_tokens == Some(0);
        if only_prompt {
            // The engine computes a prompt to draw a token from it.
            request.max_tokens = Some(1);
        }
        request.constraint = constraint(body)?;
        request.logprobs = (n_probs > 0).then_some(n_probs);
        let wanted = Wanted {
            stream: flag("stream")?,
            n_probs,
            return_tokens: flag("return_tokens")?,
            timings_per_token: flag("timings_per_token")?,
            return_progress: flag("return_progress")?,
            only_prompt,
            response_fields: find(body, &["response_fields"]).map(fields::texts).transpose()?,
        };
        Ok(Self { prompts, copies, wanted, request })
    }

    /// The requests to the engine, those of the first prompt first. Encodes the prompts.
    ///
    /// # Errors
    /// 400 for a prompt that cannot be encoded.
    pub(super) fn requests(&self, engine: &InferenceEngine) -> Result<Vec<GenerateRequest>, ApiError> {
        let mut requests = Vec::with_capacity(self.prompts.len() * self.copies);
        for input in &self.prompts {
            let prompt = Prompt::Tokens(input.encode(engine, WHOLE)?);
            for copy in 0..self.copies {
                let mut request = GenerateRequest { prompt: prompt.clone(), ..self.request.clone() };
                // One seed gives one text, so each copy has its own.
                request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(copy as u64));
                requests.push(request);
            }
        }
        Ok(requests)
    }

    /// Whether the answer is a list.
    pub(super) fn is_list(&self) -> bool {
        self.prompts.len() * self.copies > 1
    }
}

impl Input {
    /// The tokens. A text at the beginning gets what the model puts before a text.
    ///
    /// # Errors
    /// [`EngineError`] without a tokenizer, or for a text that it cannot encode.
    pub(super) fn encode(
        &self,
        engine: &InferenceEngine,
        first: EncodeOptions,
    ) -> Result<Vec<u32>, EngineError> {
        let mut tokens = Vec::new();
        for (index, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Token(token) => tokens.push(*token),
                Segment::Text(text) => {
                    let options = EncodeOptions { add_bos: first.add_bos && index == 0, ..first };
                    tokens.extend(engine.tokenizer()?.encode(text, options)?);
                }
            }
        }
        Ok(tokens)
    }
}

/// The prompts of a body: one text, one list of tokens (or of tokens and texts), or a list of prompts.
///
/// # Errors
/// 400 for anything else.
pub(super) fn inputs(field: &str, prompt: &Value) -> Result<Vec<Input>, ApiError> {
    match prompt {
        Value::Array(list) if list.iter().any(Value::is_number) => Ok(vec![input(field, prompt)?]),
        Value::Array(list) => list.iter().map(|entry| input(field, entry)).collect(),
        one => Ok(vec![input(field, one)?]),
    }
}

/// One prompt.
///
/// # Errors
/// 400 for what is none.
pub(super) fn input(field: &str, value: &Value) -> Result<Input, ApiError> {
    let wrong = || {
        let allowed = "a text, a list of tokens and texts, or a list of these";
        ApiError::from(FieldError::new(field, value, allowed))
    };
    let segment = |value: &Value| match value {
        Value::String(text) => Ok(Segment::Text(text.clone())),
        other => {
            let token = other.as_u64().and_then(|token| u32::try_from(token).ok());
            token.map(Segment::Token).ok_or_else(wrong)
        }
    };
    match value {
        Value::String(text) => Ok(Input(vec![Segment::Text(text.clone())])),
        Value::Array(list) => Ok(Input(list.iter().map(segment).collect::<Result<_, _>>()?)),
        Value::Object(object) => {
            if object
                .get("multimodal_data")
                .is_some_and(|data| data.as_array().is_none_or(|data| !data.is_empty()))
            {
                return Err(ApiError::not_supported("this model reads text only; leave multimodal_data out"));
            }
            let text = object.get("prompt_string").and_then(Value::as_str).ok_or_else(wrong)?;
            Ok(Input(vec![Segment::Text(text.to_owned())]))
        }
        _ => Err(wrong()),
    }
}

/// Refuses what would silently be left out otherwise. What makes no difference to the text (`id_slot`, `cache_prompt`,
/// `n_keep` and the like) may be there.
fn refuse(body: &Map<String, Value>) -> Result<(), ApiError> {
    let refused = |name: &str, why: &str| Err(ApiError::not_supported(format!("{name}: {why}")).param(name));
    let is_true = |name: &str| body.get(name).and_then(Value::as_bool) == Some(true);
    let above =
        |name: &str, least: f64| body.get(name).and_then(Value::as_f64).is_some_and(|value| value > least);
    let filled = |name: &str| body.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if is_true("post_sampling_probs") && above("n_probs", 0.0) {
        return refused("post_sampling_probs", "only the model's own probabilities are told; leave it out");
    }
    if is_true("grammar_lazy") {
        return refused("grammar_lazy", "a grammar holds from the first character on; leave it out");
    }
    if above("t_max_predict_ms", 0.0) {
        return refused("t_max_predict_ms", "texts end by n_predict and stop only; leave it out");
    }
    if above("n_indent", 0.0) {
        return refused("n_indent", "indentation is not forced; use a grammar");
    }
    if above("min_keep", 1.0) {
        return refused("min_keep", "samplers keep one token at least and no other number; leave it out");
    }
    if filled("lora") {
        return refused("lora", "this server runs no adapters; leave it out");
    }
    if filled("image_data") {
        return refused("image_data", "this model reads text only; leave it out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<CompletionRequest, ApiError> {
        let Value::Object(body) = body else { unreachable!("cases are objects") };
        CompletionRequest::read(&body)
    }

    fn text(text: &str) -> Segment {
        Segment::Text(text.to_owned())
    }

    #[test]
    fn prompts_of_all_forms() {
        for (prompt, expected) in [
            (json!("a"), vec![vec![text("a")]]),
            (json!([1, 2]), vec![vec![Segment::Token(1), Segment::Token(2)]]),
            (json!([1, "a"]), vec![vec![Segment::Token(1), text("a")]]),
            (json!(["a", "b"]), vec![vec![text("a")], vec![text("b")]]),
            (json!(["a", [1, "b"]]), vec![vec![text("a")], vec![Segment::Token(1), text("b")]]),
            (json!({"prompt_string": "a"}), vec![vec![text("a")]]),
            (json!([{"prompt_string": "a", "multimodal_data": []}]), vec![vec![text("a")]]),
        ] {
            let inputs: Vec<Vec<Segment>> =
                read(json!({"prompt": prompt})).unwrap().prompts.into_iter().map(|input| input.0).collect();
            assert_eq!(inputs, expected, "{prompt}");
        }
    }

    #[test]
    fn fields_reach_the_request() {
        let body = json!({
            "prompt": "a", "n_predict": 5, "temperature": 0.5, "stop": ["x"], "n_probs": 3, "grammar": "root ::= \"a\"",
            "stream": true, "return_tokens": true, "timings_per_token": true, "return_progress": true, "cache_prompt": false,
            "id_slot": 3, "n_keep": 5, "response_fields": ["content"],
        });
        let read = read(body).unwrap();
        let wanted = Wanted {
            stream: true,
            n_probs: 3,
            return_tokens: true,
            timings_per_token: true,
            return_progress: true,
            only_prompt: false,
            response_fields: Some(vec!["content".to_owned()]),
        };
        assert_eq!(read.wanted, wanted);
        assert_eq!((read.request.max_tokens, read.request.logprobs), (Some(5), Some(3)));
        assert_eq!(read.request.sampling.temperature, Some(0.5));
        assert!(read.request.constraint.is_some() && !read.is_list());
    }

    #[test]
    fn no_tokens_means_only_the_prompt() {
        let read = read(json!({"prompt": "a", "n_predict": 0})).unwrap();
        assert!(read.wanted.only_prompt);
        assert_eq!(read.request.max_tokens, Some(1));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (body, field, status) in [
            (json!({}), "prompt", 400),
            (json!({"prompt": null}), "prompt", 400),
            (json!({"prompt": 5}), "prompt", 400),
            (json!({"prompt": []}), "prompt", 400),
            (json!({"prompt": [-1]}), "prompt", 400),
            (json!({"prompt": [1.5]}), "prompt", 400),
            (json!({"prompt": [[["a"]]]}), "prompt", 400),
            (json!({"prompt": vec!["a"; 129]}), "prompt", 400),
            (json!({"prompt": ["a", "b"], "n_cmpl": 100}), "prompt", 400),
            (json!({"prompt": "a", "n_cmpl": -1}), "n_cmpl", 400),
            (json!({"prompt": "a", "stream": "yes"}), "stream", 400),
            (json!({"prompt": "a", "n_probs": 1, "post_sampling_probs": true}), "post_sampling_probs", 501),
            (json!({"prompt": "a", "grammar_lazy": true}), "grammar_lazy", 501),
            (json!({"prompt": "a", "t_max_predict_ms": 5}), "t_max_predict_ms", 501),
            (json!({"prompt": "a", "lora": [{"id": 0}]}), "lora", 501),
            (json!({"prompt": "a", "top_k": "x"}), "top_k", 400),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(
                (error.param.as_deref(), error.status.as_u16()),
                (Some(field), status),
                "{body}: {error}"
            );
        }
        let media = json!({"prompt": {"prompt_string": "a", "multimodal_data": ["b"]}});
        assert_eq!(read(media).unwrap_err().status.as_u16(), 501);
    }
}
