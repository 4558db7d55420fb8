//! `bitnet chat PROMPT` and `bitnet run MODEL PROMPT`: one answer, with what comes from stdin; tools.

use serde_json::Value;

use crate::support::{fails, run, run_with, stdout};

const FLAGS: &[&str] = &["--seed", "5", "-n", "12", "-q"];

fn chat<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["chat"], FLAGS, more].concat()
}

#[test]
fn a_prompt_is_answered_once() {
    let answer = stdout(&chat(&["Tell", "me", "a", "story."]));
    assert!(answer.trim().len() > 3 && answer.ends_with('\n'), "{answer:?}");
    assert_eq!(answer, run_with(&chat(&[]), "Tell me a story.\n").stdout, "as a line of stdin is");
    assert_eq!(answer, stdout(&[&["run", "bitnet-tiny"], FLAGS, &["Tell me", "a story."]].concat()));
    assert_eq!(answer, run_with(&[&["run", "bitnet-tiny"], FLAGS].concat(), "Tell me a story.\n").stdout);
}

#[test]
fn what_is_piped_in_comes_before_the_prompt() {
    let piped = run_with(&chat(&["Summarise."]), "The fox is red.\nThe sea is blue.\n");
    let typed = stdout(&chat(&["The fox is red.\nThe sea is blue.\n\nSummarise."]));
    assert_eq!(piped.stdout, typed);
    let run = run_with(
        &[&["run", "bitnet-tiny", "Summarise."], FLAGS].concat(),
        "The fox is red.\nThe sea is blue.\n",
    );
    assert_eq!(run.stdout, typed);
}

#[test]
fn run_has_the_flags_of_ollama() {
    let folder = tempfile::tempdir().unwrap();
    crate::support::write_model(folder.path());
    let model = folder.path().to_str().unwrap();
    let flags = ["--seed", "5", "-n", "60", "--nowordwrap"];
    let output = run(&[&["run", model, "A fox.", "--format", "json", "--verbose"], &flags[..]].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.starts_with('{'), "{output:?}");
    for part in ["total duration", "load duration", "prompt eval count", "eval rate"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    let schema = r#"{"type": "string", "enum": ["fox"]}"#;
    let json = stdout(&["run", model, "-q", "--format", schema, "What is red?"]);
    assert_eq!(json.trim(), "\"fox\"");
    fails(&["run", model, "--format", "json", "--regex", "a", "Hi"], 2, &["cannot be used with"]);
    fails(&["run", model], 2, &["no prompt"]);
    fails(&["run", "no/such/model/here", "Hi"], 1, &["no/such/model/here"]);
    fails(&["run"], 2, &["MODEL"]);
}

const TOOLS: &str = r#"[{"type": "function", "function": {"name": "weather", "description": "Weather of a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]"#;
const CALL: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

#[test]
fn calls_are_printed_where_nobody_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let tools = folder.path().join("tools.json");
    std::fs::write(&tools, TOOLS).unwrap();
    let tools = tools.to_str().unwrap();
    let printed = stdout(&["chat", "-q", "--tools", tools, "--choice", CALL, "Is it cold?"]);
    let value: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value["tool_calls"][0]["function"]["name"], "weather");
    assert_eq!(value["tool_calls"][0]["function"]["arguments"]["city"], "Oslo");
    fails(&["chat", "-q", "--tools", "missing.json", "Hi"], 1, &["missing.json"]);
    fails(&["chat", "-q", "--tool-command", "cat", "Hi"], 2, &["--tools"]);
}

#[test]
#[cfg(unix)]
fn a_command_runs_calls_and_its_output_is_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let tools = folder.path().join("tools.json");
    std::fs::write(&tools, TOOLS).unwrap();
    let log = folder.path().join("calls.txt");
    let command = format!("tee -a {} >/dev/null; echo 3 degrees", log.display());
    let flags = ["chat", "--tools", tools.to_str().unwrap(), "--tool-command", &command, "--choice", CALL];
    let lines = "Is it cold?\n/show messages\n";
    let asked = run_with(&flags, lines);
    assert_eq!(asked.code, Some(2), "nothing is run unasked: {asked:?}");
    assert!(!log.exists() && asked.stderr.contains("--yes"), "{asked:?}");
    // Whatever the model wants to say, it is a call, until the context is full.
    let output = run_with(&[&flags[..], &["--yes"]].concat(), lines);
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in ["(running weather({\"city\":\"Oslo\"}))", "Result of weather:\n3 degrees"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    let calls = std::fs::read_to_string(&log).unwrap();
    let ids: Vec<String> =
        calls.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    let numbered = |(i, id): (usize, &String)| *id == format!("\"call_{}\"", i + 1);
    assert!(ids.len() >= 2 && ids.iter().enumerate().all(numbered), "{ids:?}");
}
