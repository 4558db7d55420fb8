//! The conversation of a response: `instructions` and `input`.

use bitnet_text::{ChatMessage, ChatTemplate, ToolCall};
use serde_json::{Map, Value};

use crate::common::fields;
use crate::error::ApiError;
use crate::openai::messages;
use crate::openai::request::{Body, read as field};

/// The messages of a body.
///
/// # Errors
/// 400 naming the first thing that cannot be.
pub(super) fn read(body: &Body, template: Option<&ChatTemplate>) -> Result<Vec<ChatMessage>, ApiError> {
    let mut messages = Vec::new();
    if let Some(instructions) = field(body, "instructions", fields::text)? {
        messages.push(ChatMessage::system(instructions));
    }
    match body.get("input") {
        Some(Value::String(text)) => messages.push(ChatMessage::user(text.as_str())),
        Some(Value::Array(items)) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                item(&format!("input[{index}]"), value, template, &mut messages)?;
            }
        }
        None | Some(Value::Null | Value::Array(_)) => {
            return Err(ApiError::bad_param("input", "input is required: a string, or a list of items"));
        }
        Some(_) => return Err(ApiError::bad_param("input", "input must be a string or a list of items")),
    }
    messages::name_results(&mut messages);
    Ok(messages)
}

fn item(
    at: &str,
    value: &Value,
    template: Option<&ChatTemplate>,
    messages: &mut Vec<ChatMessage>,
) -> Result<(), ApiError> {
    let refused = |what: &str| ApiError::bad_param(at, format!("{at} {what}"));
    let object = value.as_object().ok_or_else(|| refused("must be an object"))?;
    match object.get("type").and_then(Value::as_str) {
        None | Some("message") => {
            let message = messages::message(at, value, template)?;
            messages.push(message);
        }
        Some("function_call") => {
            let arguments = text(at, object, "arguments")?;
            let call = ToolCall {
                id: Some(text(at, object, "call_id")?.to_owned()),
                name: text(at, object, "name")?.to_owned(),
                arguments: serde_json::from_str(arguments).unwrap_or_else(|_| Value::from(arguments)),
            };
            // Calls belong to the turn in which they were made.
            match messages.last_mut().filter(|last| last.role == "assistant") {
                Some(turn) => turn.tool_calls.push(call),
                None => messages.push(ChatMessage { tool_calls: vec![call], ..ChatMessage::assistant("") }),
            }
        }
        Some("function_call_output") => {
            let id = text(at, object, "call_id")?;
            let output = object.get("output").ok_or_else(|| refused("has no output"))?;
            let content = messages::content(&format!("{at}.output"), output)?;
            messages.push(ChatMessage::tool(id, content));
        }
        // What a model thought is not told to it again.
        Some("reasoning") => {}
        Some("item_reference") => {
            return Err(refused("refers to an item that this server has not kept; send the item itself"));
        }
        Some(kind) => {
            let kind: String = kind.chars().take(60).collect();
            let what = format!(
                "is of type {kind:?}: it must be message, function_call, function_call_output or reasoning"
            );
            return Err(refused(&what));
        }
    }
    Ok(())
}

fn text<'a>(at: &str, object: &'a Map<String, Value>, name: &str) -> Result<&'a str, ApiError> {
    object.get(name).and_then(Value::as_str).ok_or_else(|| {
        let param = format!("{at}.{name}");
        ApiError::bad_param(param.as_str(), format!("{param} is required: a string"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "cases are written as they are passed")]
    fn read(body: Value) -> Result<Vec<ChatMessage>, ApiError> {
        super::read(body.as_object().unwrap(), None)
    }

    #[test]
    fn text_and_items() {
        let messages = read(json!({"instructions": "I", "input": "hi"})).unwrap();
        assert_eq!(messages, [ChatMessage::system("I"), ChatMessage::user("hi")]);
        let messages = read(json!({"input": [
            {"role": "developer", "content": "d"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "a", "annotations": []}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\": 1}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        ]}))
        .unwrap();
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "tool"]);
        assert_eq!((messages[2].content.as_str(), messages[2].tool_calls.len()), ("a", 2));
        assert_eq!((messages[3].name.as_deref(), messages[4].content.as_str()), (Some("f"), "two"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (body, param) in [
            (json!({}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": 1}), "input"),
            (json!({"input": ["x"]}), "input[0]"),
            (json!({"input": "x", "instructions": 1}), "instructions"),
            (json!({"input": [{"role": "user"}]}), "input[0].content"),
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
                "input[0].content[0]",
            ),
            (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0]"),
            (json!({"input": [{"type": "web_search_call"}]}), "input[0]"),
            (json!({"input": [{"type": "function_call", "name": "f"}]}), "input[0].arguments"),
            (json!({"input": [{"type": "function_call_output", "output": "x"}]}), "input[0].call_id"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{body}: {error}"
            );
        }
    }
}
