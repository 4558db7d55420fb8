//! The command as a user types it.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod bad_input;
mod bench;
mod chat;
mod constraints;
mod convert;
mod embed;
mod evaluate;
mod generate;
mod hub;
mod machines;
mod models;
mod sampling;
mod serve;
mod support;
