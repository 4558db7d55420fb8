//! [`ExportError`]: why a model could not be written.

/// What can go wrong while a model is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The file could not be written.
    #[error(transparent)]
    Format(#[from] bitnet_formats::FormatError),
    /// The form has nothing for what the model does.
    #[error("a model with {what} cannot be written as {form}")]
    Unsupported {
        /// The form.
        form: &'static str,
        /// What it lacks.
        what: String,
    },
    /// A tensor of the model could not be read.
    #[error(transparent)]
    Core(#[from] bitnet_core::CoreError),
    /// The ternary weights are damaged.
    #[error("{tensor}: {source}")]
    Quant {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: bitnet_quant::QuantError,
    },
    /// A table cannot be rounded to the type asked for.
    #[error(
        "tensor {tensor}, row {row}, holds a value beyond the range of {dtype}; keep its type, or take bf16"
    )]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// The type asked for.
        dtype: bitnet_core::DType,
    },
    /// The caller asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// Result with [`ExportError`].
pub(crate) type Result<T, E = ExportError> = std::result::Result<T, E>;
