//! [`ConvertError`]: why a model could not be converted. Messages name file, tensor or field, value and remedy.

use std::path::PathBuf;

use bitnet_core::MemorySize;

/// What can go wrong while a model is converted. Whatever it is, nothing half-written stays under the name asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The source, or what was written, could not be loaded.
    #[error(transparent)]
    Load(#[from] bitnet_model::LoadError),
    /// A container could not be read or written.
    #[error(transparent)]
    Format(#[from] bitnet_formats::FormatError),
    /// A tokenizer or template cannot be carried over.
    #[error(transparent)]
    Text(#[from] bitnet_text::TextError),
    /// A file could not be read.
    #[error(transparent)]
    Core(#[from] bitnet_core::CoreError),
    /// The stored ternary weights are wrong, or cannot be packed.
    #[error("tensor {tensor}: {source}")]
    Quant {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: bitnet_quant::QuantError,
    },
    /// The target cannot hold the model.
    #[error("{target} cannot hold this model: {what}; {remedy}")]
    Unsupported {
        /// Name of the target.
        target: &'static str,
        /// What it cannot hold.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A graph could not be written.
    #[error(transparent)]
    Export(bitnet_model::export::ExportError),
    /// The name of a file was given for what is a folder.
    #[error(
        "{} is the name of a file, but an ONNX model is a folder (model.onnx, config.json, tokenizer); name one, such as {}",
        path.display(), folder.display()
    )]
    FolderNeeded {
        /// The path that was given.
        path: PathBuf,
        /// One that would do.
        folder: PathBuf,
    },
    /// There is something under the name asked for.
    #[error("{} exists; name another place, or allow to replace it", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// Replacing what is there would lose more than a model.
    #[error("{} is not replaced: {why}; name another place", path.display())]
    Protected {
        /// The place.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// Not enough room on the disk.
    #[error(
        "{} has {available} free, but {needed} are needed{}; free some, or name another place", path.display(),
        if *keep == MemorySize::bytes(0) { String::new() } else { format!(" beside the {keep} to keep free") }
    )]
    DiskFull {
        /// The folder that was to be written to.
        path: PathBuf,
        /// Bytes of the output.
        needed: MemorySize,
        /// Bytes to keep free.
        keep: MemorySize,
        /// Bytes there are.
        available: MemorySize,
    },
    /// A file could not be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The caller asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// What was written is not what was read.
    #[error("verification failed: {what}")]
    Mismatch {
        /// The first difference.
        what: String,
    },
    /// There is nothing to quantise.
    #[error(
        "{place}: the weights are ternary already ({found}); use `bitnet convert` to write them in another form"
    )]
    AlreadyTernary {
        /// The model.
        place: String,
        /// Their form.
        found: String,
    },
}

/// Result with [`ConvertError`].
pub type Result<T, E = ConvertError> = std::result::Result<T, E>;

impl From<bitnet_model::export::ExportError> for ConvertError {
    fn from(error: bitnet_model::export::ExportError) -> Self {
        match error {
            bitnet_model::export::ExportError::Interrupted => Self::Interrupted,
            error => Self::Export(error),
        }
    }
}

impl ConvertError {
    pub(crate) fn quant(tensor: &str) -> impl Fn(bitnet_quant::QuantError) -> Self + '_ {
        move |source| Self::Quant { tensor: tensor.to_owned(), source }
    }

    pub(crate) fn mismatch(what: impl Into<String>) -> Self {
        Self::Mismatch { what: what.into() }
    }
}
