//! Models through every form and back.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod checkpoints;
#[path = "../../../bitnet-model/tests/support/mod.rs"]
mod made;
mod refusals;
mod round_trips;
mod support;
mod texts;
