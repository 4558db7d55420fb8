//! `/v1/responses`.

use serde_json::{Value, json};

use crate::support::{keys, routes, with};

const PATH: &str = "/v1/responses";

fn body() -> Value {
    json!({"model": "bitnet-tiny", "input": "Tell me a story.", "max_output_tokens": 20, "seed": 5, "temperature": 0.8})
}

#[tokio::test]
async fn whole_and_streamed_responses_tell_the_same() {
    let routes = routes();
    let told =
        routes.post(PATH, &with(&body(), json!({"instructions": "Be brief.", "metadata": {"a": "b"}}))).await;
    for name in [
        "id",
        "object",
        "created_at",
        "status",
        "error",
        "incomplete_details",
        "model",
        "output",
        "instructions",
        "max_output_tokens",
        "parallel_tool_calls",
        "previous_response_id",
        "reasoning",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
        "truncation",
        "usage",
        "user",
        "metadata",
    ] {
        assert!(keys(&told).contains(&name), "{name}: {told}");
    }
    assert!(told["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!(
        (&told["object"], &told["status"], &told["store"]),
        (&json!("response"), &json!("incomplete"), &json!(false))
    );
    assert_eq!(
        (&told["text"], &told["metadata"]),
        (&json!({"format": {"type": "text"}}), &json!({"a": "b"}))
    );
    assert_eq!(
        (&told["incomplete_details"]["reason"], &told["usage"]["output_tokens"]),
        (&json!("max_output_tokens"), &json!(20))
    );
    let item = &told["output"][0];
    assert_eq!(keys(item), ["id", "type", "status", "role", "content"]);
    let text = item["content"][0]["text"].as_str().unwrap();
    assert!(!text.is_empty());

    let streamed = routes.stream(PATH, &with(&body(), json!({"instructions": "Be brief."}))).await;
    assert!(!streamed.done);
    let names: Vec<&str> = streamed.names.iter().map(String::as_str).collect();
    assert_eq!(
        names[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    let end = [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(names[names.len() - 4..], end);
    assert!(names[4..names.len() - 4].iter().all(|name| *name == "response.output_text.delta"));
    for (number, event) in streamed.events.iter().enumerate() {
        assert_eq!((&event["sequence_number"], &event["type"]), (&json!(number), &json!(names[number])));
    }
    let deltas: String = streamed.events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, text);
    let last = &streamed.events.last().unwrap()["response"];
    assert_eq!(last["output"][0]["content"], item["content"]);
    assert_eq!(last["id"], streamed.events[0]["response"]["id"]);
    assert_eq!(streamed.events[0]["response"]["status"], "in_progress");
}

#[tokio::test]
async fn conversations_calls_and_forms() {
    let routes = routes();
    let tool = json!({"type": "function", "name": "time", "parameters": {
        "type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}});
    let more = json!({"tools": [tool], "tool_choice": "required", "max_output_tokens": 100});
    let told = routes.post("/responses", &with(&body(), more.clone())).await;
    assert_eq!(told["status"], "completed", "{told}");
    let call = &told["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["status"]),
        (&json!("function_call"), &json!("time"), &json!("completed"))
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["zone"].is_string());
    let streamed = routes.stream(PATH, &with(&body(), more)).await;
    let names: Vec<&str> = streamed.names.iter().map(String::as_str).collect();
    assert!(names.contains(&"response.function_call_arguments.done"), "{names:?}");

    // The call and its result go back as items.
    let input = json!([
        {"role": "user", "content": "What time is it?"},
        {"type": "function_call", "call_id": call["call_id"], "name": "time", "arguments": call["arguments"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "noon"},
    ]);
    let told = routes.post(PATH, &with(&body(), json!({"input": input, "tools": [tool]}))).await;
    assert_eq!(told["output"][0]["type"], "message", "{told}");

    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let text = json!({"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": true}});
    let told = routes.post(PATH, &with(&body(), json!({"text": text, "max_output_tokens": 60}))).await;
    let answer: Value =
        serde_json::from_str(told["output"][0]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(answer["ok"].is_boolean());
    assert_eq!(told["text"], text);
}

#[tokio::test]
async fn log_probabilities_by_include() {
    let routes = routes();
    let more = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let told = routes.post(PATH, &with(&body(), more)).await;
    let logprobs = told["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 20);
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
}
