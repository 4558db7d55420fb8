//! HTTP server for BitNet models: the APIs that clients know, metrics, a chat page.
//!
//! * [`Server`] serves, or gives its routes to another axum application ([`Server::router`]).
//! * [`ServerConfig`] is everything that can be set; [`config::ConfigSources`] reads it from flags, environment and file.
//! * [`Offline::answer`] answers a body without a connection, [`offline`] reads fields of one: for work from files.
//! * [`AppState`], [`ModelHandle`], [`RequestContext`], [`ApiError`]: what handlers work with.
//!
//! Handlers translate: a request of some API becomes a request to an engine, its events become that API's events. Models
//! run on the threads of their engines, never on those of the runtime; scheduling and sampling are the engine's.
#![forbid(unsafe_code)]

mod anthropic;
mod common;
pub mod config;
mod context;
mod error;
mod extract;
pub mod logging;
mod metrics;
mod middleware;
mod models;
mod native;
pub mod offline;
mod ollama;
mod openai;
#[cfg(feature = "otel")]
mod otel;
mod routes;
mod serve;
mod server;
mod state;
pub mod web;

pub use config::ServerConfig;
pub use context::RequestContext;
pub use error::{ApiError, ServerError};
pub use extract::ApiJson;
pub use metrics::Metrics;
pub use models::{ModelHandle, ModelState, ModelSummary, TrackedStream};
pub use offline::{Answered, Offline};
pub use serve::{Address, Signals, signals};
pub use server::{BoundServer, Server};
pub use state::AppState;
