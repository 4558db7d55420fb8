//! [`LoadError`]: why a model could not be loaded. Messages name the file, the tensor or field, its value and a remedy.

use std::path::PathBuf;

use crate::SpecError;

/// A shape as people write it: `[2560, 640]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeText(pub Vec<u64>);

impl std::fmt::Display for ShapeText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What can go wrong while a model is loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is nothing at the path.
    #[error(
        "{}: no such file or folder; give a model folder, or a .gguf, .safetensors, .onnx or PyTorch file",
        path.display()
    )]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A folder could not be listed.
    #[error("cannot list {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The folder or file holds no model in a form that can be read.
    #[error(
        "{place}: {found}; expected config.json with *.safetensors, pytorch_model.bin or one .onnx file, or one .gguf file"
    )]
    NoModel {
        /// Folder or file.
        place: String,
        /// What is there instead.
        found: String,
    },
    /// The folder holds several models.
    #[error("{place} holds several models ({}); give the path of one of them", names.join(", "))]
    Ambiguous {
        /// The folder.
        place: String,
        /// The candidates.
        names: Vec<String>,
    },
    /// A file that must be there is not.
    #[error("{place}: {file} is missing; {remedy}")]
    MissingFile {
        /// The folder.
        place: String,
        /// The file.
        file: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file is not the JSON that it should be.
    #[error("{file} is not valid JSON: {message}; the file is damaged, fetch it again")]
    Json {
        /// The file.
        file: String,
        /// What the parser said, with line and column.
        message: String,
    },
    /// A field that must be there is not.
    #[error("{file}: the field {field} is missing; {remedy}")]
    MissingField {
        /// The file.
        file: String,
        /// The field, with the objects it is in: `rope_parameters.rope_theta`.
        field: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A field has a value that cannot be right.
    #[error("{file}: {field} is {value}, but must be {expected}")]
    Field {
        /// The file.
        file: String,
        /// The field, with the objects it is in.
        field: String,
        /// Its value, shortened.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// The sizes of the architecture do not fit each other.
    #[error("{file}: {source}")]
    Spec {
        /// The file that gives them.
        file: String,
        /// Which, and why.
        source: SpecError,
    },
    /// A tensor that must be there is not.
    #[error("{file}: tensor {tensor} is missing; {remedy}")]
    MissingTensor {
        /// The file, or the folder of a model in several files.
        file: String,
        /// The tensor.
        tensor: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A tensor does not have the shape that the configuration tells.
    #[error(
        "{file}: tensor {tensor} has the shape {found}, expected {expected}; configuration and weights do not belong together"
    )]
    TensorShape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape, outermost dimension first.
        found: ShapeText,
        /// The shape that the configuration tells.
        expected: ShapeText,
    },
    /// The stored ternary weights are wrong.
    #[error("{file}: tensor {tensor}: {source}")]
    Quant {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: bitnet_quant::QuantError,
    },
    /// The values of a tensor cannot be right.
    #[error(
        "{file}: tensor {tensor} holds {value}, which is not a finite number; the file is damaged, fetch it again"
    )]
    NotFinite {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The first value that is not finite.
        value: f32,
    },
    /// The model uses something that the engine does not do.
    #[error("{file}: {what} is not supported; {remedy}")]
    Unsupported {
        /// The file.
        file: String,
        /// What the model uses, with tensor or field and value.
        what: String,
        /// What can be done.
        remedy: &'static str,
    },
    /// A sound model, but not a BitNet one.
    #[error("{file}: this is not a BitNet model: {why}; the engine runs models with ternary weights only")]
    NotBitNet {
        /// The file.
        file: String,
        /// What tells.
        why: String,
    },
    /// A tokenizer is needed and there is none.
    #[error(
        "{place}: the model has no usable tokenizer ({why}); looked for tokenizer.json, then tokenizer.model \
         (SentencePiece or tiktoken text) or the vocabulary inside a GGUF; put the model's tokenizer.json there or give one with --tokenizer"
    )]
    TokenizerMissing {
        /// Folder or file of the model.
        place: String,
        /// Why there is none.
        why: String,
    },
    /// A model file is malformed.
    #[error(transparent)]
    Format(#[from] bitnet_formats::FormatError),
    /// A tokenizer or chat template is malformed.
    #[error(transparent)]
    Text(#[from] bitnet_text::TextError),
    /// A file could not be opened or mapped.
    #[error(transparent)]
    Core(#[from] bitnet_core::CoreError),
}

impl LoadError {
    /// Whether a file is not what was once written: cut short, or changed. The others are models that cannot be loaded as
    /// they are.
    pub fn is_damage(&self) -> bool {
        use bitnet_formats::FormatError as Format;
        match self {
            Self::Json { .. } | Self::NotFinite { .. } | Self::Quant { .. } => true,
            Self::Format(error) => {
                !matches!(error, Format::Unsupported { .. } | Format::WrongContainer { .. })
            }
            Self::Text(_) | Self::Core(_) => true,
            _ => false,
        }
    }
}

/// Result with [`LoadError`].
pub(crate) type Result<T, E = LoadError> = std::result::Result<T, E>;
