//! The bundled model: a trained 36-million-parameter BitNet b1.58 model as bytes in the binary.
//!
//! It is a complete Hugging Face model directory in the packed layout of bitnet-b1.58-2B-4T, so a loader treats it
//! like any other model: [`files`] lists name and content, and the constants give each file by itself. `MODEL.md`
//! in this crate tells how the model was made, what it is good for and its licence.
//!
//! This crate holds data. Parsing the weights and the tokenizer is the business of the crates that know the formats.

#![forbid(unsafe_code)]

/// The name under which the bundled model is listed and asked for.
pub const NAME: &str = "bitnet-tiny";

/// Alignment in bytes of [`MODEL_SAFETENSORS`]: a cache line, and more than any tensor element needs.
pub const WEIGHTS_ALIGNMENT: usize = 64;

/// Bytes that start on a multiple of [`WEIGHTS_ALIGNMENT`].
///
/// `include_bytes!` alone promises an alignment of 1, with which no bf16 tensor could be used in place.
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../model/model.safetensors"));

/// `model.safetensors`: ternary weights as u8 (four rows to a byte), embeddings, norms and weight scales as bf16.
///
/// The slice starts on a multiple of [`WEIGHTS_ALIGNMENT`], and the file's data section on a multiple of 8 within
/// it, so the bf16 tensors can be read in place.
pub static MODEL_SAFETENSORS: &[u8] = &WEIGHTS.0;

/// `config.json`: the architecture (`BitNetForCausalLM`) and the form of quantisation.
pub static CONFIG_JSON: &[u8] = include_bytes!("../model/config.json");

/// `generation_config.json`: the sampling defaults and the stop tokens.
pub static GENERATION_CONFIG_JSON: &[u8] = include_bytes!("../model/generation_config.json");

/// `tokenizer.json`: byte-level BPE over 8192 tokens with the special tokens of Llama 3.
pub static TOKENIZER_JSON: &[u8] = include_bytes!("../model/tokenizer.json");

/// `tokenizer_config.json`: the names of the special tokens and the chat template.
pub static TOKENIZER_CONFIG_JSON: &[u8] = include_bytes!("../model/tokenizer_config.json");

/// Every file of the model directory as (file name, content).
#[must_use]
pub fn files() -> [(&'static str, &'static [u8]); 5] {
    [
        ("config.json", CONFIG_JSON),
        ("generation_config.json", GENERATION_CONFIG_JSON),
        ("model.safetensors", MODEL_SAFETENSORS),
        ("tokenizer.json", TOKENIZER_JSON),
        ("tokenizer_config.json", TOKENIZER_CONFIG_JSON),
    ]
}
