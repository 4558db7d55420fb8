//! Messages as ollama writes them, and what they are to a chat template.

use bitnet_text::{ChatMessage, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// One turn.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Message {
    role: String,
    content: Option<String>,
    images: Option<Vec<Value>>,
    tool_calls: Option<Vec<Call>>,
    /// The function whose result this is.
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Call {
    id: Option<String>,
    function: Function,
}

#[derive(Debug, Clone, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
}

/// Reads the turns into the messages of a chat template. `knows_role` tells of roles beside the usual ones.
///
/// # Errors
/// 400 naming the place: an unknown role, images, a result that no call precedes.
pub(super) fn messages(
    turns: Vec<Message>,
    knows_role: impl Fn(&str) -> bool,
) -> Result<Vec<ChatMessage>, ApiError> {
    let mut messages: Vec<ChatMessage> = Vec::with_capacity(turns.len());
    for (index, turn) in turns.into_iter().enumerate() {
        let wrong =
            |field: &str, message: String| ApiError::bad_param(format!("messages[{index}].{field}"), message);
        if !["system", "user", "assistant", "tool"].contains(&turn.role.as_str()) && !knows_role(&turn.role) {
            let role: String = turn.role.chars().take(40).collect();
            let allowed = "\"system\", \"user\", \"assistant\" or \"tool\"";
            return Err(wrong("role", format!("messages[{index}].role is {role:?}; it must be {allowed}")));
        }
        if turn.images.is_some_and(|images| !images.is_empty()) {
            let message = format!("messages[{index}] has images, but this model reads text only");
            return Err(wrong("images", message));
        }
        let tool_calls = turn.tool_calls.unwrap_or_default().into_iter().enumerate();
        let tool_calls: Vec<ToolCall> = tool_calls.map(|(number, call)| call.read(index, number)).collect();
        let tool_call_id = (turn.role == "tool").then(|| {
            // Clients that know no ids answer calls in their order.
            turn.tool_call_id.or_else(|| open_call(&messages, turn.tool_name.as_deref()))
        });
        messages.push(ChatMessage {
            role: turn.role,
            content: turn.content.unwrap_or_default(),
            tool_calls,
            tool_call_id: tool_call_id.flatten(),
            name: turn.tool_name,
        });
    }
    Ok(messages)
}

impl Call {
    fn read(self, message: usize, number: usize) -> ToolCall {
        let arguments = match self.function.arguments {
            Value::Null => Value::Object(Map::new()),
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            other => other,
        };
        let id = self.id.unwrap_or_else(|| format!("call{:05}", message * 100 + number));
        ToolCall { id: Some(id), name: self.function.name, arguments }
    }
}

/// The first call of the last turn with calls that has no result yet, of this function if its name is known.
fn open_call(messages: &[ChatMessage], name: Option<&str>) -> Option<String> {
    let last = messages.iter().rposition(|message| !message.tool_calls.is_empty())?;
    let answered: Vec<&str> =
        messages[last + 1..].iter().filter_map(|message| message.tool_call_id.as_deref()).collect();
    let open = messages[last].tool_calls.iter().filter(|call| name.is_none_or(|name| name == call.name));
    open.filter_map(|call| call.id.clone()).find(|id| !answered.contains(&id.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(turns: Value) -> Result<Vec<ChatMessage>, ApiError> {
        messages(serde_json::from_value(turns).unwrap(), |_| false)
    }

    #[test]
    fn plain_turns() {
        let turns =
            json!([{"role": "system", "content": "s"}, {"role": "user", "content": "u", "images": null}]);
        assert_eq!(read(turns).unwrap(), [ChatMessage::system("s"), ChatMessage::user("u")]);
    }

    #[test]
    fn results_find_their_calls() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"x": 1}}});
        let turns = json!([
            {"role": "assistant", "content": "", "tool_calls": [call("f"), call("g"), call("f")]},
            {"role": "tool", "content": "1", "tool_name": "f"},
            {"role": "tool", "content": "2", "tool_name": "f"},
            {"role": "tool", "content": "3"},
        ]);
        let messages = read(turns).unwrap();
        let ids: Vec<Option<&str>> =
            messages[1..].iter().map(|message| message.tool_call_id.as_deref()).collect();
        let calls: Vec<Option<&str>> = messages[0].tool_calls.iter().map(|call| call.id.as_deref()).collect();
        assert_eq!(ids, [calls[0], calls[2], calls[1]]);
        assert_eq!(messages[0].tool_calls[0].arguments, json!({"x": 1}));
        assert_eq!(messages[1].name.as_deref(), Some("f"));
        assert_eq!(read(json!([{"role": "tool", "content": "x"}])).unwrap()[0].tool_call_id, None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (turn, part) in [
            (json!({"role": "robot", "content": "x"}), "messages[0].role is \"robot\""),
            (json!({"role": "user", "content": "x", "images": ["aGk="]}), "images"),
        ] {
            let error = read(json!([turn])).unwrap_err();
            assert!(error.message.contains(part) && error.status.as_u16() == 400, "{error}");
        }
    }
}
