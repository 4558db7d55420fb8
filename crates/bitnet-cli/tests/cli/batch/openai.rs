//! Files of OpenAI's batch API.

use serde_json::{Value, json};

use super::{Folder, batch, done, generated, objects};
use crate::support::fails;

fn line(id: &str, url: &str, body: &Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string() + "\n"
}

#[test]
fn requests_are_answered_as_over_http() {
    let folder = Folder::new();
    let chat =
        json!({"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "seed": 5});
    let lines = [
        line("chat", "/v1/chat/completions", &chat),
        line("text", "/v1/completions", &json!({"prompt": "The cat", "max_tokens": 3, "seed": 5})),
        line("vector", "/v1/embeddings", &json!({"input": "The cat"})),
        line("random", "/v1/completions", &json!({"prompt": "The cat", "max_tokens": 5})),
        line("bad", "/v1/completions", &json!({"prompt": "The cat", "max_tokens": "many"})),
        line("where", "/v1/images", &json!({})),
        "nonsense\n".to_owned(),
    ];
    let input = folder.write("in.jsonl", &lines.concat());
    let output = batch(&input, &folder.arg("out.jsonl"), &[]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("3 failed"), "{output:?}");
    let out = objects(&folder.read("out.jsonl"));
    let ids: Vec<&Value> = out.iter().map(|line| &line["custom_id"]).collect();
    assert_eq!(json!(ids), json!(["chat", "text", "vector", "random", "bad", "where", null]));
    let body = |i: usize| &out[i]["response"]["body"];
    let said = body(0)["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(said.trim_start(), generated("Hello", &["-n", "3", "--seed", "5", "--chat"]));
    assert_eq!(body(1)["choices"][0]["text"], generated("The cat", &["-n", "3", "--seed", "5"]));
    assert_eq!(body(1)["usage"]["completion_tokens"], 3);
    assert!(body(2)["data"][0]["embedding"].is_array() && body(3)["choices"][0]["text"].is_string());
    assert_eq!(
        (&out[4]["response"]["status_code"], &body(4)["error"]["param"]),
        (&json!(400), &json!("max_tokens"))
    );
    assert!(
        out[5]["error"]["message"].as_str().unwrap().contains("/v1/images") && out[5]["response"].is_null()
    );
    assert!(out[6]["error"]["message"].is_string());
}

#[test]
fn answers_are_the_same_each_time_but_for_the_hour() {
    let folder = Folder::new();
    let lines: String = (0..20)
        .map(|i| {
            line(&i.to_string(), "/v1/completions", &json!({"prompt": format!("The {i}"), "max_tokens": 4}))
        })
        .collect();
    let input = folder.write("in.jsonl", &lines);
    let answers = |name: &str, parallel: &str| {
        done(&input, &folder.arg(name), &["--parallel", parallel]);
        let mut rows = objects(&folder.read(name));
        rows.iter_mut().for_each(|row| row["response"]["body"]["created"] = json!(0));
        rows
    };
    assert_eq!(answers("one.jsonl", "1"), answers("many.jsonl", "8"));
}

#[test]
fn they_stay_by_themselves_and_are_json() {
    let folder = Folder::new();
    let input = folder.write("in.jsonl", &line("a", "/v1/completions", &json!({"prompt": "x"})));
    let other = folder.write("in.txt", "The cat\n");
    fails(&["batch", &input, &other, "-o", &folder.arg("out.jsonl")], 2, &["in.txt", "batch API"]);
    fails(&["batch", &input, "-o", &folder.arg("out.csv")], 2, &["JSON lines", "csv"]);
}
