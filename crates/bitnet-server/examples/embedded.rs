//! The server's routes inside an axum application of one's own.
//!
//! `cargo run -p bitnet-server --example embedded -- 127.0.0.1:8080` serves it; without an address it asks itself.
#![allow(clippy::print_stdout)]

use std::error::Error;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::routing::get;
use bitnet_server::{Server, ServerConfig};
use tower::ServiceExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(address) => {
            let listener = tokio::net::TcpListener::bind(&address).await?;
            println!("serving on http://{address}");
            Ok(axum::serve(listener, application().await?).await?)
        }
        None => ask().await,
    }
}

/// An application with a page of its own, and the server's APIs below `/llm`.
async fn application() -> Result<Router, Box<dyn Error>> {
    let server = Server::new(ServerConfig::default())?;
    server.load_models().await?;
    // Unloads idle models and tends the metrics for as long as the routes live.
    tokio::spawn(server.chores());
    let own = Router::new().route("/", get(async || "a page of the application's own"));
    Ok(own.nest("/llm", server.router()?))
}

/// Asks the application as a client would.
pub(crate) async fn ask() -> Result<(), Box<dyn Error>> {
    let app = application().await?;
    for path in ["/", "/llm/health", "/llm/v1/models"] {
        let response = app.clone().oneshot(Request::get(path).body(Body::empty())?).await?;
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await?;
        println!("{path}: {status} {}", String::from_utf8_lossy(&body));
        assert_eq!(status, StatusCode::OK);
    }
    Ok(())
}
