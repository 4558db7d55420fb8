//! The server over real connections.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod abuse;
mod basics;
mod generation;
mod lifecycle;
mod models;
mod stream;
mod support;
mod tls;
