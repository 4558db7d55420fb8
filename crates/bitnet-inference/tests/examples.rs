//! The examples run to their end.
#![allow(clippy::unwrap_used)]

#[path = "../examples/batch.rs"]
mod batch;
#[path = "../examples/chat.rs"]
mod chat;
#[path = "../examples/custom_sampler.rs"]
mod custom_sampler;
#[path = "../examples/embedding.rs"]
mod embedding;
#[path = "../examples/json.rs"]
mod json;
#[path = "../examples/simple.rs"]
mod simple;
#[path = "../examples/streaming.rs"]
mod streaming;

#[test]
fn a_batch() {
    batch::main().unwrap();
}

#[test]
fn a_chat() {
    chat::main().unwrap();
}

#[test]
fn a_custom_sampler() {
    custom_sampler::main().unwrap();
}

#[test]
fn an_embedding() {
    embedding::main().unwrap();
}

#[test]
fn json_of_a_schema() {
    json::main().unwrap();
}

#[test]
fn the_shortest_way() {
    simple::main().unwrap();
}

#[test]
fn a_stream() {
    streaming::main().unwrap();
}
