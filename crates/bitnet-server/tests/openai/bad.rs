//! Requests that cannot be: an error that names the field, and a server that goes on.

use serde_json::{Value, json};

use crate::support::{chat, routes, with};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn fields_that_cannot_be_are_named() {
    let routes = routes();
    for (more, param) in [
        (json!({"messages": []}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": {"a": 1}}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            "messages[0].content[0]",
        ),
        (json!({"model": 5}), "model"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 2}), "top_p"),
        (json!({"min_p": 1.5}), "min_p"),
        (json!({"presence_penalty": 1000}), "presence_penalty"),
        (json!({"repeat_penalty": 0}), "repeat_penalty"),
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"n": "2"}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": "many"}), "max_tokens"),
        (json!({"stop": 5}), "stop"),
        (json!({"stop": vec!["x"; 10_000]}), "stop"),
        (json!({"logit_bias": {"1": "x"}}), "logit_bias"),
        (json!({"logit_bias": {"99999": 1}}), "logit_bias"),
        (json!({"logprobs": 5}), "logprobs"),
        (json!({"top_logprobs": 5}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"seed": "x"}), "seed"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"response_format": {"type": "json_object"}, "grammar": "root ::= \"a\""}), "response_format"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"samplers": "top_x"}), "samplers"),
        (json!({"mirostat": 3}), "mirostat"),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (json!({"functions": []}), "functions"),
    ] {
        let (status, error) = routes.refused(CHAT, &with(&chat("x"), more.clone())).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{more}: {error}");
        assert_eq!(error["type"], "invalid_request_error", "{more}: {error}");
    }
    // Nothing of this hurts the next.
    routes.post(CHAT, &chat("Hello!")).await;
}

#[tokio::test]
async fn bodies_that_are_no_requests() {
    let routes = routes();
    let deep = format!("{{\"messages\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
    let cases: [&[u8]; 8] =
        [b"", b"{", b"[]", b"\"x\"", b"null", b"{\"messages\": \"\xff\"}", b"{} {}", deep.as_bytes()];
    for body in cases {
        for path in [CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses"] {
            let (status, told) = routes.post_bytes(path, body.to_vec()).await;
            assert_eq!(
                (status.as_u16(), &told["error"]["type"]),
                (400, &json!("invalid_request_error")),
                "{path} {told}"
            );
        }
    }
}

#[tokio::test]
async fn prompts_and_schemas_that_are_too_large() {
    let routes = routes();
    let long = chat(&"word ".repeat(200_000));
    let (status, error) = routes.refused(CHAT, &long).await;
    assert_eq!((status, &error["type"]), (400, &json!("exceed_context_size_error")));
    assert!(error["n_prompt_tokens"].as_u64().unwrap() > 100_000 && error["n_ctx"] == 512, "{error}");
    // A stream that cannot begin is an error as well.
    let (status, _) = routes.refused(CHAT, &with(&long, json!({"stream": true}))).await;
    assert_eq!(status, 400);
    let mut schema = json!({"type": "integer"});
    for _ in 0..60 {
        schema = json!({"type": "array", "items": schema});
    }
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    let told = routes.post_bytes(CHAT, with(&chat("x"), format(schema)).to_string()).await;
    assert!(told.0.as_u16() == 200 || told.0.as_u16() == 400, "{}", told.1);
    let nonsense = json!({"type": "object", "properties": {"a": {"type": "nonsense"}}});
    let (status, error) = routes.refused(CHAT, &with(&chat("x"), format(nonsense))).await;
    assert_eq!((status, &error["type"]), (400, &json!("invalid_request_error")), "{error}");
    let (status, error) = routes.refused(CHAT, &with(&chat("x"), json!({"grammar": "root ::="}))).await;
    assert_eq!((status, &error["type"]), (400, &json!("invalid_request_error")), "{error}");
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let routes = routes();
    let more = json!({"user": "u", "service_tier": "auto", "metadata": {}, "store": true, "whatever": [1], "cache_prompt": true, "priority": 3, "reasoning_effort": "low"});
    let plain = routes.post(CHAT, &chat("Hello!")).await;
    let told = routes.post(CHAT, &with(&chat("Hello!"), more)).await;
    assert_eq!(told["choices"], plain["choices"]);
    // One model is served: its name does not matter.
    let other = routes.post(CHAT, &with(&chat("Hello!"), json!({"model": "gpt-4o"}))).await;
    assert_eq!((&other["choices"], &other["model"]), (&plain["choices"], &json!("bitnet-tiny")));
}
