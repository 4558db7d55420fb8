//! Loading and unloading.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Running, config, start_with};

fn write_model(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, bytes) in bitnet_tiny::files() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

fn status(server: &Running, id: &str) -> String {
    let all = server.get("/models/status").json();
    let model = all["models"].as_array().unwrap().iter().find(|model| model["id"] == id);
    model.map_or("absent", |model| model["status"]["value"].as_str().unwrap()).to_owned()
}

#[test]
fn models_of_a_folder_are_loaded_and_unloaded() {
    let dir = tempfile::tempdir().unwrap();
    write_model(&dir.path().join("one"));
    let mut config = config();
    config.models_dir = Some(dir.path().to_owned());
    let server = start_with(config);
    assert_eq!(status(&server, "one"), "unloaded");
    // One that came later is found when it is asked for.
    write_model(&dir.path().join("two"));
    for name in ["one", "two"] {
        let loaded = server.post("/models/load", &json!({"model": name}));
        assert_eq!(
            (loaded.status, &loaded.json()["success"]),
            (200, &Value::Bool(true)),
            "{}",
            loaded.text()
        );
        assert_eq!(status(&server, name), "loaded");
    }
    let unloaded = server.post("/models/unload", &json!({"model": "one"}));
    assert_eq!(unloaded.json()["model"]["status"]["value"], "unloaded");
    assert_eq!(
        (status(&server, "one"), status(&server, "two")),
        ("unloaded".to_owned(), "loaded".to_owned())
    );
    let missing = server.post("/models/load", &json!({"model": "three"}));
    let message = missing.error(404);
    assert!(message.contains("three") && message.contains("one") && message.contains("two"), "{message}");
    assert_eq!(missing.json()["error"]["code"], "model_not_found");
    std::fs::write(dir.path().join("broken.gguf"), b"GGUF, but no more").unwrap();
    server.post("/models/load", &json!({"model": "broken"})).error(500);
    assert_eq!(status(&server, "broken"), "failed");
    std::fs::remove_dir_all(dir.path().join("one")).unwrap();
    assert_eq!(status(&server, "one"), "absent");
}

#[test]
fn a_model_in_use_is_neither_unloaded_nor_pushed_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny");
    write_model(&path);
    let mut config = config();
    let model = |name: &str| bitnet_server::config::ModelConfig {
        name: Some(name.to_owned()),
        path: Some(path.display().to_string()),
    };
    config.models = vec![model("a"), model("b")];
    // Room for one, not for two.
    config.memory_budget = Some("16MB".parse().unwrap());
    let server = start_with(config);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let held = runtime.block_on(server.state.model(Some("a"))).unwrap();
    let weights = held.summary().weight_bytes.unwrap();
    assert!(weights < 16 << 20 && 2 * weights > 16 << 20, "{weights}: the budget must be chosen anew");
    let refused = server.post("/models/load", &json!({"model": "b"}));
    refused.error(503);
    assert_eq!(refused.json()["error"]["code"], "over_memory_budget");
    server.post("/models/unload", &json!({"model": "a"})).error(409);
    drop(held);
    assert_eq!(server.post("/models/load", &json!({"model": "b"})).status, 200);
    assert_eq!((status(&server, "a"), status(&server, "b")), ("unloaded".to_owned(), "loaded".to_owned()));
}

#[test]
fn names_lead_to_models() {
    let mut config = config();
    config.alias = vec!["gpt-4".to_owned(), "small".to_owned()];
    let server = start_with(config);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for name in
        [None, Some(""), Some("small"), Some("small:latest"), Some(bitnet_tiny::NAME), Some("unknown")]
    {
        let model = runtime.block_on(server.state.model(name)).unwrap();
        assert_eq!(model.id(), "gpt-4", "{name:?}");
    }
    let mut config = crate::support::config();
    config.strict_models = true;
    let server = start_with(config);
    let error = runtime.block_on(server.state.model(Some("unknown"))).unwrap_err();
    assert_eq!(error.status.as_u16(), 404);
}
