//! Ternary codecs and quantisers of BitNet b1.58.
//!
//! * [`matrix`]: [`TernaryMatrix`], a ternary weight matrix as it lies in a file, read row by row as trits.
//! * [`codec`]: how the trits of a row are stored ([`TritCodec`]), and the packers that write them.
//! * [`absmean`]: ternary weights from full-precision masters.
//! * [`absmax`]: int8 activations, one scale a token row.
//!
//! Nothing here multiplies: executors decode rows once, at load, into the layout that suits their kernels.
#![forbid(unsafe_code)]

pub mod absmax;
pub mod absmean;
pub mod codec;
mod error;
pub mod matrix;

pub use codec::{I2sLayout, TritCodec};
pub use error::{QuantError, Result};
pub use matrix::{RowOrder, TernaryMatrix};
