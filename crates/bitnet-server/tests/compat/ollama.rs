//! `/api/`.

use serde_json::{Value, json};

use crate::support::{Answer, get, names, post, post_text, router, with};

fn generate() -> Value {
    json!({
        "model": "bitnet-tiny:latest", "prompt": "Tell me of the sea.",
        "options": {"num_predict": 24, "temperature": 0.8, "seed": 11},
    })
}

fn chat() -> Value {
    json!({
        "model": "bitnet-tiny", "messages": [{"role": "user", "content": "Tell me of the sea."}],
        "options": {"num_predict": 24, "temperature": 0.8, "seed": 11},
    })
}

fn whole(body: Value) -> Value {
    with(body, json!({"stream": false}))
}

/// Members that the last object of every answer has.
const END: [&str; 7] = [
    "done_reason",
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
];

#[tokio::test]
async fn a_whole_answer_has_all_members() {
    let router = router();
    let answer = post(&router, "/api/generate", &whole(generate())).await.json();
    let expected = [&["model", "created_at", "response", "done", END[0], "context"], &END[1..]].concat();
    assert_eq!(names(&answer), expected);
    assert_eq!((&answer["model"], &answer["done"]), (&json!("bitnet-tiny:latest"), &json!(true)));
    assert!(!answer["response"].as_str().unwrap().is_empty());
    assert!(["stop", "length"].contains(&answer["done_reason"].as_str().unwrap()));
    for name in &END[1..] {
        assert!(answer[*name].is_u64(), "{name}: {answer}");
    }
    assert!(answer["total_duration"].as_u64() >= answer["eval_duration"].as_u64());
    let answer = post(&router, "/api/chat", &whole(chat())).await.json();
    let expected = [&["model", "created_at", "message", "done"], &END[..]].concat();
    assert_eq!(names(&answer), expected);
    assert_eq!(answer["message"]["role"], "assistant");
}

#[tokio::test]
async fn a_stream_tells_the_same() {
    let router = router();
    let text = |object: &Value| {
        object.get("response").unwrap_or(&object["message"]["content"]).as_str().unwrap().to_owned()
    };
    let mut texts = Vec::new();
    for (path, body) in [("/api/generate", generate()), ("/api/chat", chat())] {
        let answer = post(&router, path, &whole(body.clone())).await.json();
        let lines = post(&router, path, &body).await.lines();
        let (last, parts) = lines.split_last().unwrap();
        assert!(parts.iter().all(|part| part["done"] == json!(false) && !text(part).is_empty()));
        assert_eq!(parts.iter().map(text).collect::<String>(), text(&answer), "{path}");
        assert_eq!((&last["done"], text(last).as_str()), (&json!(true), ""));
        assert_eq!(
            (&last["done_reason"], &last["eval_count"]),
            (&answer["done_reason"], &answer["eval_count"])
        );
        assert_eq!(last.get("context"), answer.get("context"));
        texts.push(text(&answer));
    }
    // A prompt is a chat of one turn.
    assert_eq!(texts[0], texts[1]);
}

#[tokio::test]
async fn a_context_goes_on_with_the_conversation() {
    let router = router();
    let first = post(&router, "/api/generate", &whole(generate())).await.json();
    let next = with(generate(), json!({"prompt": "And then?", "context": first["context"]}));
    let next = post(&router, "/api/generate", &whole(next)).await.json();
    let turns = json!({"messages": [
        {"role": "user", "content": "Tell me of the sea."},
        {"role": "assistant", "content": first["response"]},
        {"role": "user", "content": "And then?"},
    ]});
    let same = post(&router, "/api/chat", &whole(with(chat(), turns))).await.json();
    assert_eq!(next["prompt_eval_count"], same["prompt_eval_count"]);
    assert_eq!(next["response"], same["message"]["content"]);
}

#[tokio::test]
async fn raw_prompts_are_taken_as_they_are() {
    let router = router();
    let raw = "User: Tell me of the sea.<|eot_id|>Assistant:";
    let answer =
        post(&router, "/api/generate", &whole(with(generate(), json!({"raw": true, "prompt": raw}))))
            .await
            .json();
    let templated = post(&router, "/api/generate", &whole(generate())).await.json();
    assert_eq!(answer["prompt_eval_count"], templated["prompt_eval_count"]);
    assert_eq!(answer["response"], templated["response"]);
    assert_eq!(answer.get("context"), None);
    let system = with(generate(), json!({"system": "You are a sailor."}));
    let system = post(&router, "/api/generate", &whole(system)).await.json();
    assert!(system["prompt_eval_count"].as_u64() > templated["prompt_eval_count"].as_u64());
}

#[tokio::test]
async fn formats_hold() {
    let router = router();
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}, "required": ["age"], "additionalProperties": false});
    let parsed = |text: &Value| {
        let text = text.as_str().unwrap();
        serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let options = json!({"num_predict": 200, "seed": 3});
    let body = with(chat(), json!({"format": schema, "options": options}));
    let answer = post(&router, "/api/chat", &whole(body)).await.json();
    assert!(parsed(&answer["message"]["content"])["age"].is_i64());
    let body = with(generate(), json!({"format": schema, "options": options}));
    let answer = post(&router, "/api/generate", &whole(body)).await.json();
    assert!(parsed(&answer["response"])["age"].is_i64());
}

#[tokio::test]
async fn options_hold() {
    let router = router();
    let answer = post(&router, "/api/generate", &whole(generate())).await.json();
    let text = answer["response"].as_str().unwrap();
    let stop: String = text.chars().skip(12).take(4).collect();
    let options = json!({"options": {"num_predict": 24, "temperature": 0.8, "seed": 11, "stop": [stop]}});
    let stopped = post(&router, "/api/generate", &whole(with(generate(), options))).await.json();
    assert_eq!(stopped["response"], text[..text.find(&stop).unwrap()]);
    assert_eq!(stopped["done_reason"], "stop");
    let short =
        post(&router, "/api/generate", &whole(with(generate(), json!({"options": {"num_predict": 2}}))))
            .await;
    let short = short.json();
    assert_eq!((&short["eval_count"], &short["done_reason"]), (&json!(2), &json!("length")));
}

#[tokio::test]
async fn log_probabilities_are_told() {
    let router = router();
    let body = with(chat(), json!({"logprobs": true, "top_logprobs": 2}));
    let answer = post(&router, "/api/chat", &whole(body.clone())).await.json();
    let all = answer["logprobs"].as_array().unwrap();
    assert_eq!(all.len() as u64, answer["eval_count"].as_u64().unwrap());
    assert_eq!(names(&all[0]), ["token", "bytes", "logprob", "top_logprobs"]);
    assert_eq!(all[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert!(all.iter().all(|entry| entry["logprob"].as_f64().unwrap() <= 0.0));
    let lines = post(&router, "/api/chat", &body).await.lines();
    let told: Vec<&Value> = lines.iter().filter_map(|line| line["logprobs"].as_array()).flatten().collect();
    assert_eq!(told, all.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn models_are_listed_and_shown() {
    let router = router();
    let tags = get(&router, "/api/tags").await.json();
    let model = &tags["models"][0];
    assert_eq!(names(model), ["name", "model", "modified_at", "size", "digest", "details"]);
    assert_eq!(
        (&model["name"], &model["model"]),
        (&json!("bitnet-tiny:latest"), &json!("bitnet-tiny:latest"))
    );
    assert_eq!(model["digest"].as_str().unwrap().len(), 64);
    assert!(model["size"].as_u64().unwrap() > 1_000_000);
    let details = ["parent_model", "format", "family", "families", "parameter_size", "quantization_level"];
    assert_eq!(names(&model["details"]), details);
    assert_eq!(get(&router, "/api/ps").await.json()["models"], json!([]));
    for body in [json!({"model": model["name"]}), json!({"name": "bitnet-tiny"})] {
        let shown = post(&router, "/api/show", &body).await.json();
        assert_eq!(shown["details"]["parameter_size"], "35.7M");
        assert_eq!(shown["model_info"]["bitnet-b1.58.context_length"], 512);
        assert!(shown["template"].as_str().unwrap().contains("eot_id"));
        assert!(shown["parameters"].as_str().unwrap().contains("temperature"));
        assert!(shown["capabilities"].as_array().unwrap().contains(&json!("completion")));
    }
    let running = get(&router, "/api/ps").await.json();
    let running = &running["models"][0];
    assert_eq!((&running["name"], &running["context_length"]), (&json!("bitnet-tiny:latest"), &json!(512)));
    assert_eq!((&running["size_vram"], &running["details"]["parameter_size"]), (&json!(0), &json!("35.7M")));
    let version = get(&router, "/api/version").await.json();
    assert!(version["version"].as_str().unwrap().split('.').all(|part| part.parse::<u32>().is_ok()));
}

#[tokio::test]
async fn models_are_loaded_and_unloaded() {
    let router = router();
    let loaded = async || get(&router, "/api/ps").await.json()["models"].as_array().unwrap().len();
    let answer = post(&router, "/api/generate", &json!({"model": "bitnet-tiny"})).await.json();
    assert_eq!(
        (&answer["done_reason"], &answer["response"], &answer["done"]),
        (&json!("load"), &json!(""), &json!(true))
    );
    assert_eq!(loaded().await, 1);
    let body = json!({"model": "bitnet-tiny", "messages": [], "keep_alive": 0});
    let answer = post(&router, "/api/chat", &body).await.json();
    assert_eq!((&answer["done_reason"], &answer["message"]["content"]), (&json!("unload"), &json!("")));
    assert_eq!(loaded().await, 0);
}

#[tokio::test]
async fn texts_are_embedded() {
    let router = router();
    let model = json!({"model": "bitnet-tiny"});
    let embed =
        async |input: Value| post(&router, "/api/embed", &with(model.clone(), json!({"input": input}))).await;
    let many = embed(json!(["the sea", "a ship"])).await.json();
    assert_eq!(names(&many), ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]);
    let vector = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let vectors: Vec<Vec<f64>> = many["embeddings"].as_array().unwrap().iter().map(vector).collect();
    assert_eq!((vectors.len(), vectors[0].len()), (2, 512));
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(vectors.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-4));
    let one = embed(json!("a ship")).await.json();
    assert_eq!(one["embeddings"][0], many["embeddings"][1]);
    assert_eq!(embed(json!("")).await.json()["embeddings"], json!([]));
    let short = with(model.clone(), json!({"input": "a ship", "dimensions": 8}));
    let short = vector(&post(&router, "/api/embed", &short).await.json()["embeddings"][0]);
    assert!(short.len() == 8 && (length(&short) - 1.0).abs() < 1e-4);
    let old =
        post(&router, "/api/embeddings", &with(model.clone(), json!({"prompt": "a ship"}))).await.json();
    let old = vector(&old["embedding"]);
    let cosine: f64 = old.iter().zip(&vectors[1]).map(|(a, b)| a * b).sum::<f64>() / length(&old);
    assert!(cosine > 0.9999, "{cosine}");
    let long = "word ".repeat(2000);
    assert_eq!(embed(json!(long)).await.status.as_u16(), 200);
    let whole = with(model, json!({"input": long, "truncate": false}));
    assert_eq!(post(&router, "/api/embed", &whole).await.status.as_u16(), 400);
}

fn is_error(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    let error = answer.any_json();
    assert_eq!(names(&error), ["error"], "{error}");
    error["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn bad_requests_are_told_in_the_shape_of_the_api() {
    let router = router();
    let long = "word ".repeat(2000);
    for (path, body, part) in [
        ("/api/generate", json!({"prompt": "x"}), "model"),
        ("/api/generate", with(generate(), json!({"suffix": "x"})), "suffix"),
        ("/api/generate", with(generate(), json!({"template": "{{ .Prompt }}"})), "template"),
        ("/api/generate", with(generate(), json!({"images": ["aGk="]})), "images"),
        ("/api/generate", with(generate(), json!({"format": "xml"})), "format"),
        ("/api/generate", with(generate(), json!({"format": {"type": "nothing"}})), "schema"),
        ("/api/generate", with(generate(), json!({"context": [-1]})), "context"),
        ("/api/generate", with(generate(), json!({"context": [99999999]})), "99999999"),
        ("/api/generate", with(generate(), json!({"keep_alive": "soon"})), "keep_alive"),
        ("/api/generate", with(generate(), json!({"options": {"temperature": "hot"}})), "temperature"),
        ("/api/generate", with(generate(), json!({"options": {"top_p": 5}})), "top_p"),
        ("/api/generate", with(generate(), json!({"options": 5})), "options"),
        ("/api/generate", with(generate(), json!({"prompt": 5})), "prompt"),
        ("/api/generate", with(generate(), json!({"prompt": long})), "exceeds the available context size"),
        ("/api/chat", with(chat(), json!({"messages": "x"})), "messages"),
        ("/api/chat", with(chat(), json!({"messages": [{"content": "x"}]})), "role"),
        ("/api/chat", with(chat(), json!({"messages": [{"role": "robot", "content": "x"}]})), "robot"),
        ("/api/chat", with(chat(), json!({"tools": [{}]})), "tools[0]"),
        ("/api/chat", with(chat(), json!({"think": 5})), "think"),
        ("/api/chat", with(chat(), json!({"logprobs": true, "top_logprobs": 50})), "top_logprobs"),
        ("/api/embed", json!({"model": "bitnet-tiny"}), "input"),
        ("/api/embed", json!({"model": "bitnet-tiny", "input": 5}), "input"),
        ("/api/embed", json!({"model": "bitnet-tiny", "input": "x", "dimensions": 0}), "dimensions"),
        ("/api/show", json!({}), "model"),
    ] {
        let answer = post(&router, path, &body).await;
        let message = is_error(&answer, 400);
        assert!(message.contains(part), "{path} {part}: {message}");
    }
    for text in ["", "{", "[]", "null", "nope"] {
        is_error(&post_text(&router, "/api/chat", text.to_owned()).await, 400);
    }
    for path in ["/api/pull", "/api/create", "/api/copy", "/api/push", "/api/delete"] {
        let message = is_error(&post(&router, path, &json!({"model": "x"})).await, 501);
        assert!(message.contains("bitnet pull"), "{message}");
    }
}
