//! The command as a user types it.

mod bad_input;
mod chat;
mod generate;
mod machines;
mod models;
mod support;
