//! Texts with calls in them, in every form, in chunks of every size.

use serde_json::json;

use super::*;

/// The events of a text that comes in chunks of `size` characters, joined where they belong together.
fn events(format: ToolFormat, text: &str, size: usize) -> Vec<ToolEvent> {
    run(ToolParser::new(format, vec!["f".to_owned(), "g".to_owned()]), text, size)
}

fn run(mut parser: ToolParser, text: &str, size: usize) -> Vec<ToolEvent> {
    let characters: Vec<char> = text.chars().collect();
    let mut events: Vec<ToolEvent> = Vec::new();
    let mut add = |more: Vec<ToolEvent>| {
        for event in more {
            match (events.last_mut(), event) {
                (Some(ToolEvent::Text(last)), ToolEvent::Text(text)) => last.push_str(&text),
                (
                    Some(ToolEvent::Arguments { index: a, json: last }),
                    ToolEvent::Arguments { index: b, json },
                ) if *a == b => {
                    last.push_str(&json);
                }
                (_, event) => events.push(event),
            }
        }
    };
    for chunk in characters.chunks(size) {
        add(parser.push(&chunk.iter().collect::<String>()));
    }
    add(parser.finish());
    events
}

fn text(text: &str) -> ToolEvent {
    ToolEvent::Text(text.to_owned())
}

fn call(index: usize, name: &str, arguments: &str) -> [ToolEvent; 2] {
    [
        ToolEvent::Call { index, name: name.to_owned() },
        ToolEvent::Arguments { index, json: arguments.to_owned() },
    ]
}

fn check(format: ToolFormat, cases: &[(&str, Vec<ToolEvent>)]) {
    for (source, expected) in cases {
        for size in [1, 2, 3, 5, 8, 1000] {
            assert_eq!(&events(format, source, size), expected, "{source:?} in chunks of {size}");
        }
    }
}

#[test]
fn tagged_calls() {
    let two = [call(0, "f", "{\"a\": \"}<\\\"\"}"), call(1, "other", "{}")].concat();
    check(
        ToolFormat::Tagged,
        &[
            ("Hello <b> <tool", vec![text("Hello <b> <tool")]),
            (
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"b\": \"]\"}]}}\n</tool_call>",
                call(0, "f", "{\"a\": [1, {\"b\": \"]\"}]}").to_vec(),
            ),
            (
                "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"}<\\\"\"}}</tool_call>\n<tool_call>\n{\"name\":\"other\"}</tool_call>\n",
                two.clone(),
            ),
            // The end tag is missing.
            (
                "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"}<\\\"\"}}\n<tool_call>\n{\"name\":\"other\"}",
                two,
            ),
            (
                "Let me see.\n<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call> done",
                [vec![text("Let me see.")], call(0, "f", "{\"a\": 1}").to_vec(), vec![text(" done")]]
                    .concat(),
            ),
            // Arguments as a string, and none.
            (
                "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
                call(0, "f", "{\"a\": 1}").to_vec(),
            ),
            (
                "<tool_call>{\"id\": 7, \"name\": \"f\", \"arguments\": null}</tool_call>",
                call(0, "f", "{}").to_vec(),
            ),
            // What is no call stays text.
            ("<<tool_call>x</tool_call>", vec![text("<<tool_call>x</tool_call>")]),
            ("<tool_call>{\"name\": 3}", vec![text("<tool_call>{\"name\": 3}")]),
            ("<tool_call>{\"name\": \"f\"", vec![text("<tool_call>{\"name\": \"f\"")]),
            ("{\"city\": {\"name\": \"f\"}}", vec![text("{\"city\": {\"name\": \"f\"}}")]),
            ("{\"name\": \"Bob\", \"arguments\": {}}", vec![text("{\"name\": \"Bob\", \"arguments\": {}}")]),
            ("{\"name\": \"f\"} <tool_", [call(0, "f", "{}").to_vec(), vec![text("<tool_")]].concat()),
            ("", vec![]),
            (" \n", vec![text(" \n")]),
            // Cut off.
            ("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x", call(0, "f", "{\"a\": \"x").to_vec()),
        ],
    );
}

#[test]
fn calls_of_llama() {
    check(
        ToolFormat::Json,
        &[
            ("{\"name\": \"f\", \"parameters\": {\"a\": 1}}", call(0, "f", "{\"a\": 1}").to_vec()),
            (
                " {\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"b\": null}}",
                [call(0, "f", "{}"), call(1, "g", "{\"b\": null}")].concat(),
            ),
            // Behind the mark every name counts.
            ("<|python_tag|>{\"name\": \"x\", \"parameters\": {}}", call(0, "x", "{}").to_vec()),
            ("<|python_tag|>print(1)", vec![text("<|python_tag|>print(1)")]),
            ("It is {\"name\": \"f\"}", vec![text("It is {\"name\": \"f\"}")]),
            ("{\"name\": \"x\", \"parameters\": {}}", vec![text("{\"name\": \"x\", \"parameters\": {}}")]),
        ],
    );
    let mut parser = ToolParser::new(ToolFormat::Json, vec![]);
    assert_eq!(parser.special("<|eom_id|>"), []);
    assert_eq!(parser.special("<|python_tag|>"), []);
    assert_eq!(parser.push("{\"name\": \"x\", \"parameters\": {}}"), call(0, "x", "{}"));
}

#[test]
fn calls_of_mistral() {
    check(
        ToolFormat::Mistral,
        &[
            (
                "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"123456789\"}, {\"name\": \"x\", \"arguments\": {}}]",
                [call(0, "f", "{\"a\": 1}"), call(1, "x", "{}")].concat(),
            ),
            ("[TOOL_CALLS]f[ARGS]{\"a\": 1}", call(0, "f", "{\"a\": 1}").to_vec()),
            (
                "[TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g{}",
                [call(0, "f", "{\"a\": 1}"), call(1, "g", "{}")].concat(),
            ),
            ("[1] [TOOL", vec![text("[1] [TOOL")]),
            ("{\"name\": \"f\"}", vec![text("{\"name\": \"f\"}")]),
        ],
    );
}

#[test]
fn names_come_before_arguments_are_complete() {
    let mut parser = ToolParser::new(ToolFormat::Tagged, vec![]);
    assert_eq!(parser.push("<tool_call>{\"name\": \"f\", \"argu"), []);
    let begun = ToolEvent::Call { index: 0, name: "f".to_owned() };
    let part = |json: &str| ToolEvent::Arguments { index: 0, json: json.to_owned() };
    assert_eq!(parser.push("ments\": {\"a"), [begun, part("{\"a")]);
    assert_eq!(parser.push("\": \"b"), [part("\": \"b")]);
    assert_eq!(parser.push("\"}}</tool"), [part("\"}")]);
    assert_eq!((parser.finish(), parser.calls()), (vec![], 1));
}

#[test]
fn a_single_call_ends_the_text() {
    let text = "<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"g\"}</tool_call> more";
    let single = || ToolParser::new(ToolFormat::Tagged, vec![]).single();
    for size in [1, 1000] {
        assert_eq!(run(single(), text, size), call(0, "f", "{}"));
    }
    let mut parser = single();
    parser.push(text);
    assert!(parser.is_closed());
}

#[test]
fn formats_are_recognised() {
    for (source, format) in [
        ("{{ '[TOOL_CALLS]' }}", ToolFormat::Mistral),
        ("<tool_call>\n", ToolFormat::Tagged),
        ("{{- '<|python_tag|>' }}", ToolFormat::Json),
        ("{\"name\": function name, \"parameters\": dictionary}", ToolFormat::Json),
        ("{{ messages }}", ToolFormat::Tagged),
    ] {
        assert_eq!(ToolFormat::of_template(source), format, "{source}");
    }
}

#[test]
fn grammars_hold_the_schema_of_every_tool() {
    let tools = [
        json!({"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}),
        json!({"type": "function", "function": {"name": "g\""}}),
    ];
    let fixed = r#""x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": ","lenient":true}"#;
    let expected = [
        "start: block (\"\\n\" block)*".to_owned(),
        r#"block: "<tool_call>\n" call "\n</tool_call>""#.to_owned(),
        "call: call_0 | call_1".to_owned(),
        r#"call_0: "{\"name\": \"f\", \"arguments\": " arguments_0 "}""#.to_owned(),
        format!(
            r#"arguments_0: %json {{"type":"object","properties":{{"a":{{"type":"integer"}}}},"required":["a"],"additionalProperties":false,{fixed}}}"#
        ),
        r#"call_1: "{\"name\": \"g\\\"\", \"arguments\": " arguments_1 "}""#.to_owned(),
        format!(
            r#"arguments_1: %json {{"type":"object","properties":{{}},"additionalProperties":false,{fixed}}}"#
        ),
        String::new(),
    ];
    assert_eq!(ToolFormat::Tagged.grammar(&tools, true), expected.join("\n"));
    let one = ToolFormat::Json.grammar(&tools[..1], false);
    assert!(
        one.starts_with(
            "start: call\ncall: call_0\ncall_0: \"{\\\"name\\\": \\\"f\\\", \\\"parameters\\\": \""
        ),
        "{one}"
    );
    assert!(
        ToolFormat::Mistral.grammar(&tools, true).starts_with("start: \"[\" call (\", \" call)* \"]\"\n")
    );
}

#[test]
fn instructions_name_every_tool() {
    let tool = json!({"type": "function", "function": {"name": "f", "description": "d"}});
    let text = instructions(&[tool, json!({"name": "g"})]);
    assert!(text.ends_with("\n{\"name\":\"f\",\"description\":\"d\"}\n{\"name\":\"g\"}"), "{text}");
}

proptest::proptest! {
    /// Whatever comes, nothing is lost before the first call, and the chunks do not matter.
    #[test]
    fn chunks_do_not_matter(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "<tool_call>", "</tool_call>", "{", "}", "\"name\"", "\"arguments\"", ":", ",", "\"f\"", " ", "x", "<", "\\", "\"", "[TOOL_CALLS]", "[", "]", "<|python_tag|>", "é",
        ]), 0..24),
        size in 1_usize..6,
    ) {
        let source = pieces.concat();
        for format in [ToolFormat::Tagged, ToolFormat::Json, ToolFormat::Mistral] {
            let whole = events(format, &source, usize::MAX);
            proptest::prop_assert_eq!(&events(format, &source, size), &whole);
            if whole.iter().all(|event| matches!(event, ToolEvent::Text(_))) {
                let joined: String = whole.iter().map(|e| match e { ToolEvent::Text(t) => t.as_str(), _ => "" }).collect();
                proptest::prop_assert_eq!(&joined, &source);
            }
        }
    }
}
