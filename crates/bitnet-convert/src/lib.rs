//! From one form of a BitNet model to another, verified.
//!
//! * [`convert`]: any model that loads, written in another form ([`Target`]), under a temporary name, read back, compared
//!   with the original tensor by tensor and text by text, and only then given its name. The [`Report`] says what is equal
//!   and what was rounded, and how much.
//! * [`verify`]: the same comparison of two models that are there.
//! * [`quantize`]: a ternary model from a full-precision checkpoint, with the error that rounding makes.
//!
//! Everything goes through [`bitnet_model::load()`], so whatever loads can be converted. Weights are streamed in blocks of
//! rows: memory does not grow with the model. Not here: reading (`bitnet-formats`, `bitnet-model`) and the packings
//! (`bitnet-quant`).
#![forbid(unsafe_code)]

mod convert;
mod error;
mod gguf;
mod hugging;
mod masters;
mod names;
mod onnx;
mod options;
mod output;
mod plan;
mod quantize;
mod report;
mod source;
mod stream;
mod text;
mod verify;

pub use bitnet_model::export::OnnxWeights;
pub use convert::{convert, verify};
pub use error::{ConvertError, Result};
pub use options::{ConvertOptions, Progress, Stage, TableType, Target};
pub use quantize::{ProjectionError, QuantizeReport, quantize};
pub use report::{Report, Rounding, TextCheck, Verification};
