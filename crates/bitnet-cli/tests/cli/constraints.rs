//! The flags that say what a text must be.

use serde_json::Value;

use crate::support::{fails, run_with, stdout};

/// A text at a temperature at which the model writes nonsense, without the line end behind it.
fn wild(more: &[&str]) -> String {
    let flags = [
        "generate",
        "Once upon a time",
        "-n",
        "150",
        "-q",
        "--temp",
        "2",
        "--top-k",
        "0",
        "--top-p",
        "1",
        "--seed",
        "5",
    ];
    let text = stdout(&[&flags, more].concat());
    text.strip_suffix('\n').unwrap().to_owned()
}

const SCHEMA: &str = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["name", "age"], "additionalProperties": false}"#;

fn is_person(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap();
    value["name"].is_string() && value["age"].as_u64().unwrap() < 100 && value.as_object().unwrap().len() == 2
}

#[test]
fn each_kind_has_its_flag() {
    assert!(is_person(&wild(&["--json-schema", SCHEMA])));
    assert!(wild(&["--json-object"]).starts_with('{'));
    let date = wild(&["--regex", "[0-9]{4}-[0-9]{2}"]);
    assert!(date.len() == 7 && date.as_bytes()[4] == b'-', "{date}");
    assert!(["yes!", "no!"].contains(&wild(&["--grammar", "root ::= (\"yes\" | \"no\") \"!\""]).as_str()));
    assert!(["a", "b"].contains(&wild(&["--grammar", "start: /[ab]/", "--grammar-type", "lark"]).as_str()));
    assert_eq!(wild(&["--grammar", "%llguidance {}\nstart: \"x\" \"y\""]), "xy");
    assert!(["-cat", "a dog"].contains(&wild(&["--choice", "-cat", "--choice", "a dog"]).as_str()));
}

#[test]
fn schemas_and_grammars_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    assert!(is_person(&wild(&["--json-schema", &file("person.json", SCHEMA)])));
    let list = file("list.gbnf", "# numbers\nroot ::= n (\",\" n){1,3}\nn ::= [1-9]\n");
    for flag in ["--grammar", "--grammar-file"] {
        let text = wild(&[flag, &list]);
        assert!(text.split(',').all(|n| n.len() == 1) && text.contains(','), "{text}");
    }
    let lark = file("word.lark", "start: WORD\nWORD: /[a-z]{3}/\n");
    assert_eq!(wild(&["--grammar", &lark]).len(), 3);
    let missing = folder.path().join("missing.json");
    fails(&["generate", "Hi", "--json-schema", missing.to_str().unwrap()], 1, &["missing.json"]);
}

#[test]
fn the_end_is_told() {
    let json = |more: &[&str]| -> Value {
        let flags = ["generate", "Hi", "-q", "--json", "--regex", "[a-z]{30}", "--seed", "1"];
        serde_json::from_str(&stdout(&[&flags, more].concat())).unwrap()
    };
    assert_eq!(json(&[])["finish"], "stop");
    assert_eq!(json(&["-n", "2"])["finish"], "length");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let fails = |more: &[&str], parts: &[&str]| {
        fails(&[&["generate", "Hi", "-q", "-n", "2"], more].concat(), 2, parts);
    };
    fails(&["--json-schema", "{\"type\": "], &["no JSON", "line 1"]);
    fails(&["--json-schema", r#"{"items": {"not": {}}}"#], &["/items/not"]);
    fails(&["--regex", "a("], &["unclosed group"]);
    fails(&["--grammar", "root ::= x"], &["line 1, column 10", "not defined"]);
    fails(&["--choice", ""], &["empty"]);
    fails(&["--choice", "a", "--regex", "a"], &["cannot be used with"]);
    fails(&["--grammar-type", "lark"], &["--grammar-type"]);
}

#[test]
fn answers_of_a_chat_can_be_constrained() {
    let output = run_with(&["chat", "-q", "--choice", "yes", "--choice", "no"], "Is it so?\nReally?\n");
    let answers: Vec<&str> = output.stdout.lines().collect();
    assert!(answers.len() == 2 && answers.iter().all(|text| ["yes", "no"].contains(text)), "{output:?}");
}
