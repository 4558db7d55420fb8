//! [`MessagesRequest`]: the body of `/v1/messages`, and the request that it makes to the engine.

use bitnet_inference::{Constraint, GenerateRequest, InferenceEngine, Prompt};
use bitnet_text::tools::{ToolFormat, ToolParser};
use bitnet_text::{ChatMessage, ChatPrompt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::{self, Content, Turn};
use crate::common::fields;
use crate::common::sampling::SamplingFields;
use crate::error::ApiError;

/// The body of `/v1/messages` and `/v1/messages/count_tokens`. Sampling parameters that only other APIs have are read as
/// well; `metadata`, `service_tier` and cache marks say nothing to this server.
#[derive(Debug, Deserialize)]
pub(super) struct MessagesRequest {
    model: Option<String>,
    messages: Vec<Turn>,
    system: Option<Content>,
    stop_sequences: Option<Value>,
    stream: Option<bool>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<ToolChoice>,
    thinking: Option<Thinking>,
    output_config: Option<OutputConfig>,
    output_format: Option<OutputFormat>,
    #[serde(flatten)]
    sampling: SamplingFields,
}

#[derive(Debug, Clone, Deserialize)]
struct ToolChoice {
    #[serde(rename = "type")]
    kind: ChoiceKind,
    name: Option<String>,
    #[serde(default)]
    disable_parallel_tool_use: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChoiceKind {
    Auto,
    Any,
    Tool,
    None,
}

#[derive(Debug, Clone, Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Clone, Deserialize)]
struct OutputConfig {
    format: Option<OutputFormat>,
}

#[derive(Debug, Clone, Deserialize)]
struct OutputFormat {
    #[serde(rename = "type")]
    kind: String,
    schema: Option<Value>,
}

/// What runs, and how its text is read.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: GenerateRequest,
    pub(super) parser: Option<ToolParser>,
}

/// How tools are to be called.
struct Tools {
    format: ToolFormat,
    /// In OpenAI's form; those that may be called.
    callable: Vec<Value>,
    forced: bool,
    single: bool,
}

impl MessagesRequest {
    /// The model asked for.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether the answer comes in events.
    pub(super) fn is_streamed(&self) -> bool {
        self.stream == Some(true)
    }

    /// The conversation as the engine takes it.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn prompt(self, engine: &InferenceEngine) -> Result<ChatPrompt, ApiError> {
        let template = engine.model().chat_template.as_ref();
        let format = template.map_or(ToolFormat::Tagged, bitnet_text::ChatTemplate::tool_format);
        self.parts(format).map(|(prompt, ..)| prompt)
    }

    /// The request to the engine.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(super) fn plan(self, engine: &InferenceEngine) -> Result<Plan, ApiError> {
        let template = engine.model().chat_template.as_ref();
        self.plan_with(template.map_or(ToolFormat::Tagged, bitnet_text::ChatTemplate::tool_format))
    }

    fn plan_with(mut self, format: ToolFormat) -> Result<Plan, ApiError> {
        match self.sampling.max_tokens {
            Some(Some(tokens)) if tokens > 0 => {}
            Some(_) => return Err(ApiError::bad_param("max_tokens", "max_tokens must be 1 or more")),
            None => {
                return Err(ApiError::bad_param(
                    "max_tokens",
                    "max_tokens is required: the most tokens of the answer",
                ));
            }
        }
        let sampling = std::mem::take(&mut self.sampling);
        let stops = self.stop_sequences.take().filter(|stops| !stops.is_null());
        let stops = stops.map(|stops| fields::watched(("stop_sequences", &stops))).transpose()?;
        let schema = self.schema()?;
        let (prompt, tools) = self.parts(format)?;
        let mut request = GenerateRequest::new(Prompt::ChatWith(prompt));
        sampling.apply(&mut request);
        request.stop.extend(stops.unwrap_or_default());
        request.constraint = schema;
        let parser = tools.map(|tools| tools.parser(&mut request)).transpose()?;
        Ok(Plan { request, parser })
    }

    /// The schema that the answer must fit.
    fn schema(&mut self) -> Result<Option<Constraint>, ApiError> {
        let in_config = self.output_config.take().and_then(|config| config.format);
        let Some(format) = in_config.or_else(|| self.output_format.take()) else { return Ok(None) };
        match (format.kind.as_str(), format.schema) {
            ("json_schema", Some(schema)) => Ok(Some(Constraint::JsonSchema(schema))),
            _ => {
                let message = "output_config.format must be {\"type\": \"json_schema\", \"schema\": ..}";
                Err(ApiError::bad_param("output_config.format", message))
            }
        }
    }

    fn parts(self, format: ToolFormat) -> Result<(ChatPrompt, Option<Tools>), ApiError> {
        let mut messages = Vec::new();
        if let Some(system) = self.system {
            let text = content::system(system)?;
            if !text.is_empty() {
                messages.push(ChatMessage::system(text));
            }
        }
        let turns = content::messages(self.messages)?;
        let Some(last) = turns.last() else {
            return Err(ApiError::bad_param("messages", "messages is empty; it needs one turn at least"));
        };
        if !last.tool_calls.is_empty() {
            let message = "the last turn calls functions; a turn of the user with their results must follow";
            return Err(ApiError::bad_param("messages", message));
        }
        let continue_final = last.role == "assistant";
        messages.extend(turns);
        let mut prompt = ChatPrompt { messages, continue_final, ..ChatPrompt::default() };
        if let Some(thinking) = self.thinking {
            prompt.kwargs.insert("enable_thinking".to_owned(), Value::Bool(thinking.kind != "disabled"));
        }
        let tools = Tools::new(&self.tools.unwrap_or_default(), self.tool_choice, format)?;
        if let Some((definitions, _)) = &tools {
            prompt.tools.clone_from(definitions);
        }
        Ok((prompt, tools.map(|(_, tools)| tools)))
    }
}

impl Tools {
    /// The definitions for the prompt, and which of them may be called; `None` if none may.
    fn new(
        tools: &[Value],
        choice: Option<ToolChoice>,
        format: ToolFormat,
    ) -> Result<Option<(Vec<Value>, Self)>, ApiError> {
        let all = tools
            .iter()
            .enumerate()
            .map(|(index, tool)| definition(index, tool))
            .collect::<Result<Vec<_>, _>>()?;
        let choice = choice.unwrap_or(ToolChoice {
            kind: ChoiceKind::Auto,
            name: None,
            disable_parallel_tool_use: false,
        });
        if choice.kind == ChoiceKind::None || (all.is_empty() && choice.kind == ChoiceKind::Auto) {
            return Ok(None);
        }
        let callable = match choice.kind {
            ChoiceKind::Tool => {
                let name = choice.name.unwrap_or_default();
                let chosen = all.iter().find(|tool| tool["function"]["name"] == name.as_str()).cloned();
                let shown: String = name.chars().take(80).collect();
                vec![chosen.ok_or_else(|| {
                    ApiError::bad_param(
                        "tool_choice.name",
                        format!("tool_choice.name is {shown:?}, which is none of the tools"),
                    )
                })?]
            }
            _ if all.is_empty() => {
                return Err(ApiError::bad_param(
                    "tool_choice",
                    "tool_choice asks for a call, but there are no tools",
                ));
            }
            _ => all.clone(),
        };
        let forced = matches!(choice.kind, ChoiceKind::Any | ChoiceKind::Tool);
        Ok(Some((all, Self { format, callable, forced, single: choice.disable_parallel_tool_use })))
    }

    /// What takes the calls out of the text; makes the request write one where it must.
    fn parser(self, request: &mut GenerateRequest) -> Result<ToolParser, ApiError> {
        let names =
            self.callable.iter().filter_map(|tool| tool["function"]["name"].as_str().map(str::to_owned));
        let mut parser = ToolParser::new(self.format, names.collect());
        if self.single {
            parser = parser.single();
        }
        if self.forced {
            if request.constraint.is_some() {
                let message = "tool_choice asks for a call, which cannot fit output_config.format; leave one of them out";
                return Err(ApiError::bad_param("tool_choice", message));
            }
            request.constraint = Some(Constraint::Lark(self.format.grammar(&self.callable, !self.single)));
            parser = parser.forced();
        }
        Ok(parser)
    }
}

/// A tool in OpenAI's form.
fn definition(index: usize, tool: &Value) -> Result<Value, ApiError> {
    let wrong = |message: String| ApiError::bad_param(format!("tools[{index}]"), message);
    let kind = tool.get("type").and_then(Value::as_str).unwrap_or("custom");
    if kind != "custom" {
        let kind: String = kind.chars().take(60).collect();
        return Err(wrong(format!(
            "tools[{index}] is of type {kind:?}; this server runs no tools, give one with an input_schema"
        )));
    }
    let name = tool.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| wrong(format!("tools[{index}].name must be a string")))?;
    let schema = match tool.get("input_schema") {
        Some(schema @ Value::Object(_)) => schema.clone(),
        _ => return Err(wrong(format!("tools[{index}].input_schema must be a JSON schema"))),
    };
    let description = tool.get("description").and_then(Value::as_str).unwrap_or_default();
    let function = json!({"name": name, "description": description, "parameters": schema});
    Ok(json!({"type": "function", "function": function}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(body: Value) -> Result<Plan, ApiError> {
        let body: MessagesRequest =
            serde_json::from_value(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
        body.plan_with(ToolFormat::Tagged)
    }

    fn prompt(plan: &Plan) -> &ChatPrompt {
        let Prompt::ChatWith(prompt) = &plan.request.prompt else { panic!("not a chat: {plan:?}") };
        prompt
    }

    #[test]
    fn all_fields_reach_the_request() {
        let body = json!({
            "model": "m", "max_tokens": 16, "system": [{"type": "text", "text": "Be brief."}], "stream": true,
            "messages": [{"role": "user", "content": "Hi"}], "stop_sequences": ["END", ""], "temperature": 0.5,
            "top_k": 5, "top_p": 0.9, "metadata": {"user_id": "u"}, "thinking": {"type": "disabled"}, "seed": 3,
        });
        let plan = plan(body).unwrap();
        assert!(plan.parser.is_none());
        let request = &plan.request;
        assert_eq!((request.max_tokens, request.stop.as_slice()), (Some(16), ["END".to_owned()].as_slice()));
        let sampling = &request.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (Some(0.5), Some(5), Some(0.9)));
        assert_eq!(sampling.seed, Some(3));
        let prompt = prompt(&plan);
        assert_eq!(prompt.messages, [ChatMessage::system("Be brief."), ChatMessage::user("Hi")]);
        assert!(!prompt.continue_final && prompt.tools.is_empty());
        assert_eq!(prompt.kwargs["enable_thinking"], false);
    }

    #[test]
    fn a_last_turn_of_the_assistant_is_continued() {
        let turns = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]);
        let plan = plan(json!({"max_tokens": 1, "messages": turns})).unwrap();
        assert!(prompt(&plan).continue_final);
    }

    #[test]
    fn tools_are_told_and_forced() {
        let tool = |name: &str| json!({"name": name, "description": "d", "input_schema": {"type": "object"}});
        let body = |choice: Value| {
            let turns = json!([{"role": "user", "content": "Hi"}]);
            json!({"max_tokens": 9, "messages": turns, "tools": [tool("a"), tool("b")], "tool_choice": choice})
        };
        let told = json!({"type": "function", "function": {"name": "a", "description": "d", "parameters": {"type": "object"}}});
        let auto = plan(body(json!({"type": "auto"}))).unwrap();
        assert_eq!((prompt(&auto).tools.len(), &prompt(&auto).tools[0]), (2, &told));
        assert!(auto.parser.is_some() && auto.request.constraint.is_none());
        let none = plan(body(json!({"type": "none"}))).unwrap();
        assert!(none.parser.is_none() && prompt(&none).tools.is_empty());
        let any = plan(body(json!({"type": "any"}))).unwrap();
        let Some(Constraint::Lark(grammar)) = &any.request.constraint else { panic!("{any:?}") };
        assert!(grammar.contains("\\\"a\\\"") && grammar.contains("\\\"b\\\""), "{grammar}");
        let one = plan(body(json!({"type": "tool", "name": "b"}))).unwrap();
        let Some(Constraint::Lark(grammar)) = &one.request.constraint else { panic!("{one:?}") };
        assert!(!grammar.contains("\\\"a\\\"") && grammar.contains("\\\"b\\\""), "{grammar}");
        assert_eq!(prompt(&one).tools.len(), 2);
    }

    #[test]
    fn schemas_constrain() {
        let format = json!({"type": "json_schema", "schema": {"type": "object"}});
        let turns = json!([{"role": "user", "content": "Hi"}]);
        for body in [
            json!({"max_tokens": 9, "messages": turns, "output_config": {"format": format}}),
            json!({"max_tokens": 9, "messages": turns, "output_format": format}),
        ] {
            let constraint = plan(body).unwrap().request.constraint;
            assert_eq!(constraint, Some(Constraint::JsonSchema(json!({"type": "object"}))));
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let turns = json!([{"role": "user", "content": "Hi"}]);
        let called = json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}]);
        for (body, part) in [
            (json!({"messages": turns}), "max_tokens is required"),
            (json!({"max_tokens": 0, "messages": turns}), "max_tokens must be"),
            (json!({"max_tokens": -1, "messages": turns}), "max_tokens must be"),
            (json!({"max_tokens": "x", "messages": turns}), "max_tokens = \"x\""),
            (json!({"max_tokens": 1}), "messages"),
            (json!({"max_tokens": 1, "messages": []}), "messages is empty"),
            (json!({"max_tokens": 1, "messages": "Hi"}), "invalid type"),
            (json!({"max_tokens": 1, "messages": called}), "the last turn calls functions"),
            (json!({"max_tokens": 1, "messages": turns, "tools": [{"name": "f"}]}), "tools[0].input_schema"),
            (
                json!({"max_tokens": 1, "messages": turns, "tools": [{"type": "web_search_20250305", "name": "w"}]}),
                "web_search",
            ),
            (
                json!({"max_tokens": 1, "messages": turns, "tool_choice": {"type": "any"}}),
                "there are no tools",
            ),
            (
                json!({"max_tokens": 1, "messages": turns, "tool_choice": {"type": "tool", "name": "q"}}),
                "\"q\"",
            ),
            (
                json!({"max_tokens": 1, "messages": turns, "tool_choice": {"type": "maybe"}}),
                "unknown variant",
            ),
            (
                json!({"max_tokens": 1, "messages": turns, "output_config": {"format": {"type": "xml"}}}),
                "output_config.format",
            ),
            (json!({"max_tokens": 1, "messages": turns, "top_p": "x"}), "top_p = \"x\""),
        ] {
            let error = plan(body.clone()).unwrap_err();
            assert!(error.message.contains(part) && error.status.as_u16() == 400, "{body}: {error}");
        }
    }
}
