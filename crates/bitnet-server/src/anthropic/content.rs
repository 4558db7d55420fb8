//! Turns of a conversation as Anthropic's API writes them, and what they are to a chat template.

use std::collections::HashMap;

use bitnet_text::{ChatMessage, ToolCall};
use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;

/// Text, or blocks of content.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of content blocks")]
pub(super) enum Content {
    /// Text.
    Text(String),
    /// Blocks, of which the type says what they are.
    Blocks(Vec<Value>),
}

/// One turn.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Turn {
    /// Who speaks.
    pub(super) role: String,
    /// What is said.
    pub(super) content: Content,
}

/// A block by its type.
enum Block {
    Text(String),
    Call(ToolCall),
    Result {
        id: String,
        text: String,
    },
    /// Nothing that a prompt contains.
    Left,
}

/// Reads the turns into the messages of a chat template.
///
/// # Errors
/// 400 naming the place: an unknown role or block, a block where it cannot be, content that is not text.
pub(super) fn messages(turns: Vec<Turn>) -> Result<Vec<ChatMessage>, ApiError> {
    let mut messages = Vec::with_capacity(turns.len());
    // The names of functions by the ids of their calls, since results only tell the id.
    let mut names: HashMap<String, String> = HashMap::new();
    for (index, turn) in turns.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        if !["user", "assistant", "system"].contains(&turn.role.as_str()) {
            let role: String = turn.role.chars().take(40).collect();
            let message = format!("{place}.role is {role:?}; it must be \"user\" or \"assistant\"");
            return Err(ApiError::bad_param(format!("{place}.role"), message));
        }
        let mut message = ChatMessage::new(turn.role, "");
        for block in blocks(turn.content, &format!("{place}.content"))? {
            match block {
                Block::Text(text) => append(&mut message.content, &text),
                Block::Call(call) => {
                    allowed(&message.role, "assistant", "tool_use", &place)?;
                    names.insert(call.id.clone().unwrap_or_default(), call.name.clone());
                    message.tool_calls.push(call);
                }
                Block::Result { id, text } => {
                    allowed(&message.role, "user", "tool_result", &place)?;
                    let name = names.get(&id).cloned().ok_or_else(|| {
                        let shown: String = id.chars().take(80).collect();
                        let message = format!(
                            "{place}.content has the result of {shown:?}, a call that no turn before it makes"
                        );
                        ApiError::bad_param(format!("{place}.content"), message)
                    })?;
                    messages.push(ChatMessage { name: Some(name), ..ChatMessage::tool(id, text) });
                }
                Block::Left => {}
            }
        }
        // A turn of nothing but results is the results.
        let is_empty = message.content.is_empty() && message.tool_calls.is_empty();
        if !(is_empty && messages.last().is_some_and(|last: &ChatMessage| last.role == "tool")) {
            messages.push(message);
        }
    }
    Ok(messages)
}

/// The system prompt as text.
///
/// # Errors
/// 400 for blocks other than text.
pub(super) fn system(content: Content) -> Result<String, ApiError> {
    let mut text = String::new();
    for block in blocks(content, "system")? {
        match block {
            Block::Text(part) => append(&mut text, &part),
            Block::Left => {}
            Block::Call(_) | Block::Result { .. } => {
                return Err(ApiError::bad_param("system", "system can have text blocks only"));
            }
        }
    }
    Ok(text)
}

/// Blocks stand on lines of their own.
fn append(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}

fn allowed(role: &str, owner: &str, kind: &str, place: &str) -> Result<(), ApiError> {
    if role == owner {
        return Ok(());
    }
    let message = format!("{place}.content has a {kind} block, which only turns of the {owner} can have");
    Err(ApiError::bad_param(format!("{place}.content"), message))
}

fn blocks(content: Content, place: &str) -> Result<Vec<Block>, ApiError> {
    match content {
        Content::Text(text) => Ok(vec![Block::Text(text)]),
        Content::Blocks(blocks) => blocks
            .iter()
            .enumerate()
            .map(|(index, value)| block(value, &format!("{place}[{index}]")))
            .collect(),
    }
}

fn block(value: &Value, place: &str) -> Result<Block, ApiError> {
    let wrong = |message: String| ApiError::bad_param(place, message);
    let member = |name: &str| {
        let found = value.get(name).and_then(Value::as_str);
        found.map(str::to_owned).ok_or_else(|| wrong(format!("{place}.{name} must be a string")))
    };
    let kind = member("type")?;
    match kind.as_str() {
        "text" => Ok(Block::Text(member("text")?)),
        "tool_use" => {
            let arguments =
                value.get("input").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
            if !arguments.is_object() {
                return Err(wrong(format!("{place}.input must be an object")));
            }
            Ok(Block::Call(ToolCall { id: Some(member("id")?), name: member("name")?, arguments }))
        }
        "tool_result" => {
            let mut text = match value.get("content") {
                None | Some(Value::Null) => String::new(),
                Some(content) => result_text(content, place)?,
            };
            if value.get("is_error").and_then(Value::as_bool) == Some(true) {
                text.insert_str(0, "Error: ");
            }
            Ok(Block::Result { id: member("tool_use_id")?, text })
        }
        "document" | "search_result" => document(value, place).map(Block::Text),
        // What a model thought in former turns is not shown to it again.
        "thinking" | "redacted_thinking" => Ok(Block::Left),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(wrong(format!("{place} is a block of type {other:?}, but this model reads text only")))
        }
    }
}

fn result_text(content: &Value, place: &str) -> Result<String, ApiError> {
    let wrong =
        || ApiError::bad_param(place, format!("{place}.content must be a string or a list of text blocks"));
    let content = Content::deserialize(content).map_err(|_| wrong())?;
    let mut text = String::new();
    for block in blocks(content, &format!("{place}.content"))? {
        match block {
            Block::Text(part) => append(&mut text, &part),
            _ => return Err(wrong()),
        }
    }
    Ok(text)
}

/// The text of a document or search result, after its title.
fn document(value: &Value, place: &str) -> Result<String, ApiError> {
    let mut text = value.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(blocks) = value.get("content") {
        append(&mut text, &result_text(blocks, place)?);
        return Ok(text);
    }
    let source = value.get("source");
    let of = |name: &str| source.and_then(|source| source.get(name));
    match (of("type").and_then(Value::as_str), of("data").and_then(Value::as_str), of("content")) {
        (Some("text"), Some(data), _) => append(&mut text, data),
        (Some("content"), _, Some(content)) => append(&mut text, &result_text(content, place)?),
        _ => {
            let message =
                format!("{place} is a document that is not plain text, but this model reads text only");
            return Err(ApiError::bad_param(place, message));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(turns: Value) -> Result<Vec<ChatMessage>, ApiError> {
        messages(serde_json::from_value(turns).unwrap())
    }

    #[test]
    fn text_comes_as_string_or_blocks() {
        let turns = json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": [
                {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
                {"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}},
            ]},
        ]);
        let expected = [ChatMessage::user("a"), ChatMessage::assistant("b"), ChatMessage::user("T\nd\nc")];
        assert_eq!(read(turns).unwrap(), expected);
        let blocks = json!([{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]);
        assert_eq!(system(serde_json::from_value(blocks).unwrap()).unwrap(), "x\ny");
    }

    #[test]
    fn calls_and_results_keep_their_names() {
        let turns = json!([
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "text", "text": "so?"},
            ]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true, "content": "no"}]},
        ]);
        let messages = read(turns).unwrap();
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "user", "assistant", "tool"]);
        let call = ToolCall {
            id: Some("toolu_1".into()),
            name: "weather".into(),
            arguments: json!({"city": "Oslo"}),
        };
        assert_eq!((messages[1].content.as_str(), &messages[1].tool_calls), ("I look.", &vec![call]));
        let result = &messages[2];
        assert_eq!((result.content.as_str(), result.name.as_deref()), ("rain", Some("weather")));
        assert_eq!(messages[5].content, "Error: no");
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (turns, part) in [
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role is \"robot\""),
            (json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]), "\"image\""),
            (json!([{"role": "user", "content": [{"text": "x"}]}]), "messages[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (json!([{"role": "user", "content": [1]}]), "messages[0].content[0].type"),
            (
                json!([{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}]),
                "tool_use",
            ),
            (
                json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": 1}]}]),
                "input",
            ),
            (json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]), "\"a\""),
            (
                json!([{"role": "user", "content": [{"type": "document", "source": {"type": "base64"}}]}]),
                "document",
            ),
        ] {
            let error = read(turns.clone()).unwrap_err();
            assert!(error.message.contains(part), "{turns}: {error}");
            assert!(error.status.as_u16() == 400 && error.param.is_some(), "{turns}: {error}");
        }
    }
}
