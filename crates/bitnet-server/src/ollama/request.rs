//! [`GenerateBody`] and [`ChatRequest`]: the bodies of `/api/generate` and `/api/chat`, and the requests that they make
//! to the engine.

use bitnet_inference::{EngineError, GenerateRequest, InferenceEngine, Prompt};
use bitnet_text::tools::ToolParser;
use bitnet_text::{ChatMessage, ChatPrompt, EncodeOptions};
use serde::Deserialize;
use serde_json::Value;

use super::keep_alive::KeepAlive;
use super::message::{Message, messages};
use crate::common::constraint::ollama_format;
use crate::common::sampling::SamplingFields;
use crate::error::ApiError;

/// Most alternatives of a token, as in ollama.
const MOST_ALTERNATIVES: usize = 20;

/// What `/api/generate` and `/api/chat` have in common.
#[derive(Debug, Deserialize)]
struct Common {
    #[serde(default)]
    model: String,
    stream: Option<bool>,
    format: Option<Value>,
    options: Option<SamplingFields>,
    keep_alive: Option<Value>,
    /// Whether the model is to think, or how much; a variable of its template.
    think: Option<Value>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
}

/// The body of `/api/generate`.
#[derive(Debug, Deserialize)]
pub(super) struct GenerateBody {
    #[serde(flatten)]
    common: Common,
    prompt: Option<String>,
    suffix: Option<String>,
    system: Option<String>,
    template: Option<String>,
    raw: Option<bool>,
    context: Option<Vec<u32>>,
    images: Option<Vec<Value>>,
}

/// The body of `/api/chat`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    #[serde(flatten)]
    common: Common,
    messages: Option<Vec<Message>>,
    tools: Option<Vec<Value>>,
}

/// What runs, and how its text is read.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: GenerateRequest,
    pub(super) parser: Option<ToolParser>,
    /// The tokens of the prompt where the answer tells them with its own as `context`.
    pub(super) context: Option<Vec<u32>>,
}

impl Common {
    fn request(self, prompt: Prompt) -> Result<GenerateRequest, ApiError> {
        let mut request = GenerateRequest::new(prompt);
        self.options.unwrap_or_default().apply(&mut request);
        // Ollama has no way to ask for no token: 0 and less is "as many as it takes".
        request.max_tokens = request.max_tokens.filter(|&tokens| tokens > 0);
        if let Some(format) = self.format.as_ref().filter(|format| !format.is_null()) {
            request.constraint = ollama_format(("format", format))?;
        }
        let alternatives = self.top_logprobs.unwrap_or(0);
        if alternatives > MOST_ALTERNATIVES {
            let message = format!("top_logprobs is {alternatives}; it must be from 0 to {MOST_ALTERNATIVES}");
            return Err(ApiError::bad_param("top_logprobs", message));
        }
        request.logprobs = (self.logprobs == Some(true)).then_some(alternatives);
        Ok(request)
    }

    /// The template's variables for `think`.
    fn think(&self, prompt: &mut ChatPrompt) -> Result<(), ApiError> {
        match &self.think {
            None | Some(Value::Null) => {}
            Some(Value::Bool(think)) => {
                prompt.kwargs.insert("enable_thinking".to_owned(), Value::Bool(*think));
            }
            Some(Value::String(effort)) if ["low", "medium", "high"].contains(&effort.as_str()) => {
                prompt.kwargs.insert("enable_thinking".to_owned(), Value::Bool(true));
                prompt.kwargs.insert("reasoning_effort".to_owned(), Value::String(effort.clone()));
            }
            Some(_) => {
                let message = "think must be true, false, \"low\", \"medium\" or \"high\"";
                return Err(ApiError::bad_param("think", message));
            }
        }
        Ok(())
    }
}

macro_rules! common {
    ($($name:ident),*) => {$(
        impl $name {
            /// The model asked for; empty if there is none.
            pub(super) fn model(&self) -> &str {
                &self.common.model
            }

            /// Whether the answer comes in several objects, which it does unless the request says no.
            pub(super) fn is_streamed(&self) -> bool {
                self.common.stream != Some(false)
            }

            /// How long the model is to stay.
            ///
            /// # Errors
            /// 400 for what is no duration.
            pub(super) fn keep_alive(&self) -> Result<Option<KeepAlive>, ApiError> {
                Ok(KeepAlive::read(self.common.keep_alive.as_ref())?)
            }
        }
    )*};
}
common!(GenerateBody, ChatRequest);

impl GenerateBody {
    /// Whether there is nothing to answer.
    pub(super) fn only_loads(&self) -> bool {
        let is_empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        is_empty(&self.prompt) && is_empty(&self.suffix)
    }

    /// The request to the engine. Encodes the prompt, which takes time if it is long.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn plan(self, engine: &InferenceEngine) -> Result<Plan, ApiError> {
        self.check()?;
        if self.raw == Some(true) {
            let prompt = Prompt::Tokens(self.raw_tokens(engine)?);
            return Ok(Plan { request: self.common.request(prompt)?, parser: None, context: None });
        }
        let (prompt, context) = self.turn(engine)?;
        Ok(Plan { request: self.common.request(prompt)?, parser: None, context: Some(context) })
    }

    fn check(&self) -> Result<(), ApiError> {
        let filled = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        if filled(&self.suffix) {
            let message = "suffix: this model cannot fill in what stands before a suffix; leave it out";
            return Err(ApiError::bad_param("suffix", message));
        }
        if filled(&self.template) {
            let message = "template: templates of ollama (in Go's language) are not run here; the model's own is used, or \
                           send the whole prompt with \"raw\": true";
            return Err(ApiError::bad_param("template", message));
        }
        if self.images.as_ref().is_some_and(|images| !images.is_empty()) {
            return Err(ApiError::bad_param("images", "this model reads text only; leave the images out"));
        }
        if self.raw == Some(true) && self.context.as_ref().is_some_and(|context| !context.is_empty()) {
            return Err(ApiError::bad_param(
                "context",
                "context is not possible with \"raw\": true; put all into the prompt",
            ));
        }
        Ok(())
    }

    /// The prompt as it is. Spellings of special tokens stand for them, as the client builds the whole prompt.
    fn raw_tokens(&self, engine: &InferenceEngine) -> Result<Vec<u32>, ApiError> {
        let options = EncodeOptions { add_bos: true, parse_special: true };
        let prompt = self.prompt.as_deref().unwrap_or_default();
        Ok(engine.tokenizer()?.encode(prompt, options).map_err(EngineError::from)?)
    }

    /// The prompt as a turn of the user, behind the tokens of former turns, and all its tokens.
    fn turn(&self, engine: &InferenceEngine) -> Result<(Prompt, Vec<u32>), ApiError> {
        let system = self.system.as_deref().filter(|text| !text.is_empty());
        let mut chat = ChatPrompt::default();
        chat.messages.extend(system.map(ChatMessage::system));
        chat.messages.push(ChatMessage::user(self.prompt.clone().unwrap_or_default()));
        self.common.think(&mut chat)?;
        let turn = if engine.model().chat_template.is_some() {
            Prompt::ChatWith(chat)
        } else {
            let texts: Vec<String> = chat.messages.into_iter().map(|message| message.content).collect();
            Prompt::Text(texts.join("\n\n"))
        };
        let tokens = engine.encode(&turn)?;
        let Some(before) = self.context.as_ref().filter(|context| !context.is_empty()) else {
            return Ok((turn, tokens));
        };
        // A text begins once only.
        let bos = engine.tokenizer()?.bos();
        let start = usize::from(bos.is_some() && tokens.first().copied() == bos);
        let tokens = [before, &tokens[start..]].concat();
        Ok((Prompt::Tokens(tokens.clone()), tokens))
    }
}

impl ChatRequest {
    /// Whether there is nothing to answer.
    pub(super) fn only_loads(&self) -> bool {
        self.messages.as_ref().is_none_or(Vec::is_empty)
    }

    /// The request to the engine.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn plan(self, engine: &InferenceEngine) -> Result<Plan, ApiError> {
        let template = engine.model().chat_template.as_ref();
        let knows_role = |role: &str| template.is_some_and(|template| template.knows_role(role));
        let messages = messages(self.messages.unwrap_or_default(), knows_role)?;
        let continue_final =
            messages.last().is_some_and(|last| last.role == "assistant" && last.tool_calls.is_empty());
        let tools = self.tools.unwrap_or_default();
        let names = tools
            .iter()
            .enumerate()
            .map(|(index, tool)| name_of(index, tool))
            .collect::<Result<Vec<_>, _>>()?;
        let format =
            template.map_or(bitnet_text::tools::ToolFormat::Tagged, bitnet_text::ChatTemplate::tool_format);
        let parser = (!names.is_empty()).then(|| ToolParser::new(format, names));
        let mut prompt = ChatPrompt { messages, tools, continue_final, ..ChatPrompt::default() };
        self.common.think(&mut prompt)?;
        let request = self.common.request(Prompt::ChatWith(prompt))?;
        Ok(Plan { request, parser, context: None })
    }
}

/// The name of a tool's function.
fn name_of(index: usize, tool: &Value) -> Result<String, ApiError> {
    let function = tool.get("function");
    let name = function.and_then(|function| function.get("name")).and_then(Value::as_str);
    name.filter(|name| !name.is_empty()).map(str::to_owned).ok_or_else(|| {
        let field = format!("tools[{index}].function.name");
        ApiError::bad_param(&field, format!("{field} must be a string"))
    })
}

#[cfg(test)]
mod tests {
    use bitnet_inference::Constraint;
    use serde_json::json;

    use super::*;

    fn body(body: Value) -> GenerateBody {
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn options_reach_the_request() {
        let common: Common = serde_json::from_value(json!({
            "model": "m", "format": {"type": "object"}, "logprobs": true, "top_logprobs": 2,
            "options": {"num_predict": 9, "temperature": 0.5, "seed": 3, "stop": ["x"], "num_ctx": 64, "numa": false},
        }))
        .unwrap();
        let request = common.request(Prompt::text("p")).unwrap();
        assert_eq!((request.max_tokens, request.logprobs), (Some(9), Some(2)));
        assert_eq!((request.sampling.temperature, request.sampling.seed), (Some(0.5), Some(3)));
        assert_eq!(request.stop, ["x"]);
        assert_eq!(request.constraint, Some(Constraint::JsonSchema(json!({"type": "object"}))));
        for limit in [-1, -2, 0] {
            let common: Common = serde_json::from_value(json!({"options": {"num_predict": limit}})).unwrap();
            assert_eq!(common.request(Prompt::text("p")).unwrap().max_tokens, None);
        }
    }

    #[test]
    fn what_loads_only() {
        for (value, loads) in [
            (json!({"model": "m"}), true),
            (json!({"model": "m", "prompt": ""}), true),
            (json!({"model": "m", "prompt": "x"}), false),
        ] {
            assert_eq!(body(value).only_loads(), loads);
        }
        let chat = |value| serde_json::from_value::<ChatRequest>(value).unwrap();
        assert!(chat(json!({"model": "m"})).only_loads() && chat(json!({"messages": []})).only_loads());
        assert!(chat(json!({"model": "m"})).is_streamed() && !chat(json!({"stream": false})).is_streamed());
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (value, field) in [
            (json!({"prompt": "x", "suffix": "y"}), "suffix"),
            (json!({"prompt": "x", "template": "{{ .Prompt }}"}), "template"),
            (json!({"prompt": "x", "images": ["a"]}), "images"),
            (json!({"prompt": "x", "raw": true, "context": [1]}), "context"),
        ] {
            assert_eq!(body(value).check().unwrap_err().param.as_deref(), Some(field));
        }
        for (value, field) in [
            (json!({"format": "xml"}), "format"),
            (json!({"top_logprobs": 21, "logprobs": true}), "top_logprobs"),
        ] {
            let common: Common = serde_json::from_value(value).unwrap();
            assert_eq!(common.request(Prompt::text("p")).unwrap_err().param.as_deref(), Some(field));
        }
        let common: Common = serde_json::from_value(json!({"think": "hard"})).unwrap();
        assert!(common.think(&mut ChatPrompt::default()).is_err());
        assert!(
            name_of(3, &json!({"type": "function"})).unwrap_err().message.contains("tools[3].function.name")
        );
    }
}
