//! [`Abilities`]: what a template does with tools and system messages, found out by running it on small conversations.
//! Templates say nowhere what they support; what comes out does.

use serde_json::{Map, Value, json};

use super::{ChatMessage, ChatTemplate, ToolCall};
use crate::tools::ToolFormat;

/// What a template can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It writes system messages.
    pub(super) system: bool,
    /// It writes the definitions of tools.
    pub(super) tools: bool,
    /// It writes the calls in a turn of the model.
    pub(super) calls: bool,
    /// It writes the results of calls.
    pub(super) results: bool,
    /// It takes the arguments of calls as text, not as values.
    pub(super) arguments_as_text: bool,
}

// Words that no template contains; the id has the nine characters that Mistral's insist on.
const FUNCTION: &str = "probefn_qzk";
const ARGUMENT: &str = "probearg_qzk";
const RESULT: &str = "proberesult_qzk";
const SYSTEM: &str = "probesystem_qzk";
const CALL_ID: &str = "call00001";

impl Abilities {
    pub(super) fn of(template: &ChatTemplate) -> Self {
        let parameters =
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
        let tool = json!({
            "type": "function",
            "function": {"name": FUNCTION, "description": "x", "parameters": parameters},
        });
        let run = |messages: &[ChatMessage], tools: &[Value]| {
            template.run(messages, tools, &Map::new(), true).unwrap_or_default()
        };
        let user = || ChatMessage::user("x");
        let system = run(&[ChatMessage::system(SYSTEM), user()], &[]).contains(SYSTEM);
        let tools = run(&[user()], std::slice::from_ref(&tool)).contains(FUNCTION);

        let called = |arguments: Value| {
            let call = ToolCall { id: Some(CALL_ID.to_owned()), name: FUNCTION.to_owned(), arguments };
            ChatMessage { tool_calls: vec![call], ..ChatMessage::assistant("") }
        };
        let as_value = json!({"a": ARGUMENT});
        let as_text = Value::String(as_value.to_string());
        let whole = |text: &str| text.contains(FUNCTION) && text.contains(ARGUMENT);
        let writes = |arguments: &Value| whole(&run(&[user(), called(arguments.clone())], &[]));
        let takes_values = writes(&as_value);
        let arguments_as_text = !takes_values && writes(&as_text);
        let arguments = if arguments_as_text { as_text } else { as_value };
        let result = ChatMessage { name: Some(FUNCTION.to_owned()), ..ChatMessage::tool(CALL_ID, RESULT) };
        let results = run(&[user(), called(arguments), result], &[]).contains(RESULT);
        Self { system, tools, calls: takes_values || arguments_as_text, results, arguments_as_text }
    }
}

impl ChatTemplate {
    pub(super) fn abilities(&self) -> Abilities {
        *self.abilities.get_or_init(|| Abilities::of(self))
    }

    /// Whether the template writes the definitions of tools itself.
    pub fn supports_tools(&self) -> bool {
        self.abilities().tools
    }

    /// How models with this template call tools. Without support for tools in the template it is the convention of
    /// [`tools`](crate::tools), which the prompt explains to the model.
    pub fn tool_format(&self) -> ToolFormat {
        if self.supports_tools() { ToolFormat::of_template(self.source()) } else { ToolFormat::Tagged }
    }

    /// Whether the template names a role, beside `system`, `user`, `assistant` and `tool`, which every conversation may
    /// have. Many templates write any role, but no model knows what they mean.
    pub fn knows_role(&self, role: &str) -> bool {
        ["system", "user", "assistant", "tool"].contains(&role)
            || ['\'', '"'].iter().any(|quote| self.source().contains(&format!("{quote}{role}{quote}")))
    }
}
