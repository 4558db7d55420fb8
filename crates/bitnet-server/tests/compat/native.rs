//! llama-server's own paths.

use serde_json::{Value, json};

use crate::support::{get, names, post, post_text, router, router_with, with};

fn body() -> Value {
    json!({"prompt": "Once upon a time", "n_predict": 24, "temperature": 0.8, "seed": 11})
}

#[tokio::test]
async fn a_completion_has_all_members() {
    let router = router();
    let answer = post(&router, "/completion", &body()).await.json();
    let expected = [
        "index",
        "content",
        "tokens",
        "id_slot",
        "stop",
        "model",
        "tokens_predicted",
        "tokens_evaluated",
        "generation_settings",
        "prompt",
        "has_new_line",
        "truncated",
        "stop_type",
        "stopping_word",
        "tokens_cached",
        "timings",
    ];
    assert_eq!(names(&answer), expected);
    assert_eq!((&answer["index"], &answer["stop"], &answer["tokens"]), (&json!(0), &json!(true), &json!([])));
    assert_eq!((&answer["model"], &answer["truncated"]), (&json!("bitnet-tiny"), &json!(false)));
    assert_eq!(answer["prompt"], "<|begin_of_text|>Once upon a time");
    assert_eq!((&answer["stop_type"], &answer["tokens_predicted"]), (&json!("limit"), &json!(24)));
    let settings = &answer["generation_settings"];
    assert_eq!((&settings["seed"], &settings["n_predict"]), (&json!(11), &json!(24)));
    let expected = [
        "cache_n",
        "prompt_n",
        "prompt_ms",
        "prompt_per_token_ms",
        "prompt_per_second",
        "predicted_n",
        "predicted_ms",
        "predicted_per_token_ms",
        "predicted_per_second",
    ];
    assert_eq!(names(&answer["timings"])[..9], expected);
    let same = post(&router, "/completions", &body()).await.json();
    assert_eq!(same["content"], answer["content"]);
    assert!(same["tokens_cached"].as_u64().unwrap() > 0, "{same}");
}

#[tokio::test]
async fn a_stream_tells_the_same() {
    let router = router();
    let wanted = with(body(), json!({"return_tokens": true, "n_probs": 2}));
    let whole = post(&router, "/completion", &wanted).await.json();
    let streamed = json!({"stream": true, "timings_per_token": true, "return_progress": true});
    let events = post(&router, "/completion", &with(wanted, streamed)).await.events();
    assert!(events.iter().all(|(name, _)| name.is_empty()));
    let chunks: Vec<&Value> = events.iter().map(|(_, data)| data).collect();
    let (last, chunks) = chunks.split_last().unwrap();
    let (progress, chunks): (Vec<&Value>, Vec<&Value>) =
        chunks.iter().partition(|chunk| chunk.get("prompt_progress").is_some());
    let done = &progress.last().unwrap()["prompt_progress"];
    assert_eq!(names(done), ["total", "cache", "processed", "time_ms"]);
    assert_eq!(done["total"], done["processed"]);
    let joined = |name: &str| -> Vec<&Value> {
        chunks.iter().filter_map(|chunk| chunk[name].as_array()).flatten().collect()
    };
    let text: String = chunks.iter().map(|chunk| chunk["content"].as_str().unwrap()).collect();
    assert_eq!(json!(text), whole["content"]);
    assert_eq!(joined("tokens"), whole["tokens"].as_array().unwrap().iter().collect::<Vec<_>>());
    let probs = whole["completion_probabilities"].as_array().unwrap();
    assert_eq!(joined("completion_probabilities"), probs.iter().collect::<Vec<_>>());
    assert_eq!(names(&probs[0]), ["id", "token", "bytes", "logprob", "top_logprobs"]);
    assert_eq!(probs[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert!(
        chunks.iter().all(|chunk| chunk["stop"] == json!(false) && chunk["timings"]["predicted_n"].is_u64())
    );
    assert_eq!((&last["stop"], &last["content"]), (&json!(true), &json!("")));
    for name in ["tokens_predicted", "tokens_evaluated", "stop_type", "generation_settings", "has_new_line"] {
        if name != "generation_settings" {
            assert_eq!(last[name], whole[name], "{name}");
        }
    }
}

#[tokio::test]
async fn a_stop_word_ends_the_text() {
    let router = router();
    let whole = post(&router, "/completion", &body()).await.json();
    let text = whole["content"].as_str().unwrap();
    let stop: String = text.chars().skip(12).take(4).collect();
    let stopped = post(&router, "/completion", &with(body(), json!({"stop": [stop]}))).await.json();
    assert_eq!((&stopped["stop_type"], &stopped["stopping_word"]), (&json!("word"), &json!(stop)));
    assert_eq!(stopped["content"], text[..text.find(&stop).unwrap()]);
}

#[tokio::test]
async fn several_prompts_give_a_list() {
    let router = router();
    let single = post(&router, "/completion", &body()).await.json();
    let both = with(body(), json!({"prompt": ["Once upon a time", "The sea"]}));
    let answers = post(&router, "/completion", &both).await.json();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 2);
    assert_eq!((&answers[0]["content"], &answers[1]["index"]), (&single["content"], &json!(1)));
    let copies = post(&router, "/completion", &with(body(), json!({"n_cmpl": 2}))).await.json();
    assert_eq!(copies[0]["content"], single["content"]);
    assert_ne!(copies[1]["content"], single["content"]);
    let events = post(&router, "/completion", &with(both, json!({"stream": true}))).await.events();
    for (index, answer) in answers.iter().enumerate() {
        let chunks = events.iter().map(|(_, data)| data).filter(|data| data["index"] == json!(index));
        let text: String = chunks.map(|chunk| chunk["content"].as_str().unwrap()).collect();
        assert_eq!(json!(text), answer["content"]);
    }
}

#[tokio::test]
async fn a_prompt_may_be_tokens() {
    let router = router();
    let whole = post(&router, "/completion", &body()).await.json();
    let tokens =
        post(&router, "/tokenize", &json!({"content": "Once upon a time", "add_special": true})).await.json();
    let same = post(&router, "/completion", &with(body(), json!({"prompt": tokens["tokens"]}))).await.json();
    assert_eq!((&same["content"], &same["prompt"]), (&whole["content"], &whole["prompt"]));
}

#[tokio::test]
async fn no_tokens_compute_the_prompt() {
    let router = router();
    for stream in [false, true] {
        let answer =
            post(&router, "/completion", &with(body(), json!({"n_predict": 0, "stream": stream}))).await;
        let object = if stream { answer.events().pop().unwrap().1 } else { answer.json() };
        assert_eq!((&object["content"], &object["tokens_predicted"]), (&json!(""), &json!(0)));
    }
    let after = post(&router, "/completion", &body()).await.json();
    assert!(after["tokens_cached"].as_u64().unwrap() > 0, "{after}");
}

#[tokio::test]
async fn grammars_hold() {
    let router = router();
    let answer = post(&router, "/completion", &with(body(), json!({"grammar": "root ::= \"yes\" | \"no\""})))
        .await
        .json();
    assert!(["yes", "no"].contains(&answer["content"].as_str().unwrap()), "{answer}");
    assert_eq!(answer["stop_type"], "eos");
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    let answer = post(&router, "/completion", &with(body(), json!({"json_schema": schema, "n_predict": 60})))
        .await
        .json();
    let value: Value = serde_json::from_str(answer["content"].as_str().unwrap()).unwrap();
    assert!(value["a"].is_boolean());
}

#[tokio::test]
async fn only_the_members_asked_for() {
    let router = router();
    let fields = json!({"response_fields": ["content", "generation_settings/n_predict", "nothing"]});
    let answer = post(&router, "/completion", &with(body(), fields)).await.json();
    assert_eq!(names(&answer), ["content", "n_predict"]);
}

#[tokio::test]
async fn texts_become_tokens_and_back() {
    let router = router();
    let tokenize = async |body: Value| post(&router, "/tokenize", &body).await.json()["tokens"].clone();
    let content = "Hello, wörld 🌊<|eot_id|>";
    let plain = tokenize(json!({"content": content, "parse_special": false})).await;
    let special = tokenize(json!({"content": content})).await;
    assert!(plain.as_array().unwrap().len() > special.as_array().unwrap().len());
    let first = tokenize(json!({"content": content, "add_special": true})).await;
    assert_eq!(first.as_array().unwrap()[1..], *special.as_array().unwrap());
    for tokens in [&plain, &special] {
        let text = post(&router, "/detokenize", &json!({"tokens": tokens})).await.json();
        assert_eq!(text, json!({"content": content}));
    }
    let pieces = tokenize(json!({"content": content, "with_pieces": true})).await;
    let mut bytes = Vec::new();
    for (piece, token) in pieces.as_array().unwrap().iter().zip(special.as_array().unwrap()) {
        assert_eq!(&piece["id"], token);
        match &piece["piece"] {
            Value::String(text) => bytes.extend_from_slice(text.as_bytes()),
            list => bytes.extend(list.as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8)),
        }
    }
    assert_eq!(bytes, content.as_bytes());
    assert_eq!(tokenize(json!({"content": ""})).await, json!([]));
}

#[tokio::test]
async fn a_template_gives_a_prompt_that_can_be_sent() {
    let router = router();
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    let prompt = post(&router, "/apply-template", &json!({"messages": messages})).await.json();
    let prompt = prompt["prompt"].as_str().unwrap();
    assert_eq!(prompt, "System: Be brief.<|eot_id|>User: Hi<|eot_id|>Assistant:");
    let completed = post(&router, "/completion", &with(body(), json!({"prompt": prompt}))).await.json();
    let options = json!({"num_predict": 24, "temperature": 0.8, "seed": 11});
    let chat = json!({"model": "bitnet-tiny", "messages": messages, "stream": false, "options": options});
    let chat = post(&router, "/api/chat", &chat).await.json();
    assert_eq!(completed["tokens_evaluated"], chat["prompt_eval_count"]);
    assert_eq!(completed["content"], chat["message"]["content"]);
}

#[tokio::test]
async fn properties_and_slots() {
    let router = router();
    let props = get(&router, "/props?model=bitnet-tiny").await.json();
    assert_eq!((&props["total_slots"], &props["model_alias"]), (&json!(64), &json!("bitnet-tiny")));
    assert!(props["chat_template"].as_str().unwrap().contains("eot_id"));
    let defaults = &props["default_generation_settings"];
    assert_eq!((&defaults["n_ctx"], &defaults["params"]["top_k"]), (&json!(512), &json!(40)));
    let slots = get(&router, "/slots").await.json();
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 64);
    assert!(slots.iter().all(|slot| slot["is_processing"] == json!(false)));
    assert_eq!(get(&router, "/slots?fail_on_no_slot=1").await.status.as_u16(), 200);
    let without = router_with(|config| config.slots = false);
    let refused = get(&without, "/slots").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.any_json()["error"]["type"]),
        (501, &json!("not_supported_error"))
    );
}

#[tokio::test]
async fn texts_are_embedded() {
    let router = router();
    let embed = async |body: Value| post(&router, "/embedding", &body).await.json();
    let both = embed(json!({"content": ["the sea", "a ship"]})).await;
    assert_eq!(both.as_array().unwrap().len(), 2);
    assert_eq!(names(&both[1]), ["index", "embedding"]);
    let vector = |value: &Value| -> Vec<f64> {
        value["embedding"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!((length(&vector(&both[0])) - 1.0).abs() < 1e-4);
    let tokens = post(&router, "/tokenize", &json!({"content": "a ship", "add_special": true})).await.json();
    let by_tokens = vector(&embed(json!({"content": tokens["tokens"]})).await[0]);
    assert!((length(&by_tokens) - 1.0).abs() < 1e-4);
    let raw = embed(json!({"input": "a ship", "embd_normalize": -1})).await;
    let (raw, unit) = (vector(&raw[0]), vector(&both[1]));
    assert!(raw.iter().zip(&unit).all(|(a, b)| (a / length(&raw) - b).abs() < 1e-4));
}

#[tokio::test]
async fn what_is_not_done_is_refused() {
    let router = router();
    for path in ["/infill", "/rerank", "/v1/rerank", "/slots/0?action=save", "/lora-adapters", "/props"] {
        let answer = post(&router, path, &json!({})).await;
        assert_eq!(answer.status.as_u16(), 501, "{path}: {}", answer.text);
        assert_eq!(answer.any_json()["error"]["type"], "not_supported_error");
    }
    assert_eq!(get(&router, "/lora-adapters").await.json(), json!([]));
}

#[tokio::test]
async fn bad_requests_are_told() {
    let router = router();
    for (path, body, param) in [
        ("/completion", json!({}), "prompt"),
        ("/completion", with(body(), json!({"prompt": {"a": 1}})), "prompt"),
        ("/completion", with(body(), json!({"prompt": [[1, 2], "x", null]})), "prompt"),
        ("/completion", with(body(), json!({"temperature": "hot"})), "temperature"),
        ("/completion", with(body(), json!({"temperature": -2})), "temperature"),
        ("/completion", with(body(), json!({"samplers": ["magic"]})), "samplers"),
        ("/completion", with(body(), json!({"n_probs": 1000})), "logprobs"),
        ("/completion", with(body(), json!({"logit_bias": [[99999999, 1]]})), "logit_bias"),
        ("/completion", with(body(), json!({"grammar": 5})), "grammar"),
        ("/tokenize", json!({}), "content"),
        ("/tokenize", json!({"content": 5}), "content"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": ["a"]}), "tokens[0]"),
        ("/apply-template", json!({}), "messages"),
        ("/embedding", json!({}), "content"),
        ("/embedding", json!({"content": [1, -2]}), "content"),
    ] {
        let answer = post(&router, path, &body).await;
        assert_eq!(answer.status.as_u16(), 400, "{path} {body}: {}", answer.text);
        let error = &answer.any_json()["error"];
        assert_eq!(
            (&error["type"], &error["param"]),
            (&json!("invalid_request_error"), &json!(param)),
            "{path}: {error}"
        );
    }
    for body in [json!({"prompt": [99999999]}), json!({"prompt": "a", "grammar": "root ::= "})] {
        let answer = post(&router, "/completion", &body).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}: {}", answer.text);
    }
    let long = post(&router, "/completion", &json!({"prompt": "word ".repeat(2000)})).await;
    let error = &long.any_json()["error"];
    assert_eq!((long.status.as_u16(), &error["type"]), (400, &json!("exceed_context_size_error")));
    assert_eq!(error["n_ctx"], 512);
    for text in ["", "{", "[]", "null"] {
        assert_eq!(post_text(&router, "/completion", text.to_owned()).await.status.as_u16(), 400, "{text}");
    }
}
