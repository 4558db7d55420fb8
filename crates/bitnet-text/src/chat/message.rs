//! What a conversation consists of: [`ChatMessage`], [`ToolCall`], and [`ChatPrompt`], which has tools beside them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One turn of a conversation. What is absent is not there for a template either.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user` or `assistant`; templates may know others, such as `tool`.
    pub role: String,
    /// What is said.
    pub content: String,
    /// Functions that the model called in this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Name of who speaks, or of the function whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ChatMessage {
    /// A turn of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Instructions that stand before the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What a function that the model called gave back.
    pub fn tool(call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(call_id.into()), ..Self::new("tool", content) }
    }
}

/// A call of a function by the model. In JSON it has OpenAI's form, with the arguments as a value; text that holds JSON is
/// read as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireCall", into = "WireCall")]
pub struct ToolCall {
    /// What its result refers to.
    pub id: Option<String>,
    /// The function.
    pub name: String,
    /// Its arguments, an object as a rule.
    pub arguments: Value,
}

#[derive(Serialize, Deserialize)]
struct WireCall {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default = "function", rename = "type")]
    kind: String,
    function: WireFunction,
}

#[derive(Serialize, Deserialize)]
struct WireFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

fn function() -> String {
    "function".to_owned()
}

impl From<WireCall> for ToolCall {
    fn from(wire: WireCall) -> Self {
        let arguments = match wire.function.arguments {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            other => other,
        };
        Self { id: wire.id, name: wire.function.name, arguments }
    }
}

impl From<ToolCall> for WireCall {
    fn from(call: ToolCall) -> Self {
        let function = WireFunction { name: call.name, arguments: call.arguments };
        Self { id: call.id, kind: self::function(), function }
    }
}

/// A conversation with all that its prompt may depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatPrompt {
    /// The turns so far.
    pub messages: Vec<ChatMessage>,
    /// The functions that the model may call, in OpenAI's form: `{"type": "function", "function": {"name", "description",
    /// "parameters"}}`.
    pub tools: Vec<Value>,
    /// Whether the model goes on with the last turn, which must be its own, instead of beginning a new one.
    pub continue_final: bool,
    /// Further variables of the template, such as `enable_thinking`.
    pub kwargs: Map<String, Value>,
}

impl ChatPrompt {
    /// A conversation without tools, to be answered.
    pub fn new(messages: Vec<ChatMessage>) -> Self {
        Self { messages, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_messages_have_two_fields_only() {
        let message = serde_json::to_value(ChatMessage::user("x")).unwrap();
        assert_eq!(message, json!({"role": "user", "content": "x"}));
    }

    #[test]
    fn calls_have_the_form_of_openai() {
        let call = ToolCall { id: Some("c1".to_owned()), name: "f".to_owned(), arguments: json!({"a": 1}) };
        let wire = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}});
        assert_eq!(serde_json::to_value(&call).unwrap(), wire);
        let text = json!({"id": "c1", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
        for wire in [wire, text] {
            assert_eq!(serde_json::from_value::<ToolCall>(wire).unwrap(), call);
        }
        let broken = json!({"function": {"name": "f", "arguments": "{\"a\""}});
        let broken: ToolCall = serde_json::from_value(broken).unwrap();
        assert_eq!((broken.id, broken.arguments), (None, json!("{\"a\"")));
    }
}
