//! The end of a server.

use std::net::TcpStream;

use crate::stream::{PATH, long, short};
use crate::support::{config, start, start_with};

#[test]
fn what_runs_is_finished() {
    let mut server = start();
    let idle = server.connect();
    let mut client = server.connect();
    let request = serde_json::json!({"prompt": "Once upon a time", "max_tokens": 200, "seed": 3});
    client.request("POST", PATH, &[], request.to_string().as_bytes());
    assert_eq!(client.head().unwrap().status, 200);
    server.ask_to_end();
    let mut text = Vec::new();
    while let Some(chunk) = client.chunk() {
        text.extend(chunk);
    }
    assert!(!text.is_empty());
    server.join().unwrap();
    drop(idle);
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn what_takes_too_long_is_cut_off() {
    let mut config = config();
    config.shutdown_timeout = 0;
    let mut server = start_with(config);
    let mut client = server.connect();
    client.request("POST", PATH, &[], long().to_string().as_bytes());
    assert_eq!(client.head().unwrap().status, 200);
    server.ask_to_end();
    server.join().unwrap();
    while client.more() {}
}

#[test]
fn who_asks_twice_does_not_wait() {
    let mut config = config();
    config.shutdown_timeout = 86_400;
    let mut server = start_with(config);
    assert_eq!(server.post(PATH, &short("Once", 1)).status, 200);
    let mut client = server.connect();
    client.request("POST", PATH, &[], long().to_string().as_bytes());
    assert_eq!(client.head().unwrap().status, 200);
    server.ask_to_end();
    server.ask_to_end_at_once();
    server.join().unwrap();
    while client.more() {}
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.gguf");
    std::fs::write(&path, b"GGUF, but no more").unwrap();
    let mut config = config();
    config.models =
        vec![bitnet_server::config::ModelConfig { name: None, path: Some(path.display().to_string()) }];
    let mut server = start_with(config);
    let error = server.join().unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains("gguf"), "{error}");
}
