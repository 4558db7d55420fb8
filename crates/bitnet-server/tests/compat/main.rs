//! The APIs of Anthropic, ollama and llama-server on the bundled model, through the routes that a server has.

mod anthropic;
mod native;
mod ollama;
mod support;
