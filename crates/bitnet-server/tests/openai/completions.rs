//! `/v1/completions`: prompts in all forms, choices, echoes, the older log probabilities.

use bitnet_text::EncodeOptions;
use serde_json::{Value, json};

use crate::support::{choices, keys, routes, with};

const PATH: &str = "/v1/completions";

fn body(prompt: Value) -> Value {
    json!({"prompt": prompt, "max_tokens": 12, "seed": 3, "temperature": 0.8})
}

fn texts(told: &Value) -> Vec<&str> {
    told["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn prompts_in_all_forms() {
    let routes = routes();
    let told = routes.post(PATH, &body(json!("Once upon a time"))).await;
    let expected = ["id", "object", "created", "model", "system_fingerprint", "choices", "usage", "timings"];
    assert_eq!(keys(&told), expected);
    assert!(told["id"].as_str().unwrap().starts_with("cmpl-") && told["object"] == "text_completion");
    assert_eq!(keys(&told["choices"][0]), ["text", "index", "logprobs", "finish_reason"]);
    assert_eq!(told["choices"][0]["finish_reason"], "length");

    let model = routes.state().model(None).await.unwrap();
    let tokenizer = model.engine().tokenizer().unwrap();
    let tokens = |text: &str| tokenizer.encode(text, EncodeOptions::PROMPT).unwrap();
    let by_tokens = routes.post(PATH, &body(json!(tokens("Once upon a time")))).await;
    assert_eq!(texts(&by_tokens), texts(&told));
    let other = routes.post(PATH, &body(json!("The sky is"))).await;
    let both = routes.post(PATH, &body(json!(["Once upon a time", "The sky is"]))).await;
    assert_eq!(texts(&both), [texts(&told), texts(&other)].concat());
    let lists = routes.post(PATH, &body(json!([tokens("Once upon a time"), tokens("The sky is")]))).await;
    assert_eq!(texts(&lists), texts(&both));
    let used = |told: &Value| told["usage"]["completion_tokens"].as_u64().unwrap();
    assert_eq!(used(&both), used(&told) + used(&other));
    assert_eq!((&both["choices"][1]["index"], both["choices"].as_array().unwrap().len()), (&json!(1), 2));
}

#[tokio::test]
async fn streams_tell_what_whole_answers_tell() {
    let routes = routes();
    let body = with(&body(json!(["Once upon", "The sky"])), json!({"n": 2, "echo": true}));
    let whole = routes.post(PATH, &body).await;
    assert!(texts(&whole)[0].starts_with("Once upon") && texts(&whole)[3].starts_with("The sky"));
    let streamed =
        routes.stream(PATH, &with(&body, json!({"stream_options": {"include_usage": true}}))).await;
    assert!(streamed.done);
    for index in 0..4 {
        let own: Vec<&Value> = choices(&streamed.events, index).collect();
        let joined: String = own.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(joined, texts(&whole)[index]);
        assert_eq!(own.last().unwrap()["finish_reason"], whole["choices"][index]["finish_reason"]);
        assert_eq!(own.iter().filter(|choice| !choice["finish_reason"].is_null()).count(), 1);
    }
    let last = streamed.events.last().unwrap();
    assert_eq!(last["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
}

#[tokio::test]
async fn the_best_of_several() {
    let routes = routes();
    let body = with(&body(json!("Once upon a time")), json!({"logprobs": 0, "temperature": 1.5}));
    let all = routes.post(PATH, &with(&body, json!({"n": 4}))).await;
    let mean = |choice: &Value| {
        let list = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        list.iter().map(|l| l.as_f64().unwrap()).sum::<f64>() / list.len() as f64
    };
    let mut ranked: Vec<&Value> = all["choices"].as_array().unwrap().iter().collect();
    ranked.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = routes.post(PATH, &with(&body, json!({"n": 2, "best_of": 4}))).await;
    assert_eq!(texts(&best), [ranked[0]["text"].as_str().unwrap(), ranked[1]["text"].as_str().unwrap()]);
    assert_eq!(best["choices"][0]["logprobs"], ranked[0]["logprobs"]);
}

#[tokio::test]
async fn log_probabilities_in_lists() {
    let routes = routes();
    let body =
        with(&body(json!("Once upon a time")), json!({"logprobs": 3, "temperature": 0, "repeat_penalty": 1}));
    let told = routes.post(PATH, &body).await;
    let lists = &told["choices"][0]["logprobs"];
    assert_eq!(keys(lists), ["tokens", "token_logprobs", "top_logprobs", "text_offset"]);
    let list = |name: &str| lists[name].as_array().unwrap().clone();
    for name in keys(lists) {
        assert_eq!(list(name).len(), 12, "{name}");
    }
    let text: String = list("tokens").iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(text, told["choices"][0]["text"].as_str().unwrap());
    assert_eq!(lists["text_offset"][0], 0);
    for (logprob, top) in list("token_logprobs").iter().zip(list("top_logprobs")) {
        let best = top.as_object().unwrap().values().map(|l| l.as_f64().unwrap()).fold(f64::MIN, f64::max);
        assert_eq!(logprob.as_f64().unwrap(), best);
    }
    let streamed = routes.stream(PATH, &body).await;
    let offsets: Vec<Value> = choices(&streamed.events, 0)
        .filter_map(|choice| choice["logprobs"]["text_offset"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(offsets, list("text_offset"));
}
