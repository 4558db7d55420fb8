//! HTTP server for BitNet models.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "until the API families that read requests with it are here")]
mod common;
