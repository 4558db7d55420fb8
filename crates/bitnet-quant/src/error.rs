//! The error type of this crate.

/// What can be wrong with stored ternary weights.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum QuantError {
    /// The bytes of a tensor do not fit its shape.
    #[error("{codec} weights of shape [{rows}, {cols}] take {expected} bytes, but {found} are there")]
    WrongLength {
        /// Name of the codec.
        codec: &'static str,
        /// Output rows.
        rows: usize,
        /// Input columns.
        cols: usize,
        /// Bytes that the shape needs.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The codec cannot store this shape.
    #[error("{codec} cannot hold shape [{rows}, {cols}]: {rule}")]
    UnsupportedShape {
        /// Name of the codec.
        codec: &'static str,
        /// Output rows.
        rows: usize,
        /// Input columns.
        cols: usize,
        /// The rule that the shape breaks.
        rule: &'static str,
    },
    /// A code that stands for no trit.
    #[error("row {row} holds a code that stands for no trit; the file is corrupt or has another layout")]
    InvalidCode {
        /// Output row, as the model counts it.
        row: usize,
    },
    /// A scale that is zero, negative, infinite or not a number.
    #[error("weight scale {scale} is not a positive number; the file is corrupt")]
    BadScale {
        /// The scale as a multiplier.
        scale: f32,
    },
    /// Blocks or rows of one matrix have different scales.
    #[error(
        "{codec} weights with the scale {first} in row {first_row} and {other} in row {other_row}: a ternary matrix has \
         one scale; quantise the full-precision model to ternary weights first, then write it as {codec}"
    )]
    SeveralScales {
        /// Name of the codec.
        codec: &'static str,
        /// Stored row of the first scale.
        first_row: usize,
        /// The first scale that is not zero.
        first: f32,
        /// Stored row of the other.
        other_row: usize,
        /// The first scale that differs from it.
        other: f32,
    },
    /// A way to quantise that there is not.
    #[error("{field} = {value} is not supported, only {supported}")]
    Unsupported {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be, and why.
        supported: &'static str,
    },
    /// A master weight that is infinite or not a number.
    #[error("master weight {index} is {value}; only finite weights can be quantised")]
    NotFinite {
        /// Flat index of the weight.
        index: usize,
        /// Its value.
        value: f32,
    },
}

/// Result with [`QuantError`].
pub type Result<T, E = QuantError> = std::result::Result<T, E>;
