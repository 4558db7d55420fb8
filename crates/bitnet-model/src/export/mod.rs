//! Writing loaded models in formats that need more than renamed tensors.
//!
//! * [`onnx`]: a complete graph that other programs can run.
//! * [`gguf_shape`]: what GGUF files tell of a model's shape.

mod error;
mod gguf;
pub mod onnx;

pub use error::ExportError;
pub use gguf::gguf_shape;
pub use onnx::{OnnxOptions, OnnxWeights, onnx_bytes, write_onnx};
