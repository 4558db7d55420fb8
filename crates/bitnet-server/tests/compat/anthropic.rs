//! `/v1/messages`.

use serde_json::{Value, json};

use crate::support::{get, names, post, post_text, router, with};

fn body() -> Value {
    json!({
        "model": "bitnet-tiny", "max_tokens": 24, "messages": [{"role": "user", "content": "Tell me of the sea."}],
        "temperature": 0.8, "seed": 11,
    })
}

fn tool(name: &str) -> Value {
    let schema =
        json!({"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]});
    json!({"name": name, "description": "tells the weather", "input_schema": schema})
}

#[tokio::test]
async fn a_message_has_all_members() {
    let router = router();
    let message = post(&router, "/v1/messages", &body()).await.json();
    let expected = ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"];
    assert_eq!(names(&message), expected);
    assert!(message["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(message["model"], "bitnet-tiny");
    assert_eq!(message["content"].as_array().unwrap().len(), 1);
    assert_eq!(names(&message["content"][0]), ["type", "text"]);
    assert!(!message["content"][0]["text"].as_str().unwrap().is_empty());
    assert!(["end_turn", "max_tokens"].contains(&message["stop_reason"].as_str().unwrap()));
    let expected =
        ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"];
    assert_eq!(names(&message["usage"]), expected);
    assert!((1..=24).contains(&message["usage"]["output_tokens"].as_u64().unwrap()));
}

#[tokio::test]
async fn a_stream_tells_the_same() {
    let router = router();
    let whole = post(&router, "/v1/messages", &body()).await.json();
    let events = post(&router, "/v1/messages", &with(body(), json!({"stream": true}))).await.events();
    let names: Vec<&str> =
        events.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "ping").collect();
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(names[2..names.len() - 3].iter().all(|name| *name == "content_block_delta"));
    assert!(events.iter().all(|(name, data)| data["type"] == name.as_str()));
    let deltas = events.iter().filter(|(name, _)| name == "content_block_delta");
    let texts: Vec<&str> = deltas.map(|(_, data)| data["delta"]["text"].as_str().unwrap()).collect();
    assert!(texts.iter().all(|text| !text.is_empty()));
    assert_eq!(json!(texts.concat()), whole["content"][0]["text"]);
    let (_, delta) = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], whole["stop_reason"]);
    assert_eq!(delta["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    let start = &events[0].1["message"];
    assert_eq!((&start["content"], &start["stop_reason"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn stop_sequences_end_the_text() {
    let router = router();
    let whole = post(&router, "/v1/messages", &body()).await.json();
    let text = whole["content"][0]["text"].as_str().unwrap();
    let stop: String = text.chars().skip(12).take(4).collect();
    let stopped =
        post(&router, "/v1/messages", &with(body(), json!({"stop_sequences": [stop]}))).await.json();
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!(stop)));
    let before = &text[..text.find(&stop).unwrap()];
    assert_eq!(stopped["content"][0]["text"], before);
}

#[tokio::test]
async fn a_forced_call_fits_its_schema() {
    let router = router();
    for choice in [
        json!({"type": "any", "disable_parallel_tool_use": true}),
        json!({"type": "tool", "name": "weather"}),
    ] {
        let forced = json!({"tools": [tool("weather")], "tool_choice": choice, "max_tokens": 120});
        let body = with(body(), forced);
        let message = post(&router, "/v1/messages", &body).await.json();
        let calls: Vec<&Value> = message["content"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .collect();
        assert!(!calls.is_empty(), "{message}");
        assert_eq!(names(calls[0]), ["type", "id", "name", "input"]);
        assert!(calls[0]["id"].as_str().unwrap().starts_with("toolu_"));
        assert_eq!(calls[0]["name"], "weather");
        assert!(["Oslo", "Rome"].contains(&calls[0]["input"]["city"].as_str().unwrap()), "{message}");
        let events = post(&router, "/v1/messages", &with(body, json!({"stream": true}))).await.events();
        let begun = |(_, data): &&(String, Value)| data["content_block"]["type"] == "tool_use";
        let begin = &events.iter().find(begun).unwrap().1;
        assert_eq!(
            (&begin["content_block"]["name"], &begin["content_block"]["input"]),
            (&json!("weather"), &json!({}))
        );
        let of_first = |(name, data): &&(String, Value)| {
            name == "content_block_delta" && data["index"] == begin["index"]
        };
        let parts: Vec<&str> = events
            .iter()
            .filter(of_first)
            .map(|(_, data)| data["delta"]["partial_json"].as_str().unwrap())
            .collect();
        assert_eq!(&serde_json::from_str::<Value>(&parts.concat()).unwrap(), &calls[0]["input"]);
    }
}

#[tokio::test]
async fn results_of_calls_are_part_of_the_prompt() {
    let router = router();
    let turns = |result: &str| {
        json!({"tools": [tool("weather")], "messages": [
            {"role": "user", "content": "Weather in Oslo?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}]},
        ]})
    };
    let count = async |result: &str| {
        let counted = post(&router, "/v1/messages/count_tokens", &with(body(), turns(result))).await.json();
        counted["input_tokens"].as_u64().unwrap()
    };
    assert!(count("rain and wind and a storm behind the hills").await > count("rain").await);
    let message = post(&router, "/v1/messages", &with(body(), turns("rain"))).await.json();
    assert_eq!(message["type"], "message");
}

#[tokio::test]
async fn answers_fit_a_schema() {
    let router = router();
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}, "required": ["age"], "additionalProperties": false});
    let config =
        json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}, "max_tokens": 100});
    let message = post(&router, "/v1/messages", &with(body(), config)).await.json();
    let text = message["content"][0]["text"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(value["age"].as_i64().unwrap() <= 99, "{value}");
}

#[tokio::test]
async fn tokens_are_counted_as_they_are_used() {
    let router = router();
    let with_system =
        with(body(), json!({"system": [{"type": "text", "text": "You are brief. You speak of ships."}]}));
    let counted = post(&router, "/v1/messages/count_tokens", &with_system).await.json();
    assert_eq!(names(&counted), ["input_tokens"]);
    let of = |message: &Value| {
        let usage = |name: &str| message["usage"][name].as_u64().unwrap();
        (usage("input_tokens"), usage("cache_read_input_tokens"))
    };
    let first = of(&post(&router, "/v1/messages", &with_system).await.json());
    let second = of(&post(&router, "/v1/messages", &with_system).await.json());
    assert_eq!(first.0 + first.1, counted["input_tokens"].as_u64().unwrap());
    assert_eq!(second.0 + second.1, first.0 + first.1);
    assert!(second.1 > first.1, "the second request finds the first one's prompt: {first:?} {second:?}");
}

#[tokio::test]
async fn a_begun_answer_is_continued() {
    let router = router();
    let turns = json!({"messages": [
        {"role": "user", "content": "Tell me of the sea."}, {"role": "assistant", "content": "The sea is"},
    ]});
    let message = post(&router, "/v1/messages", &with(body(), turns)).await.json();
    assert_eq!(message["role"], "assistant");
    let fresh = post(&router, "/v1/messages", &body()).await.json();
    assert_ne!(message["content"], fresh["content"]);
}

#[tokio::test]
async fn bad_requests_are_told_in_the_shape_of_the_api() {
    let router = router();
    let long = "word ".repeat(2000);
    let cases = [
        (json!({}), "messages"),
        (json!({"messages": []}), "max_tokens"),
        (with(body(), json!({"messages": "hello"})), "messages"),
        (with(body(), json!({"messages": [{"role": "robot", "content": "x"}]})), "robot"),
        (with(body(), json!({"max_tokens": -5})), "max_tokens"),
        (with(body(), json!({"max_tokens": "many"})), "max_tokens"),
        (with(body(), json!({"temperature": -1})), "temperature"),
        (with(body(), json!({"top_p": 7})), "top_p"),
        (with(body(), json!({"stop_sequences": [1]})), "stop_sequences"),
        (with(body(), json!({"tools": [{"name": 1}]})), "tools[0]"),
        (with(body(), json!({"tools": [tool("f")], "tool_choice": {"type": "tool", "name": "g"}})), "\"g\""),
        (
            with(
                body(),
                json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
            ),
            "image",
        ),
        (
            with(body(), json!({"messages": [{"role": "user", "content": long}]})),
            "exceeds the available context size",
        ),
        (
            with(
                body(),
                json!({"output_config": {"format": {"type": "json_schema", "schema": {"type": "nothing"}}}}),
            ),
            "schema",
        ),
    ];
    for (body, part) in cases {
        for stream in [false, true] {
            let answer = post(&router, "/v1/messages", &with(body.clone(), json!({"stream": stream}))).await;
            assert_eq!(answer.status.as_u16(), 400, "{body}: {}", answer.text);
            let error = answer.any_json();
            assert_eq!(names(&error)[..2], ["type", "error"], "{error}");
            assert_eq!(
                (&error["type"], &error["error"]["type"]),
                (&json!("error"), &json!("invalid_request_error"))
            );
            assert!(error["error"]["message"].as_str().unwrap().contains(part), "{part}: {error}");
        }
    }
    for text in ["", "{", "[]", "null", "\u{feff}{}", &"[".repeat(100_000)] {
        let error = post_text(&router, "/v1/messages", text.to_owned()).await;
        assert_eq!((error.status.as_u16(), &error.any_json()["type"]), (400, &json!("error")), "{text:.20}");
    }
    assert_eq!(get(&router, "/v1/messages").await.status.as_u16(), 405);
}
