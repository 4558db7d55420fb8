//! Ternary codecs and quantisers of BitNet b1.58.
//!
//! * [`matrix`]: [`TernaryMatrix`], a ternary weight matrix as it lies in a file, read row by row as trits.
//! * [`codec`]: how the trits of a row are stored ([`TritCodec`]), and the packers that write them.
//! * [`elements`]: matrices of single integers or masters, in rows or columns, as graphs store them.
//! * [`int2_tiles`]: the layout of microsoft/BitNet's GPU kernels.
//! * [`absmean`]: ternary weights from full-precision masters.
//! * [`QuantizationConfig`]: a way to quantise as people write it down, and whether this engine computes with it.
//! * [`absmax`]: int8 activations, one scale a token row.
//! * [`statistics`]: how trits are distributed.
//!
//! Nothing here multiplies: executors decode rows once, at load, into the layout that suits their kernels.
#![forbid(unsafe_code)]

pub mod absmax;
pub mod absmean;
pub mod codec;
mod config;
pub mod elements;
mod error;
pub mod int2_tiles;
pub mod matrix;
pub mod statistics;

pub use codec::{I2sLayout, TritCodec};
pub use config::{QuantizationConfig, TritStorage};
pub use elements::{Element, Elements};
pub use error::{QuantError, Result};
pub use matrix::{RowOrder, TernaryMatrix};
pub use statistics::TritCounts;
