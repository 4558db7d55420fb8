//! The engine as a user has it, with the bundled model.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod anatomy;
mod benchmark;
mod constraints;
mod drawing;
mod embed;
mod evaluate;
mod generate;
mod infer;
mod library;
mod lm_head;
mod mixed;
mod model_cache;
mod prefix;
mod reference;
mod sampling;
mod scheduler;
mod session_file;
mod standby;
mod support;
mod ties;
