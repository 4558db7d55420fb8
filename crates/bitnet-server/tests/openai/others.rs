//! Embeddings and models.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{keys, routes, with};

const PATH: &str = "/v1/embeddings";

fn vector(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[tokio::test]
async fn embeddings_as_numbers_and_as_bytes() {
    let routes = routes();
    let body = json!({"model": "bitnet-tiny", "input": ["Once upon a time", "The sky is blue"]});
    let told = routes.post(PATH, &body).await;
    assert_eq!(keys(&told), ["object", "data", "model", "usage"]);
    assert_eq!((&told["object"], &told["model"]), (&json!("list"), &json!("bitnet-tiny")));
    assert_eq!(keys(&told["data"][1]), ["object", "index", "embedding"]);
    assert_eq!((&told["data"][1]["object"], &told["data"][1]["index"]), (&json!("embedding"), &json!(1)));
    assert_eq!(told["usage"]["prompt_tokens"], told["usage"]["total_tokens"]);
    let first = vector(&told["data"][0]["embedding"]);
    assert_eq!(first.len(), 512);
    assert!((length(&first) - 1.0).abs() < 1e-4);

    let bytes = routes.post(PATH, &with(&body, json!({"encoding_format": "base64"}))).await;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(bytes["data"][0]["embedding"].as_str().unwrap());
    let numbers: Vec<f32> =
        bytes.unwrap().chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(numbers, first);
    let one = routes.post(PATH, &json!({"input": "Once upon a time"})).await;
    assert_eq!(one["data"][0], told["data"][0]);
    let short = routes.post(PATH, &with(&body, json!({"dimensions": 64}))).await;
    let short = vector(&short["data"][0]["embedding"]);
    assert!(short.len() == 64 && (length(&short) - 1.0).abs() < 1e-4);
    assert!((short[5] / short[6] - first[5] / first[6]).abs() < 1e-3);
    let tokens = routes.post(PATH, &json!({"input": [[1, 2, 3], [4]]})).await;
    assert_eq!((tokens["data"].as_array().unwrap().len(), &tokens["usage"]["prompt_tokens"]), (2, &json!(4)));
    let list = routes.post(PATH, &json!({"input": [1, 2, 3]})).await;
    assert_eq!(list["data"][0], tokens["data"][0]);
}

#[tokio::test]
async fn embeddings_that_cannot_be() {
    let routes = routes();
    for (more, status, part) in [
        (json!({"dimensions": 513}), 400, "from 1 to 512"),
        (json!({"dimensions": 0}), 400, "from 1 to 512"),
        (json!({"input": [[99999]]}), 400, "outside the vocabulary"),
        (json!({"input": [[]]}), 400, "empty"),
        (json!({"input": "a ".repeat(3000)}), 400, "context"),
    ] {
        let (told, error) = routes.refused(PATH, &with(&json!({"input": "a"}), more.clone())).await;
        assert!(told == status && error["message"].as_str().unwrap().contains(part), "{more}: {error}");
    }
}

#[tokio::test]
async fn models_are_listed() {
    let routes = routes();
    for path in ["/v1/models", "/models"] {
        let (status, told) = routes.get(path).await;
        assert_eq!((status.as_u16(), &told["object"]), (200, &json!("list")));
        let model = &told["data"][0];
        assert_eq!((&model["id"], &model["object"]), (&json!("bitnet-tiny"), &json!("model")));
        assert!(model["created"].is_u64() && model["owned_by"].is_string());
        assert_eq!(told["models"][0]["name"], "bitnet-tiny");
    }
    routes.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1})).await;
    let (status, model) = routes.get("/v1/models/bitnet-tiny").await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!((&model["meta"]["n_ctx"], &model["meta"]["chat_template"]), (&json!(512), &json!(true)));
    let temperature = model["meta"]["default_generation_settings"]["temperature"].as_f64().unwrap();
    assert!((temperature - 0.7).abs() < 1e-6);
    let (status, error) = routes.get("/v1/models/some/other").await;
    assert_eq!((status.as_u16(), &error["error"]["code"]), (404, &json!("model_not_found")));
}
