//! `/v1/chat/completions`: shapes, streams, choices, log probabilities, usage.

use serde_json::{Value, json};

use crate::support::{chat, choices, joined, keys, routes, with};

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn whole_answers_have_the_shape_of_the_api() {
    let routes = routes();
    let told = routes.post(PATH, &chat("Tell me a story.")).await;
    let expected = ["id", "object", "created", "model", "system_fingerprint", "choices", "usage", "timings"];
    assert_eq!(keys(&told), expected);
    assert!(told["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&told["object"], &told["model"]), (&json!("chat.completion"), &json!("bitnet-tiny")));
    assert!(told["created"].as_u64().unwrap() > 1_700_000_000);
    assert!(told["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    let choice = &told["choices"][0];
    assert_eq!(keys(choice), ["index", "message", "logprobs", "finish_reason"]);
    assert_eq!(keys(&choice["message"]), ["role", "content"]);
    assert_eq!((&choice["message"]["role"], &choice["logprobs"]), (&json!("assistant"), &Value::Null));
    assert!(!choice["message"]["content"].as_str().unwrap().is_empty());
    let usage = &told["usage"];
    let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64());
    let timings = &told["timings"];
    assert_eq!(timings["predicted_n"], usage["completion_tokens"]);
    for name in
        ["cache_n", "prompt_n", "prompt_ms", "prompt_per_second", "predicted_ms", "predicted_per_second"]
    {
        assert!(timings[name].is_number(), "{name}: {timings}");
    }
    // The fingerprint is the same again, the id another.
    let again = routes.post("/chat/completions", &chat("Tell me a story.")).await;
    assert_eq!(again["system_fingerprint"], told["system_fingerprint"]);
    assert_eq!(again["choices"], told["choices"]);
    assert_ne!(again["id"], told["id"]);
}

#[tokio::test]
async fn streams_tell_what_whole_answers_tell() {
    let routes = routes();
    let body = with(&chat("What is the sun?"), json!({"n": 2, "max_tokens": 40}));
    let whole = routes.post(PATH, &body).await;
    let options = json!({"stream_options": {"include_usage": true}});
    let streamed = routes.stream(PATH, &with(&body, options)).await;
    assert!(streamed.done && streamed.names.is_empty());
    let id = &streamed.events[0]["id"];
    for event in &streamed.events {
        assert_eq!((&event["object"], &event["id"]), (&json!("chat.completion.chunk"), id));
        assert_eq!(keys(event)[..6], ["id", "object", "created", "model", "system_fingerprint", "choices"]);
    }
    for index in 0..2 {
        let own: Vec<&Value> = choices(&streamed.events, index).collect();
        assert_eq!(own[0]["delta"], json!({"role": "assistant", "content": null}));
        let last = own[own.len() - 1];
        assert_eq!(
            (&last["delta"], &last["finish_reason"]),
            (&json!({}), &whole["choices"][index]["finish_reason"])
        );
        for between in &own[1..own.len() - 1] {
            assert_eq!(keys(&between["delta"]), ["content"]);
            assert_ne!(between["delta"]["content"], "");
            assert_eq!(between["finish_reason"], Value::Null);
        }
        assert_eq!(
            joined(&streamed.events, index),
            whole["choices"][index]["message"]["content"].as_str().unwrap()
        );
    }
    assert_ne!(whole["choices"][0]["message"], whole["choices"][1]["message"]);
    let last = streamed.events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert!(last["timings"]["predicted_n"].is_u64());

    // Usage comes on request only.
    let plain = routes.stream(PATH, &body).await;
    assert!(plain.events.iter().all(|event| event.get("usage").is_none()));
    assert_eq!(plain.events.iter().filter(|event| event.get("timings").is_some()).count(), 1);
}

#[tokio::test]
async fn log_probabilities_add_up() {
    let routes = routes();
    let body = with(&chat("Hello!"), json!({"logprobs": true, "top_logprobs": 20, "temperature": 0}));
    let told = routes.post(PATH, &body).await;
    let content = told["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len() as u64, told["usage"]["completion_tokens"].as_u64().unwrap());
    let mut bytes: Vec<u8> = Vec::new();
    for entry in content {
        assert_eq!(keys(entry), ["token", "logprob", "bytes", "top_logprobs"]);
        bytes.extend(entry["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8));
        let top: Vec<f64> = entry["top_logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["logprob"].as_f64().unwrap())
            .collect();
        assert_eq!(top.len(), 20);
        assert!(top.is_sorted_by(|a, b| a >= b));
        let sum: f64 = top.iter().map(|logprob| logprob.exp()).sum();
        assert!(sum > 0.0 && sum < 1.0 + 1e-5, "{sum}");
    }
    let text = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes).trim_start(), text.trim_start());
    let streamed = routes.stream(PATH, &body).await;
    let entries: Vec<Value> = choices(&streamed.events, 0)
        .filter_map(|choice| choice.get("logprobs")?["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(&entries, content);
}

#[tokio::test]
async fn ends_have_their_reasons() {
    let routes = routes();
    let short = routes
        .post(PATH, &with(&chat("Tell me a story."), json!({"max_completion_tokens": 3, "max_tokens": null})))
        .await;
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&json!("length"), &json!(3))
    );
    let greedy = with(&chat("Tell me a story."), json!({"temperature": 0, "max_tokens": 40}));
    let text =
        routes.post(PATH, &greedy).await["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let word = text.split_whitespace().nth(3).unwrap();
    let stopped = routes.post(PATH, &with(&greedy, json!({"stop": [word, "never heard of"]}))).await;
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert_eq!(stopped["choices"][0]["message"]["content"], text[..text.find(word).unwrap()]);
    let one = routes.post(PATH, &with(&greedy, json!({"stop": word}))).await;
    assert_eq!(one["choices"], stopped["choices"]);
}

#[tokio::test]
async fn what_is_known_already_is_not_computed_again() {
    let routes = routes();
    let long = "Once upon a time there was a little dog who liked to run. ".repeat(8);
    let body = chat(&long);
    let first = routes.post(PATH, &body).await;
    let second = routes.post(PATH, &body).await;
    assert_eq!(first["choices"], second["choices"]);
    let cached = |told: &Value| told["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached(&first), 0);
    assert!(cached(&second) > 50, "{second}");
    assert_eq!(second["timings"]["cache_n"], cached(&second));
}

#[tokio::test]
async fn messages_in_all_their_forms() {
    let routes = routes();
    let ask = |messages: Value| {
        let body = with(&chat(""), json!({"messages": messages}));
        let routes = &routes;
        async move { routes.post(PATH, &body).await["choices"][0]["message"]["content"].clone() }
    };
    let plain =
        ask(json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello there"}]))
            .await;
    let parts = json!([{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]);
    let formed =
        ask(json!([{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}])).await;
    assert_eq!(plain, formed);
    // A turn of the model's own at the end is continued.
    let whole =
        routes.post(PATH, &with(&chat("Hello there"), json!({"temperature": 0, "max_tokens": 30}))).await;
    let whole = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let begun: String = whole.split_inclusive(' ').take(3).collect();
    let messages = json!([{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": begun.trim_end()}]);
    let body = with(&chat(""), json!({"messages": messages, "temperature": 0, "max_tokens": 5}));
    let rest = routes.post(PATH, &body).await;
    let rest = rest["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(rest.starts_with(' '), "the answer goes on in the middle: {rest:?}");
}

#[tokio::test]
async fn progress_and_times_come_on_request() {
    let routes = routes();
    let body = with(&chat("Hello!"), json!({"timings_per_token": true, "return_progress": true}));
    let streamed = routes.stream(PATH, &body).await;
    let with_text = streamed
        .events
        .iter()
        .filter(|event| event["choices"][0]["delta"].get("content").is_some_and(Value::is_string));
    assert!(with_text.clone().count() > 2);
    let counts: Vec<u64> = with_text.map(|event| event["timings"]["predicted_n"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts[0] >= 1, "{counts:?}");
    for event in streamed.events.iter().filter(|event| event.get("prompt_progress").is_some()) {
        assert_eq!(keys(&event["prompt_progress"]), ["total", "cache", "processed", "time_ms"]);
    }
}
