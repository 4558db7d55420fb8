//! The client against a Hub on loopback.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]
#![allow(missing_docs, reason = "nothing here is public")]
#![allow(unreachable_pub, reason = "the server is shared with the tests of the command")]

mod cache;
mod check;
mod faults;
mod layout;
mod processes;
mod server;
mod support;
