//! [`Task`]: what a chat-like endpoint asks of the engine, made of a conversation and a body.

use bitnet_inference::{Constraint, GenerateRequest, InferenceEngine, Prompt};
use bitnet_text::tools::{ToolFormat, ToolParser};
use bitnet_text::{ChatMessage, ChatPrompt};
use serde_json::{Value, json};

use super::request::{self, Body, object, read};
use super::tools::{Choice, Tools};
use crate::common::fields;
use crate::error::ApiError;

/// A request with what is needed to understand its text.
#[derive(Debug)]
pub(super) struct Task {
    /// What the engine does.
    pub(super) request: GenerateRequest,
    /// The functions, and which may be called.
    pub(super) tools: Tools,
    /// How the model calls them.
    pub(super) format: ToolFormat,
}

impl Task {
    /// Continues a conversation as a body says; `answer` is the form of answers that it asks for.
    ///
    /// # Errors
    /// 400 naming what cannot be.
    pub(super) fn new(
        engine: &InferenceEngine,
        body: &Body,
        messages: Vec<ChatMessage>,
        answer: Option<Constraint>,
    ) -> Result<Self, ApiError> {
        let tools = Tools::read(body)?;
        let template = engine.model().chat_template.as_ref();
        let format = template.map_or(ToolFormat::Tagged, bitnet_text::ChatTemplate::tool_format);
        let kwargs = read(body, "chat_template_kwargs", object)?.cloned().unwrap_or_default();
        let continue_final = continues(body, &messages)?;
        let prompt = ChatPrompt { messages, tools: tools.in_prompt(), continue_final, kwargs };
        let mut request = request::generate(body, Prompt::ChatWith(prompt))?;
        if request.constraint.is_some() && answer.is_some() {
            let message =
                "response_format is not possible beside another constraint, such as grammar or json_schema";
            return Err(ApiError::bad_param("response_format", message));
        }
        let own = request.constraint.take().or(answer);
        request.constraint = constraint(&tools, format, own)?;
        Ok(Self { request, tools, format })
    }

    /// What finds the calls in the text of one completion.
    pub(super) fn parser(&self) -> Option<ToolParser> {
        self.tools.parser(self.format)
    }
}

/// Whether the model goes on with the last message: one of its own without calls, unless the body says otherwise.
fn continues(body: &Body, messages: &[ChatMessage]) -> Result<bool, ApiError> {
    let is_open = messages.last().is_some_and(|last| last.role == "assistant" && last.tool_calls.is_empty());
    let asked = read(body, "continue_final_message", fields::truth)?;
    if asked == Some(true) && !is_open {
        let message = "continue_final_message is only possible where the last message is the assistant's and calls nothing";
        return Err(ApiError::bad_param("continue_final_message", message));
    }
    Ok(asked.unwrap_or(is_open))
}

/// What the text must be: calls where they are demanded; else what is asked of answers, beside calls where there may be some.
fn constraint(
    tools: &Tools,
    format: ToolFormat,
    answer: Option<Constraint>,
) -> Result<Option<Constraint>, ApiError> {
    if let Some(calls) = tools.constraint(format) {
        return Ok(Some(calls));
    }
    let Some(answer) = answer else { return Ok(None) };
    if tools.tools.is_empty() || tools.choice == Choice::None {
        return Ok(Some(answer));
    }
    let mut schema: Value = match answer {
        Constraint::JsonSchema(schema) if format != ToolFormat::Mistral => schema,
        Constraint::JsonObject if format != ToolFormat::Mistral => json!({"type": "object"}),
        other => {
            let message = format!(
                "a {} cannot be combined with tools for this model; set tool_choice to \"none\" or \"required\"",
                other.kind()
            );
            return Err(ApiError::bad_param("tool_choice", message));
        }
    };
    if let Value::Object(schema) = &mut schema {
        // As in the grammars of calls: white space without end is what small models like to write.
        let fixed = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
        schema.insert("x-guidance".to_owned(), fixed);
    }
    let calls = format.grammar(&tools.tools, tools.parallel != Some(false));
    let calls = calls.replacen("start:", "calls:", 1);
    Ok(Some(Constraint::Lark(format!("start: calls | answer\nanswer: %json {schema}\n{calls}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "cases are written as they are passed")]
    fn tools(body: Value) -> Tools {
        Tools::read(body.as_object().unwrap()).unwrap()
    }

    #[test]
    fn answers_and_calls_exclude_each_other_or_are_alternatives() {
        let one = json!([{"type": "function", "function": {"name": "f"}}]);
        let schema = || Some(Constraint::JsonSchema(json!({"type": "integer"})));
        let made = |choice: &str, answer| {
            let tools = tools(json!({"tools": one, "tool_choice": choice}));
            constraint(&tools, ToolFormat::Tagged, answer).unwrap()
        };
        assert_eq!(made("auto", None), None);
        assert_eq!(made("none", schema()), schema());
        let lark = |made: Option<Constraint>| match made {
            Some(Constraint::Lark(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(lark(made("required", schema())).starts_with("start: block\n"));
        let both = lark(made("auto", schema()));
        assert!(
            both.starts_with("start: calls | answer\nanswer: %json {\"type\":\"integer\",\"x-guidance\":"),
            "{both}"
        );
        let regex = Some(Constraint::Regex("a".to_owned()));
        let refused = constraint(&tools(json!({"tools": one})), ToolFormat::Tagged, regex).unwrap_err();
        assert!(refused.message.contains("a regular expression cannot"), "{refused}");
    }

    #[test]
    fn the_models_last_words_are_continued() {
        let open = [ChatMessage::user("a"), ChatMessage::assistant("b")];
        let says = |body: Value, messages: &[ChatMessage]| continues(body.as_object().unwrap(), messages);
        assert!(says(json!({}), &open).unwrap());
        assert!(!says(json!({"continue_final_message": false}), &open).unwrap());
        assert!(!says(json!({}), &open[..1]).unwrap());
        assert!(says(json!({"continue_final_message": true}), &open[..1]).is_err());
    }
}
