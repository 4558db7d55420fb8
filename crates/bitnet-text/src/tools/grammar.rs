//! [`ToolFormat::grammar`]: a grammar of nothing but calls, in which every call has arguments of its function's schema.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{CALL_BEGIN, CALL_END, ToolFormat, function, name};

impl ToolFormat {
    /// A Lark grammar (with llguidance's `%json`) of a text that calls these tools: one call, or one or more with `many`.
    /// White space is fixed, so that a model cannot write of it without end.
    pub fn grammar(self, tools: &[Value], many: bool) -> String {
        let mut grammar = match (self, many) {
            (Self::Tagged, false) => format!("start: block\nblock: {}\n", block()),
            (Self::Tagged, true) => format!("start: block (\"\\n\" block)*\nblock: {}\n", block()),
            (Self::Json, false) => "start: call\n".to_owned(),
            (Self::Json, true) => "start: call (\"; \" call)*\n".to_owned(),
            (Self::Mistral, false) => "start: \"[\" call \"]\"\n".to_owned(),
            (Self::Mistral, true) => "start: \"[\" call (\", \" call)* \"]\"\n".to_owned(),
        };
        let calls: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
        let _ = writeln!(grammar, "call: {}", calls.join(" | "));
        for (index, tool) in tools.iter().enumerate() {
            let (name, key) = (Value::from(name(tool)), self.arguments_key());
            let head = quoted(&format!("{{\"name\": {name}, \"{key}\": "));
            let _ = writeln!(grammar, "call_{index}: {head} arguments_{index} \"}}\"");
            let _ = writeln!(grammar, "arguments_{index}: %json {}", schema(tool));
        }
        grammar
    }
}

fn block() -> String {
    format!("{} call {}", quoted(&format!("{CALL_BEGIN}\n")), quoted(&format!("\n{CALL_END}")))
}

/// A string of Lark, whose escapes are those of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The schema of a tool's arguments: an object, without further fields unless the tool allows them.
fn schema(tool: &Value) -> Value {
    let given = function(tool).get("parameters").and_then(Value::as_object);
    let mut schema = given.cloned().unwrap_or_else(Map::new);
    schema.entry("type").or_insert_with(|| json!("object"));
    let composed = ["$ref", "allOf", "anyOf", "oneOf"].iter().any(|key| schema.contains_key(*key));
    if !composed {
        schema.entry("properties").or_insert_with(|| json!({}));
        schema.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    // What of a schema cannot be enforced is refused only where the tool insists on all of it.
    let lenient = function(tool).get("strict") != Some(&Value::Bool(true));
    let fixed = json!({
        "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "lenient": lenient,
    });
    schema.insert("x-guidance".to_owned(), fixed);
    Value::Object(schema)
}
