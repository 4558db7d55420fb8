//! The examples run to their end.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "its `main` would read this program's arguments")]
#[path = "../examples/embedded.rs"]
mod embedded;

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_server() {
    embedded::ask().await.unwrap();
}
