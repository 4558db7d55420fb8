//! Calls of functions, and answers in forms.

use serde_json::{Value, json};

use crate::support::{chat, choices, keys, routes, with};

const PATH: &str = "/v1/chat/completions";

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
    }}})
}

fn time() -> Value {
    json!({"type": "function", "function": {"name": "time", "parameters": {
        "type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}}})
}

/// Checks a call of `weather` or `time`.
fn check(name: &str, arguments: &str) {
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    match name {
        "weather" => {
            assert_eq!(keys(&arguments), ["city", "days"]);
            assert!(arguments["city"].as_str().unwrap().chars().count() <= 12);
            assert!((1..10).contains(&arguments["days"].as_i64().unwrap()));
        }
        "time" => assert!(arguments["zone"] == "UTC" || arguments["zone"] == "CET"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn calls_that_are_demanded_always_parse() {
    let routes = routes();
    for (choice, name) in [
        (json!("required"), None),
        (json!({"type": "function", "function": {"name": "time"}}), Some("time")),
        (json!({"type": "function", "function": {"name": "weather"}}), Some("weather")),
    ] {
        for seed in 0..3 {
            let more = json!({"tools": [weather(), time()], "tool_choice": choice, "seed": seed, "temperature": 1.5, "max_tokens": 200});
            let body = with(&chat("Will it rain in Oslo?"), more);
            let told = routes.post(PATH, &body).await;
            let choice = &told["choices"][0];
            assert_eq!(choice["finish_reason"], "tool_calls", "{told}");
            assert_eq!(choice["message"]["content"], Value::Null);
            let calls = choice["message"]["tool_calls"].as_array().unwrap();
            assert_eq!(calls.len(), 1);
            assert_eq!(keys(&calls[0]), ["id", "type", "function"]);
            assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
            let function = &calls[0]["function"];
            let called = function["name"].as_str().unwrap();
            assert!(name.is_none_or(|name| name == called));
            check(called, function["arguments"].as_str().unwrap());

            let streamed = routes.stream(PATH, &body).await;
            let deltas: Vec<&Value> = choices(&streamed.events, 0)
                .filter_map(|c| c["delta"].get("tool_calls"))
                .map(|calls| &calls[0])
                .collect();
            assert_eq!(
                (&deltas[0]["function"]["name"], &deltas[0]["function"]["arguments"]),
                (&json!(called), &json!(""))
            );
            assert!(deltas[0]["id"].is_string() && deltas[0]["type"] == "function");
            assert!(deltas[1..].iter().all(
                |delta| keys(delta) == ["index", "function"] && keys(&delta["function"]) == ["arguments"]
            ));
            let arguments: String =
                deltas.iter().map(|delta| delta["function"]["arguments"].as_str().unwrap()).collect();
            assert_eq!(arguments, function["arguments"].as_str().unwrap());
            assert!(deltas.len() > 2, "the arguments come in pieces");
            let reasons: Vec<&Value> =
                choices(&streamed.events, 0).map(|c| &c["finish_reason"]).filter(|r| !r.is_null()).collect();
            assert_eq!(reasons, ["tool_calls"]);
        }
    }
}

#[tokio::test]
async fn calls_and_results_are_part_of_conversations() {
    let routes = routes();
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\", \"days\": 1}"}});
    let messages = json!([
        {"role": "user", "content": "Will it rain in Oslo?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Yes, all day."},
    ]);
    let told = routes.post(PATH, &with(&chat(""), json!({"messages": messages, "tools": [weather()]}))).await;
    assert!(told["usage"]["prompt_tokens"].as_u64().unwrap() > 100, "{told}");
    assert!(told["choices"][0]["message"]["content"].is_string(), "{told}");
    // Without tools in play, they do not change the prompt.
    let plain = routes.post(PATH, &chat("Hello!")).await;
    let none =
        routes.post(PATH, &with(&chat("Hello!"), json!({"tools": [weather()], "tool_choice": "none"}))).await;
    assert_eq!(
        (&plain["usage"]["prompt_tokens"], &plain["choices"]),
        (&none["usage"]["prompt_tokens"], &none["choices"])
    );
}

#[tokio::test]
async fn answers_have_the_form_that_was_asked_for() {
    let routes = routes();
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}});
    for more in [json!({"response_format": format}), json!({"json_schema": schema})] {
        let body = with(&chat("Who are you?"), with(&more, json!({"max_tokens": 120, "temperature": 1.2})));
        let told = routes.post(PATH, &body).await;
        let text = told["choices"][0]["message"]["content"].as_str().unwrap();
        let person: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(keys(&person), ["name", "age"]);
        assert!(
            person["name"].is_string() && person["age"].as_i64().is_some_and(|age| (0..=120).contains(&age))
        );
        assert_eq!(told["choices"][0]["finish_reason"], "stop");
        let streamed = routes.stream(PATH, &body).await;
        assert_eq!(crate::support::joined(&streamed.events, 0), text);
    }
    let choice = with(&chat("Yes or no?"), json!({"grammar": "root ::= \"yes\" | \"no\""}));
    let told = routes.post(PATH, &choice).await;
    let text = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text == "yes" || text == "no", "{text}");
    let object =
        with(&chat("Give me JSON."), json!({"response_format": {"type": "json_object"}, "max_tokens": 100}));
    let told = routes.post(PATH, &object).await;
    let text = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.starts_with('{'), "{text}");
    if told["choices"][0]["finish_reason"] == "stop" {
        assert!(serde_json::from_str::<Value>(text).unwrap().is_object());
    }
}

#[tokio::test]
async fn answers_in_forms_and_calls_are_alternatives() {
    let routes = routes();
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    for seed in 0..4 {
        let more = json!({"tools": [time()], "response_format": format, "seed": seed, "max_tokens": 100, "temperature": 1.5, "parallel_tool_calls": false});
        let told = routes.post(PATH, &with(&chat("Is it late?"), more)).await;
        let message = &told["choices"][0]["message"];
        match message["content"].as_str() {
            Some(text) => assert!(serde_json::from_str::<Value>(text).unwrap()["ok"].is_boolean(), "{text}"),
            None => {
                let function = &message["tool_calls"][0]["function"];
                check(function["name"].as_str().unwrap(), function["arguments"].as_str().unwrap());
            }
        }
    }
}
