//! Writing loaded models in formats that need more than renamed tensors.
//!
//! * [`onnx`]: a complete graph that other programs can run.

mod error;
pub mod onnx;

pub use error::ExportError;
pub use onnx::{OnnxOptions, OnnxWeights, onnx_bytes, write_onnx};
