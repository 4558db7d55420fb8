//! OpenAI's API through the routes of a server with the bundled model.

mod bad;
mod chat;
mod completions;
mod others;
mod responses;
mod support;
mod tools;
