//! The server over real connections.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod basics;

mod models;
mod support;
mod tls;
