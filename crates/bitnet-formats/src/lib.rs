//! Containers of model files: what tensors and metadata they hold, and how to write them.
//!
//! * [`tensor`]: [`StoredTensor`], a named range of bytes with type and shape, and [`TensorSet`], all of a model's.
//! * [`safetensors`]: single files, shards with their index, and a streaming writer.
//! * [`gguf`]: GGUF versions 2 and 3, its typed metadata, and a streaming writer.
//! * [`detect()`]: which container some bytes are, by content.
//!
//! Readers take a [`ByteView`](bitnet_core::bytes::ByteView) and copy no tensor data. Every count, length and offset
//! is checked against the bytes that are there before anything is allocated for it, so a damaged or hostile file
//! costs an error and no more. What the tensors mean (architectures, packings, scales) is not known here.
#![forbid(unsafe_code)]

mod detect;
mod error;
mod ggml;
pub mod gguf;
mod output;
pub mod safetensors;
pub mod tensor;

pub use detect::{Container, detect};
pub use error::{FormatError, Result};
pub use gguf::{
    GgufArray, GgufFile, GgufMetadata, GgufValue, create_gguf, gguf_part_of, read_gguf, read_gguf_parts,
};
pub use output::TensorWriter;
pub use safetensors::{SafetensorsFile, ShardIndex, create_safetensors, read_safetensors, read_shards};
pub use tensor::{StoredTensor, StoredType, TensorPlan, TensorSet};
