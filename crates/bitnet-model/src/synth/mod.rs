//! Shape-true models with random ternary weights, to measure speed and memory without the real weights.
//!
//! * [`ShapePreset`]: the shapes of published models. Any other [`ModelSpec`] will do as well.
//! * [`write()`]: writes a complete model, folder or GGUF file, as [`load`](mod@crate::load) reads it.
//!
//! Weights are a function of seed and place, so every form of a model holds the same trits. Scales are such that
//! activations keep their size from layer to layer. The text that comes out is noise. Weights are generated and written
//! in blocks of rows: memory use does not depend on the size of the model.

mod config;
mod error;
mod families;
mod output;
mod preset;
mod random;
mod tensors;
mod vocabulary;

use std::path::{Path, PathBuf};

use crate::ModelSpec;
pub use error::SynthError;
pub use preset::ShapePreset;

/// Result with [`SynthError`].
type Result<T, E = SynthError> = std::result::Result<T, E>;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SynthFormat {
    /// A folder with packed safetensors, as bitnet-b1.58-2B-4T is published.
    SafetensorsPacked,
    /// A folder with bf16 masters in safetensors, which give the same trits when they are loaded.
    SafetensorsBf16,
    /// A GGUF file with I2_S.
    GgufI2s,
}

/// The vocabulary of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vocabulary {
    /// 256 bytes, made-up words and special tokens with the names of Llama 3's, at its places if there are 128256
    /// tokens.
    Dummy,
    /// A `tokenizer.json` or a tiktoken file.
    Tokenizer(PathBuf),
}

/// How a model is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthOptions {
    /// What is written.
    pub format: SynthFormat,
    /// Its vocabulary.
    pub vocabulary: Vocabulary,
    /// Determines all weights.
    pub seed: u64,
    /// Whether files that are there may be replaced.
    pub overwrite: bool,
}

/// Writes a model: to the folder `out`, or to the file `out` for GGUF. `progress` is called with bytes of weights
/// written and to write.
///
/// Files appear under their names when they are complete, `config.json` last.
///
/// # Errors
/// [`SynthError`] if the shape is impossible in this format, the vocabulary does not fit, something is there already,
/// or writing fails.
pub fn write(
    out: &Path,
    spec: &ModelSpec,
    options: &SynthOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    spec.validate().map_err(SynthError::Spec)?;
    config::check(spec, options.format)?;
    output::check_free(out, options)?;
    let vocabulary = vocabulary::Vocab::build(&options.vocabulary, spec.vocab_size)?;
    match options.format {
        SynthFormat::GgufI2s => output::gguf(out, spec, options.seed, &vocabulary, progress),
        format => output::folder(out, spec, format, options.seed, &vocabulary, progress),
    }
}
