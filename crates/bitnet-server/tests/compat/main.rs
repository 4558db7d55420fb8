//! The APIs of Anthropic, ollama and llama-server on the bundled model, through the routes that a server has.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod anthropic;
mod native;
mod ollama;
mod support;
