//! GGUF, versions 2 and 3, little-endian: reader, typed metadata and writer.
//!
//! A file is: magic, version (u32), number of tensors and of metadata pairs (u64 each); the pairs (key, type, value);
//! for each tensor its name, dimensions (innermost first), type number and offset; padding; the data. Offsets count
//! from the beginning of the data and are multiples of `general.alignment` (32 if it is not given).
//!
//! * [`read_gguf`], [`GgufFile`]: a file.
//! * [`read_gguf_parts`]: a file, or a model in several of them.
//! * [`GgufValue`], [`GgufArray`], [`GgufMetadata`]: metadata with its types.
//! * [`create_gguf`]: writes a file while the tensors are being computed.

mod cursor;
mod metadata;
mod parts;
mod reader;
mod value;
mod writer;

pub use metadata::GgufMetadata;
pub use parts::{OpenBeside, gguf_part_of, read_gguf_parts};
pub use reader::{GgufFile, read_gguf};
pub use value::{GgufArray, GgufValue};
pub use writer::create_gguf;

/// First bytes of every file.
const MAGIC: &[u8; 4] = b"GGUF";
/// Alignment of the data if the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Most dimensions that ggml tensors have.
const MAX_DIMENSIONS: u32 = 4;
const ALIGNMENT_KEY: &str = "general.alignment";
