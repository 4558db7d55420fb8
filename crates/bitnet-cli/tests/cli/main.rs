//! The command as a user types it.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod bad_input;
mod batch;
mod bench;
mod chat;
mod chat_once;
mod chat_sessions;
mod chat_terminal;
mod config;
mod constraints;
mod convert;
mod embed;
mod evaluate;
mod evaluate_resume;
mod generate;
mod hub;
mod look;
mod machines;
mod models;
mod running;
mod sampling;
mod serve;
mod shell;
mod support;
