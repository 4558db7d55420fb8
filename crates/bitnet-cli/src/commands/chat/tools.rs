//! [`Tools`]: functions that the model may call, and who runs them: a program, or the person at the terminal.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bitnet_inference::ToolCall;
use bitnet_text::ChatTemplate;
use bitnet_text::tools::{ToolFormat, ToolParser};
use serde_json::{Value, json};

use crate::args::ToolArgs;
use crate::commands::generate::read;
use crate::error::CliError;
use crate::interrupt;
use crate::output::{self, Notes};

/// Functions, and what becomes of calls.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// In the form of OpenAI's API.
    pub(super) definitions: Vec<Value>,
    command: Option<String>,
    yes: bool,
}

/// What a call gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This text, for the model.
    Result(String),
    /// There is nobody to ask.
    Nobody,
    /// Ctrl-C was pressed.
    Stopped,
}

impl Tools {
    pub(super) fn new(args: &ToolArgs) -> Result<Self, CliError> {
        let definitions = args.tools.as_deref().map(definitions).transpose()?.unwrap_or_default();
        Ok(Self { definitions, command: args.tool_command.clone(), yes: args.yes })
    }

    /// What finds calls in an answer; none without tools.
    pub(super) fn parser(&self, template: Option<&ChatTemplate>) -> Option<ToolParser> {
        let format = template.map_or(ToolFormat::Tagged, ChatTemplate::tool_format);
        let names: Vec<String> =
            self.definitions.iter().filter_map(|tool| Some(name(tool)?.to_owned())).collect();
        (!names.is_empty()).then(|| ToolParser::new(format, names))
    }

    /// Shows a call and gets its result.
    pub(super) fn run(&self, call: &ToolCall, notes: Notes) -> Result<Outcome, CliError> {
        let shown = shown(call);
        let Some(command) = &self.command else {
            if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
                return Ok(Outcome::Nobody);
            }
            notes.say(&format!("(the model calls {shown})"));
            return Ok(output::ask("its result: ").map_or(Outcome::Stopped, Outcome::Result));
        };
        if self.yes {
            notes.say(&format!("(running {shown})"));
        } else if !output::confirm(&format!("the model calls {shown}; run `{command}`?"), false)? {
            return Ok(Outcome::Result("error: the user did not allow this call".to_owned()));
        }
        execute(command, call)
    }

    /// Names and descriptions, one a line.
    pub(super) fn list(&self) -> String {
        let about = |tool: &Value| {
            let text = function(tool)["description"].as_str().unwrap_or_default().to_owned();
            format!("{:<20}{text}", name(tool).unwrap_or_default())
        };
        match self.definitions.is_empty() {
            true => "(no tools; --tools FILE gives some)".to_owned(),
            false => self.definitions.iter().map(about).collect::<Vec<_>>().join("\n"),
        }
    }
}

/// A call in one line, without control characters.
fn shown(call: &ToolCall) -> String {
    let text = format!("{}({})", call.name, call.arguments);
    text.chars().filter(|c| !c.is_control()).collect()
}

fn function(tool: &Value) -> &Value {
    tool.get("function").unwrap_or(tool)
}

fn name(tool: &Value) -> Option<&str> {
    function(tool).get("name").and_then(Value::as_str).filter(|name| !name.is_empty())
}

/// Reads a list of tools: a JSON array, or an object with `tools`; each in the form of OpenAI's API or the function alone.
fn definitions(path: &Path) -> Result<Vec<Value>, CliError> {
    let wrong = |why: &str| {
        CliError::usage(format!("{} is no list of tools: {why}", path.display()))
            .hint("it must be a JSON list of {\"type\": \"function\", \"function\": {\"name\", \"description\", \"parameters\"}}")
    };
    let value: Value = serde_json::from_str(&read(path)?).map_err(|error| wrong(&error.to_string()))?;
    let list = match &value {
        Value::Object(object) => object.get("tools").unwrap_or(&value),
        other => other,
    };
    let list = list.as_array().ok_or_else(|| wrong("it is no JSON list"))?;
    if let Some(index) = list.iter().position(|tool| name(tool).is_none()) {
        return Err(wrong(&format!("entry {} has no name", index + 1)));
    }
    let whole = |tool: &Value| json!({ "type": "function", "function": function(tool) });
    Ok(list.iter().map(whole).collect())
}

/// Runs a command with the call on its standard input; what it writes to its standard output is the result.
fn execute(command: &str, call: &ToolCall) -> Result<Outcome, CliError> {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let failed = |error: std::io::Error| CliError::failed(format!("cannot run `{command}`: {error}"));
    let listening = interrupt::listen();
    let mut child = Command::new(shell)
        .args([flag, command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let input = format!("{}\n", json!({ "id": call.id, "name": call.name, "arguments": call.arguments }));
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that does not read what it is called with may have its reasons.
            let _ = stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
        });
        child.wait_with_output()
    });
    let output = output.map_err(failed)?;
    if interrupt::requested() {
        return Ok(Outcome::Stopped);
    }
    drop(listening);
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    Ok(Outcome::Result(if output.status.success() {
        text
    } else {
        format!("error: the call failed ({})\n{text}", output.status).trim_end().to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> ToolCall {
        ToolCall {
            id: Some("call_1".to_owned()),
            name: "weather".to_owned(),
            arguments: json!({"city": "Oslo"}),
        }
    }

    fn read_list(text: &str) -> Result<Vec<Value>, CliError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tools.json");
        std::fs::write(&path, text).unwrap();
        definitions(&path)
    }

    #[test]
    fn lists_of_tools_are_read_in_all_their_forms() {
        let tool =
            json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}});
        for text in [json!([tool]), json!({"tools": [tool]}), json!([tool["function"]])] {
            assert_eq!(read_list(&text.to_string()).unwrap(), std::slice::from_ref(&tool), "{text}");
        }
        for bad in ["", "{}", "[1]", "[{\"function\": {\"name\": \"\"}}]"] {
            assert!(format!("{:?}", read_list(bad).unwrap_err()).contains("tools.json"), "{bad}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn commands_get_the_call_and_give_the_result() {
        let run = |command| execute(command, &call()).unwrap();
        let echoed =
            Outcome::Result(r#"{"id":"call_1","name":"weather","arguments":{"city":"Oslo"}}"#.to_owned());
        assert_eq!(run("cat"), echoed);
        assert_eq!(run("echo 3 degrees"), Outcome::Result("3 degrees".to_owned()));
        let Outcome::Result(text) = run("echo no; exit 3") else { panic!("it ended") };
        assert!(text.starts_with("error: ") && text.contains('3') && text.ends_with("no"), "{text}");
    }

    #[test]
    fn calls_are_shown_on_one_line() {
        let call = ToolCall { arguments: json!({"a": "b\u{1b}[2J\n"}), ..call() };
        assert!(!shown(&call).contains(['\n', '\u{1b}']), "{}", shown(&call));
    }
}
