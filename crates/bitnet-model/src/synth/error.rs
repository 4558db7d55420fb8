//! [`SynthError`]: why a synthetic model could not be written.

use std::path::PathBuf;

/// What can go wrong while a synthetic model is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// There is no preset of this name.
    #[error("there is no shape {name:?}; known are {known}")]
    UnknownShape {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The sizes do not fit each other.
    #[error("the shape is impossible: {0}")]
    Spec(crate::SpecError),
    /// The format cannot hold such a model.
    #[error("{format} cannot hold this model: {problem}")]
    Shape {
        /// The format.
        format: &'static str,
        /// What does not fit.
        problem: String,
    },
    /// The output exists.
    #[error("{} exists already; choose another name or allow overwriting", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// The vocabulary does not fit the model or the format.
    #[error("{origin}: {problem}")]
    Vocabulary {
        /// The tokenizer file.
        origin: String,
        /// What does not fit.
        problem: String,
    },
    /// A file or folder could not be created or written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A weight file could not be written.
    #[error(transparent)]
    Format(#[from] bitnet_formats::FormatError),
    /// The tokenizer file is malformed.
    #[error(transparent)]
    Text(#[from] bitnet_text::TextError),
    /// The tokenizer file could not be read.
    #[error(transparent)]
    Core(#[from] bitnet_core::CoreError),
}
