//! [`TernaryMatrix`]: a ternary weight matrix as it lies in a file.

use bitnet_core::bytes::ByteView;

use crate::codec::TritCodec;
use crate::{QuantError, Result};

/// In which order a file stores the rows of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// As the model counts them.
    #[default]
    Natural,
    /// Query and key rows of llama-architecture GGUF files: within each head the two rotary halves are interleaved,
    /// so that model row `h * head_dim/2 + j` (`h` = half) is stored at `2 * j + h`.
    RotaryInterleaved {
        /// Rows of one head; even.
        head_dim: usize,
    },
}

impl RowOrder {
    /// The stored row that holds model row `row`.
    pub fn stored_row(self, row: usize) -> usize {
        match self {
            RowOrder::Natural => row,
            RowOrder::RotaryInterleaved { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let half = head_dim / 2;
                head * head_dim + 2 * (within % half) + within / half
            }
        }
    }
}

/// A ternary weight matrix `[rows, cols]` (`rows` = output features) with one scale, still in its file's form.
///
/// The product with int8 activations `q` of scale `s` is `sum(q * t) * (scale / s)`; loaders turn reciprocal scales
/// over before they build this. Cheap to clone; rows can be decoded from several threads at once.
#[derive(Debug, Clone)]
pub struct TernaryMatrix {
    rows: usize,
    cols: usize,
    scale: f32,
    codec: TritCodec,
    order: RowOrder,
    data: ByteView,
}

impl TernaryMatrix {
    /// Describes `data`, the bytes of exactly this matrix.
    ///
    /// # Errors
    /// If the shape does not fit the codec or the bytes, or the scale is not a positive finite number.
    pub fn new(
        rows: usize,
        cols: usize,
        scale: f32,
        codec: TritCodec,
        order: RowOrder,
        data: ByteView,
    ) -> Result<Self> {
        let expected = codec.byte_len(rows, cols)?;
        let found = data.len() as u64;
        if expected != found {
            return Err(QuantError::WrongLength { codec: codec.name(), rows, cols, expected, found });
        }
        if let RowOrder::RotaryInterleaved { head_dim } = order
            && (head_dim == 0 || !head_dim.is_multiple_of(2) || !rows.is_multiple_of(head_dim))
        {
            let rule = "the number of rows must be a multiple of an even head size";
            return Err(QuantError::UnsupportedShape { codec: codec.name(), rows, cols, rule });
        }
        if !(scale.is_finite() && scale > 0.0) {
            return Err(QuantError::BadScale { scale });
        }
        Ok(Self { rows, cols, scale, codec, order, data })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What a trit stands for; multiplies the product.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// How the trits are stored.
    pub fn codec(&self) -> TritCodec {
        self.codec
    }

    /// In which order the rows are stored.
    pub fn order(&self) -> RowOrder {
        self.order
    }

    /// The stored bytes.
    pub fn data(&self) -> &ByteView {
        &self.data
    }

    /// Decodes model row `row` to trits, `out` being `[cols]`.
    ///
    /// # Errors
    /// [`QuantError::InvalidCode`] if the file holds a code that stands for no trit.
    ///
    /// # Panics
    /// If `row` or the length of `out` do not fit the shape.
    pub fn decode_row(&self, row: usize, out: &mut [i8]) -> Result<()> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "one trit for each column");
        let stored = self.order.stored_row(row);
        if self.codec.decode_row(self.data.as_slice(), self.rows, stored, out) {
            Ok(())
        } else {
            Err(QuantError::InvalidCode { row })
        }
    }

    /// All trits, `[rows, cols]` row-major: for tests, tools and the reference forward pass.
    ///
    /// # Errors
    /// As [`TernaryMatrix::decode_row`].
    pub fn to_trits(&self) -> Result<Vec<i8>> {
        let mut out = vec![0i8; self.rows * self.cols];
        if self.cols > 0 {
            for (row, out) in out.chunks_exact_mut(self.cols).enumerate() {
                self.decode_row(row, out)?;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
