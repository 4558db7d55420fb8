//! ONNX: graphs of operators with their tensors, in protobuf.
//!
//! * [`read_onnx`] reads a model: nodes, initialisers, `Constant` nodes and data in files beside it. Tensors are views of
//!   the mapped file; only numbers that are stored as varints are decoded into memory.
//! * [`create_onnx`] writes one while its tensors are being computed.
//!
//! The protobuf encoding is read in place by a small reader of its own rather than by generated structures, which would
//! copy every list of numbers. Field numbers and types are those of `onnx.proto` (format version 13). Not here: what the
//! graph computes.

mod budget;
mod encode;
mod external;
mod model;
mod reader;
mod tensor;
mod wire;
mod writer;

pub use model::{OnnxAttribute, OnnxFile, OnnxNode};
pub use reader::read_onnx;
pub use writer::{OnnxDim, OnnxPlan, OnnxValueInfo, OnnxWriter, create_onnx};
