//! OpenAI's API through the routes of a server with the bundled model.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "tests end where something is not as it must be"
)]

mod bad;
mod chat;
mod completions;
mod others;
mod responses;
mod support;
mod tools;
