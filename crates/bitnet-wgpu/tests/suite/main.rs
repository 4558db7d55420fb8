//! The executor on an adapter: Mesa's lavapipe will do.
//!
//! One binary, so that it is linked once and its tests share what tells of adapters.
#![allow(clippy::unwrap_used)]

mod common;
mod conformance;
mod device;
mod invariance;
mod models;
mod top;
