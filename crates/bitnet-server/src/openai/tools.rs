//! Functions that a model may call, as bodies have them: `tools`, `tool_choice`, `parallel_tool_calls`.

use bitnet_inference::Constraint;
use bitnet_text::tools::{ToolFormat, ToolParser};
use serde_json::{Map, Value, json};

use super::request::{Body, list, read};
use crate::common::fields::{self, find};
use crate::error::ApiError;

/// Most tools of a request, as in OpenAI's API.
const MOST_TOOLS: usize = 128;

/// Longest name of a function, in bytes.
const LONGEST_NAME: usize = 128;

/// What a request says about calls.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tools {
    /// The functions, in the form `{"type": "function", "function": {..}}`.
    pub(super) tools: Vec<Value>,
    pub(super) choice: Choice,
    /// Whether there may be more than one call.
    pub(super) parallel: Option<bool>,
}

/// Which calls there must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Choice {
    /// None.
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// One of this function.
    Named(String),
}

impl Tools {
    /// Reads the fields of a body, with tools in the form of chat completions or in the flat one of responses.
    pub(super) fn read(body: &Body) -> Result<Self, ApiError> {
        for old in ["functions", "function_call"] {
            if find(body, &[old]).is_some() {
                let message =
                    format!("{old} is the older form and not known here; use tools and tool_choice");
                return Err(ApiError::bad_param(old, message));
            }
        }
        let given = read(body, "tools", list)?.unwrap_or_default();
        if given.len() > MOST_TOOLS {
            let message = format!("{} tools are too many: at most {MOST_TOOLS} are possible", given.len());
            return Err(ApiError::bad_param("tools", message));
        }
        let tools: Vec<Value> = given.iter().enumerate().map(tool).collect::<Result<_, _>>()?;
        let choice = match find(body, &["tool_choice"]) {
            None => Choice::Auto,
            Some((_, value)) => choice(value)?,
        };
        let no_tools = "tool_choice is only possible with tools";
        match &choice {
            Choice::Required | Choice::Named(_) if tools.is_empty() => {
                return Err(ApiError::bad_param("tool_choice", no_tools));
            }
            Choice::Named(name) if !tools.iter().any(|tool| self::name(tool) == name) => {
                let message = format!("tool_choice names the function {name:?}, which is none of the tools");
                return Err(ApiError::bad_param("tool_choice", message));
            }
            _ => {}
        }
        Ok(Self { tools, choice, parallel: read(body, "parallel_tool_calls", fields::truth)? })
    }

    /// The tools that the prompt tells of.
    pub(super) fn in_prompt(&self) -> Vec<Value> {
        if self.choice == Choice::None { Vec::new() } else { self.tools.clone() }
    }

    /// What finds the calls in the text of a model that writes them in this form.
    pub(super) fn parser(&self, format: ToolFormat) -> Option<ToolParser> {
        if self.tools.is_empty() || self.choice == Choice::None {
            return None;
        }
        let names = self.tools.iter().map(|tool| name(tool).to_owned()).collect();
        let mut parser = ToolParser::new(format, names);
        if self.parallel == Some(false) || matches!(self.choice, Choice::Named(_)) {
            parser = parser.single();
        }
        let forced = matches!(self.choice, Choice::Required | Choice::Named(_));
        Some(if forced { parser.forced() } else { parser })
    }

    /// What the text must be, so that it is calls and nothing else. A number of calls that nobody asks for is one: small
    /// models find no end.
    pub(super) fn constraint(&self, format: ToolFormat) -> Option<Constraint> {
        let grammar = match &self.choice {
            Choice::None | Choice::Auto => return None,
            Choice::Required => format.grammar(&self.tools, self.parallel == Some(true)),
            Choice::Named(wanted) => {
                let one: Vec<Value> =
                    self.tools.iter().filter(|tool| name(tool) == wanted).take(1).cloned().collect();
                format.grammar(&one, false)
            }
        };
        Some(Constraint::Lark(grammar))
    }
}

/// The name of a tool that was read.
fn name(tool: &Value) -> &str {
    tool["function"]["name"].as_str().unwrap_or_default()
}

fn tool((index, value): (usize, &Value)) -> Result<Value, ApiError> {
    let at = format!("tools[{index}]");
    let refused =
        |field: &str, what: &str| ApiError::bad_param(format!("{at}{field}"), format!("{at}{field} {what}"));
    let object = value.as_object().ok_or_else(|| refused("", "must be an object"))?;
    match object.get("type") {
        Some(Value::String(kind)) if kind == "function" => {}
        Some(Value::String(kind)) => {
            let kind: String = kind.chars().take(60).collect();
            return Err(refused(".type", &format!("is {kind:?}: only \"function\" is possible")));
        }
        _ => return Err(refused(".type", "is required: \"function\"")),
    }
    // The flat form has everything at the top.
    let (function, inner) = match object.get("function") {
        Some(Value::Object(function)) => (function, ".function"),
        Some(_) => return Err(refused(".function", "must be an object")),
        None => (object, ""),
    };
    let name = match function.get("name") {
        Some(Value::String(name)) if !name.is_empty() && name.len() <= LONGEST_NAME => name,
        _ => {
            let what = format!("is required: a string of 1 to {LONGEST_NAME} bytes");
            return Err(refused(&format!("{inner}.name"), &what));
        }
    };
    let mut kept = Map::new();
    kept.insert("name".to_owned(), json!(name));
    match function.get("description") {
        None | Some(Value::Null) => {}
        Some(text @ Value::String(_)) => {
            kept.insert("description".to_owned(), text.clone());
        }
        Some(_) => return Err(refused(&format!("{inner}.description"), "must be a string")),
    }
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(_) => return Err(refused(&format!("{inner}.parameters"), "must be a JSON schema")),
    };
    kept.insert("parameters".to_owned(), parameters);
    if function.get("strict").and_then(Value::as_bool) == Some(true) {
        kept.insert("strict".to_owned(), Value::Bool(true));
    }
    Ok(json!({"type": "function", "function": kept}))
}

fn choice(value: &Value) -> Result<Choice, ApiError> {
    let refused = || {
        let what = "tool_choice must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\"}}";
        ApiError::bad_param("tool_choice", what)
    };
    match value {
        Value::String(text) => match text.as_str() {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" | "any" => Ok(Choice::Required),
            _ => Err(refused()),
        },
        Value::Object(object) if object.get("type").is_some_and(|kind| kind == "function") => {
            let name = object.get("function").unwrap_or(value).get("name").and_then(Value::as_str);
            name.map(|name| Choice::Named(name.to_owned())).ok_or_else(refused)
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "cases are written as they are passed")]
    fn read(body: Value) -> Result<Tools, ApiError> {
        Tools::read(body.as_object().unwrap())
    }

    fn function(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object"}}})
    }

    #[test]
    fn both_forms_of_tools_are_read() {
        let flat = json!({"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": null});
        let tools = read(json!({"tools": [function("f"), flat]})).unwrap();
        assert_eq!(tools.tools, [function("f"), function("f")]);
        assert_eq!((tools.choice, tools.parallel), (Choice::Auto, None));
        assert_eq!(read(json!({"tools": null, "tool_choice": "none"})).unwrap().choice, Choice::None);
    }

    #[test]
    fn choices_force_calls() {
        let tools = |choice: Value, parallel: Value| {
            let body = json!({"tools": [function("f"), function("g")], "tool_choice": choice, "parallel_tool_calls": parallel});
            read(body).unwrap()
        };
        let grammar = |tools: &Tools| match tools.constraint(ToolFormat::Tagged) {
            Some(Constraint::Lark(grammar)) => grammar,
            other => panic!("{other:?}"),
        };
        let named = tools(json!({"type": "function", "function": {"name": "g"}}), Value::Null);
        assert!(grammar(&named).contains("\\\"g\\\"") && !grammar(&named).contains("\\\"f\\\""));
        let flat = tools(json!({"type": "function", "name": "g"}), Value::Null);
        assert_eq!(flat.choice, named.choice);
        let required = grammar(&tools(json!("required"), Value::Null));
        assert!(required.contains("\\\"f\\\"") && required.starts_with("start: block\n"), "{required}");
        assert!(grammar(&tools(json!("required"), json!(true))).starts_with("start: block ("));
        for (choice, parses) in [("auto", true), ("none", false)] {
            let tools = tools(json!(choice), Value::Null);
            assert_eq!(
                (tools.constraint(ToolFormat::Tagged), tools.parser(ToolFormat::Tagged).is_some()),
                (None, parses)
            );
            assert_eq!(tools.in_prompt().is_empty(), !parses);
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let many: Vec<Value> = (0..129).map(|i| function(&i.to_string())).collect();
        for (body, param) in [
            (json!({"tools": "f"}), "tools"),
            (json!({"tools": many}), "tools"),
            (json!({"tools": [1]}), "tools[0]"),
            (json!({"tools": [{"type": "retrieval"}]}), "tools[0].type"),
            (json!({"tools": [{"function": {}}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function", "function": 1}]}), "tools[0].function"),
            (json!({"tools": [{"type": "function", "function": {"name": ""}}]}), "tools[0].function.name"),
            (json!({"tools": [{"type": "function", "name": "f", "parameters": []}]}), "tools[0].parameters"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tool_choice": "often"}), "tool_choice"),
            (
                json!({"tools": [function("f")], "tool_choice": {"type": "function", "name": "g"}}),
                "tool_choice",
            ),
            (json!({"tools": [function("f")], "parallel_tool_calls": "yes"}), "parallel_tool_calls"),
            (json!({"functions": []}), "functions"),
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
