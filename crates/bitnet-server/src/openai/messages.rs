//! Conversations as bodies have them.

use std::collections::HashMap;

use bitnet_text::{ChatMessage, ChatTemplate, ToolCall};
use serde_json::Value;

use super::request::Body;
use crate::error::ApiError;

/// The messages of a body's `messages`. `template` says which roles there may be; without one, the usual ones.
///
/// # Errors
/// 400 naming the first field that cannot be.
pub(crate) fn read(body: &Body, template: Option<&ChatTemplate>) -> Result<Vec<ChatMessage>, ApiError> {
    let missing =
        || ApiError::bad_param("messages", "messages is required: a list of messages, at least one");
    let list = match body.get("messages") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        None | Some(Value::Null | Value::Array(_)) => return Err(missing()),
        Some(_) => return Err(ApiError::bad_param("messages", "messages must be a list of messages")),
    };
    let mut messages = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        messages.push(message(&format!("messages[{index}]"), value, template)?);
    }
    name_results(&mut messages);
    Ok(messages)
}

/// One message, which stands at this place of a body.
pub(super) fn message(
    at: &str,
    value: &Value,
    template: Option<&ChatTemplate>,
) -> Result<ChatMessage, ApiError> {
    let refused = |what: &str| ApiError::bad_param(at, format!("{at} {what}"));
    let object =
        value.as_object().ok_or_else(|| refused("must be an object with \"role\" and \"content\""))?;
    let role = match object.get("role") {
        Some(Value::String(role)) => role.as_str(),
        _ => return Err(bad(at, "role", "is required: a string such as \"user\"")),
    };
    let text = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(bad(at, name, "must be a string")),
    };
    let role = self::role(at, role, template)?;
    let tool_calls = match object.get("tool_calls") {
        Some(Value::Array(calls)) if role == "assistant" => tool_calls(at, calls)?,
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(_)) => {
            return Err(bad(at, "tool_calls", "is only possible in messages of the assistant"));
        }
        Some(_) => return Err(bad(at, "tool_calls", "must be a list of calls")),
    };
    let content = match object.get("content") {
        None | Some(Value::Null) if role == "assistant" => String::new(),
        None | Some(Value::Null) => {
            return Err(bad(at, "content", "is required: a string, or a list of text parts"));
        }
        Some(value) => content(&format!("{at}.content"), value)?,
    };
    let (tool_call_id, name) = (text("tool_call_id")?, text("name")?);
    Ok(ChatMessage { role: role.to_owned(), content, tool_calls, tool_call_id, name })
}

fn bad(at: &str, field: &str, what: &str) -> ApiError {
    ApiError::bad_param(format!("{at}.{field}"), format!("{at}.{field} {what}"))
}

/// The role as templates know it.
fn role<'r>(at: &str, role: &'r str, template: Option<&ChatTemplate>) -> Result<&'r str, ApiError> {
    match role {
        "system" | "user" | "assistant" | "tool" => Ok(role),
        // What newer models of OpenAI call the system message.
        "developer" => Ok("system"),
        "function" => Ok("tool"),
        _ if template.is_some_and(|template| template.knows_role(role)) => Ok(role),
        _ => {
            let shown: String = role.chars().take(60).collect();
            let what = format!(
                "is {shown:?}, which this model does not know: it must be system, developer, user, assistant or tool"
            );
            Err(bad(at, "role", &what))
        }
    }
}

/// A content: text, or parts of text, which are joined.
pub(super) fn content(at: &str, value: &Value) -> Result<String, ApiError> {
    let refused = |at: &str, what: &str| ApiError::bad_param(at, format!("{at} {what}"));
    let parts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(refused(at, "must be a string or a list of text parts")),
    };
    let mut content = String::new();
    for (index, part) in parts.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let kind = part.get("type").and_then(Value::as_str);
        let text = match kind {
            Some("text" | "input_text" | "output_text") => part.get("text"),
            Some("refusal") => part.get("refusal"),
            Some(kind) => {
                let shown: String = kind.chars().take(60).collect();
                let what = format!(
                    "is of type {shown:?}: this model reads text, so that only parts of type \"text\" are possible"
                );
                return Err(refused(&at, &what));
            }
            None => return Err(refused(&at, "must be an object with \"type\" and \"text\"")),
        };
        content.push_str(text.and_then(Value::as_str).ok_or_else(|| refused(&at, "has no text"))?);
    }
    Ok(content)
}

fn tool_calls(at: &str, calls: &[Value]) -> Result<Vec<ToolCall>, ApiError> {
    let call = |(index, value): (usize, &Value)| {
        let at = format!("{at}.tool_calls[{index}]");
        let call: Result<ToolCall, _> = serde_json::from_value(value.clone());
        call.map_err(|_| {
            let what = "must be {\"id\", \"type\": \"function\", \"function\": {\"name\", \"arguments\"}}";
            ApiError::bad_param(at.as_str(), format!("{at} {what}"))
        })
    };
    calls.iter().enumerate().map(call).collect()
}

/// Gives results of calls the names of their functions, which some templates ask for and few clients send.
pub(super) fn name_results(messages: &mut [ChatMessage]) {
    let mut names: HashMap<String, String> = HashMap::new();
    for message in messages {
        for call in &message.tool_calls {
            names.extend(call.id.clone().map(|id| (id, call.name.clone())));
        }
        if message.role == "tool" && message.name.is_none() {
            message.name = message.tool_call_id.as_ref().and_then(|id| names.get(id)).cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "cases are written as they are passed")]
    fn read(messages: Value) -> Result<Vec<ChatMessage>, ApiError> {
        let body = json!({"messages": messages});
        super::read(body.as_object().unwrap(), Some(&ChatTemplate::bitnet_2b()))
    }

    #[test]
    fn contents_are_text_or_parts_of_text() {
        let messages = read(json!([
            {"role": "developer", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}], "name": "Bob"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "d"},
        ]))
        .unwrap();
        assert_eq!(messages[0], ChatMessage::system("a"));
        assert_eq!((messages[1].content.as_str(), messages[1].name.as_deref()), ("bc", Some("Bob")));
        assert_eq!(messages[2].tool_calls[0].arguments, json!({"x": 1}));
        assert_eq!((messages[3].name.as_deref(), messages[3].content.as_str()), (Some("f"), "d"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (messages, param, part) in [
            (json!([]), "messages", "at least one"),
            (json!("hi"), "messages", "must be a list"),
            (json!([1]), "messages[0]", "must be an object"),
            (json!([{"content": "x"}]), "messages[0].role", "is required"),
            (json!([{"role": "user"}]), "messages[0].content", "is required"),
            (json!([{"role": "user", "content": 7}]), "messages[0].content", "must be a string or a list"),
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role", "\"robot\""),
            (
                json!([{"role": "user", "content": [{"type": "image_url"}]}]),
                "messages[0].content[0]",
                "\"image_url\"",
            ),
            (json!([{"role": "user", "content": ["x"]}]), "messages[0].content[0]", "must be an object"),
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "messages[0].content[0]",
                "has no text",
            ),
            (
                json!([{"role": "user", "content": "x", "tool_calls": []}]),
                "messages[0].tool_calls",
                "only possible",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": 1}]}]),
                "messages[0].tool_calls[0]",
                "must be {",
            ),
            (json!([{"role": "user", "content": "x", "name": 1}]), "messages[0].name", "must be a string"),
        ] {
            let error = read(messages.clone()).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{messages}: {error}"
            );
            assert!(error.message.contains(part), "{messages}: {error}");
        }
        let long = read(json!([{"role": "x".repeat(1_000_000), "content": "x"}])).unwrap_err();
        assert!(long.message.len() < 300);
    }
}
