//! Calls of functions in the text of a model.
//!
//! Models write calls in the form that they were trained on, which their chat template shows: [`ToolFormat`] recognises
//! it, [`ToolParser`] takes calls out of a text while it is being generated, and [`ToolFormat::grammar`] forces one.
//!
//! Where the template knows no tools, the prompt tells the model of them and of this convention (that of the Hermes and
//! Qwen models, which many others have seen):
//!
//! ```text
//! <tool_call>
//! {"name": "weather", "arguments": {"city": "Oslo"}}
//! </tool_call>
//! ```
//!
//! one such block a call, in a turn of the model. Results come back in the next turn of the user as
//!
//! ```text
//! <tool_response>
//! weather: 3 °C, rain
//! </tool_response>
//! ```
//!
//! in the order of the calls. The definitions stand in the system message, each as JSON on a line of its own.

mod call;
mod grammar;
mod parser;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use parser::{ToolEvent, ToolParser};

/// What begins a call of [`ToolFormat::Tagged`].
pub(crate) const CALL_BEGIN: &str = "<tool_call>";
/// What ends one.
pub(crate) const CALL_END: &str = "</tool_call>";
/// What begins the result of a call in the text of a turn.
pub(crate) const RESULT_BEGIN: &str = "<tool_response>";
/// What ends it.
pub(crate) const RESULT_END: &str = "</tool_response>";

/// The form in which a model calls functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolFormat {
    /// JSON with `name` and `arguments` between `<tool_call>` and `</tool_call>`, as Hermes and Qwen models write it. A
    /// text that is such JSON and nothing else counts as well, if it names a tool of the request.
    Tagged,
    /// JSON with `name` and `parameters` as the whole text, as Llama 3 models write it, perhaps after `<|python_tag|>`.
    Json,
    /// `[TOOL_CALLS]` before a list of JSON objects with `name` and `arguments`, or before a name and its arguments, as
    /// Mistral models write it.
    Mistral,
}

impl ToolFormat {
    /// The form that a template with support for tools shows in its source; [`Tagged`](Self::Tagged) if it shows none.
    pub fn of_template(source: &str) -> Self {
        if source.contains("[TOOL_CALLS]") {
            Self::Mistral
        } else if source.contains(CALL_BEGIN) {
            Self::Tagged
        } else if source.contains("<|python_tag|>") || source.contains("\"parameters\":") {
            Self::Json
        } else {
            Self::Tagged
        }
    }

    /// The field that holds a call's arguments.
    pub fn arguments_key(self) -> &'static str {
        if self == Self::Json { "parameters" } else { "arguments" }
    }

    /// Spellings that mark calls. Where they are special tokens, the text of a generation lacks them, and
    /// [`ToolParser::special`] wants to hear of them.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Tagged => &[CALL_BEGIN, CALL_END],
            Self::Json => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]"],
        }
    }
}

/// The function that a tool is, in OpenAI's form: what is under `function`, or the value itself.
fn function(tool: &Value) -> &Value {
    tool.get("function").unwrap_or(tool)
}

/// The name of a tool's function; empty if it has none.
fn name(tool: &Value) -> &str {
    function(tool).get("name").and_then(Value::as_str).unwrap_or_default()
}

/// What the system message says about tools.
pub(crate) fn instructions(tools: &[Value]) -> String {
    let mut text = format!(
        "You can call functions. A call is written like this, and nothing else is written with it:\n\
         {CALL_BEGIN}\n{{\"name\": \"name of the function\", \"arguments\": {{\"name of an argument\": \"its value\"}}}}\n\
         {CALL_END}\nEach call is such a block of its own. What a function returns comes back between {RESULT_BEGIN} and \
         {RESULT_END}. Where no function helps, answer in words.\n\
         These are the functions, each with the JSON schema of its arguments:"
    );
    for tool in tools {
        text.push('\n');
        text.push_str(&function(tool).to_string());
    }
    text
}
