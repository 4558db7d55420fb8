//! HTTP server for BitNet models.
#![forbid(unsafe_code)]
