//! How the trits of one matrix are stored, and the packers that write the same bytes.
//!
//! * [`two_bit`]: two bits a trit without scales: Hugging Face packing and I2_S.
//! * [`tq`]: TQ1_0 and TQ2_0 of ggml, blocks of 256 with an f16 scale each.
//! * [`bn`]: IQ1_BN, IQ2_BN and IQ2_BN_R4 of `ik_llama.cpp`, rows with a scale each.
//! * [`tl`]: TL1 and TL2 of bitnet.cpp, whose tiles depend on the shape.
//! * [`dense`]: float weights, rounded while they are read.
//!
//! A trit `t` in {-1, 0, +1} is the two-bit code `t + 1` or the base-3 digit `t + 1`; other codes stand for nothing and
//! are refused. Shapes are `[rows, cols]` with `rows` the output features. Layouts are described in the transformers,
//! bitnet.cpp, ggml, gguf-py and ik_llama.cpp sources.
//!
//! A [`TernaryMatrix`](crate::TernaryMatrix) has one scale. Types with a scale for each block or row store it many
//! times over; [`TritCodec::common_scale`] finds the one that they all have.

pub mod bn;
pub mod dense;
mod digits;
pub mod tl;
pub mod tq;
pub mod two_bit;

use bitnet_core::DenseType;

use crate::{QuantError, Result};

pub use bn::{pack_iq1_bn, pack_iq2_bn, pack_iq2_bn_r4};
pub use tl::{TlTiles, pack_tl1, pack_tl2};
pub use tq::{pack_tq1_0, pack_tq2_0};
pub use two_bit::{I2sLayout, i2s_tail, pack_hf, pack_i2s};

/// How the trits of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TritCodec {
    /// Hugging Face packing: `[rows/4, cols]` bytes; byte `[r, c]` holds rows `r, R+r, 2R+r, 3R+r` (`R = rows/4`)
    /// of column `c`, the first in bits 1-0.
    HfPacked,
    /// GGUF I2_S, without its scale and padding tail.
    I2S(I2sLayout),
    /// GGUF TQ1_0: five trits a byte, blocks of 256 with an f16 scale.
    Tq1_0,
    /// GGUF TQ2_0: two bits a trit, blocks of 256 with an f16 scale.
    Tq2_0,
    /// GGUF IQ1_BN: five trits a byte, rows with an f16 scale.
    Iq1Bn,
    /// GGUF IQ2_BN: two bits a trit, rows with an f32 scale.
    Iq2Bn,
    /// GGUF IQ2_BN_R4: as IQ2_BN, four rows interleaved.
    Iq2BnR4,
    /// GGUF TL1 in these tiles, without its scale: pairs of trits in four bits.
    Tl1(TlTiles),
    /// GGUF TL2 in these tiles, without padding and scale: triples of trits in five bits.
    Tl2(TlTiles),
    /// Float weights, rounded to trits while they are read.
    Dense {
        /// How they are stored.
        dtype: DenseType,
        /// What a weight is multiplied by before rounding, from [`absmean::measure`](crate::absmean::measure).
        inv: f32,
    },
}

impl TritCodec {
    /// Name for messages.
    pub const fn name(self) -> &'static str {
        match self {
            TritCodec::HfPacked => "packed safetensors",
            TritCodec::I2S(I2sLayout::Group128) => "I2_S",
            TritCodec::I2S(I2sLayout::Group64) => "I2_S (64-group)",
            TritCodec::I2S(I2sLayout::Rows4) => "I2_S (1x4)",
            TritCodec::Tq1_0 => "TQ1_0",
            TritCodec::Tq2_0 => "TQ2_0",
            TritCodec::Iq1Bn => "IQ1_BN",
            TritCodec::Iq2Bn => "IQ2_BN",
            TritCodec::Iq2BnR4 => "IQ2_BN_R4",
            TritCodec::Tl1(_) => "TL1",
            TritCodec::Tl2(_) => "TL2",
            TritCodec::Dense { .. } => "dense",
        }
    }

    /// What `rows` and `cols` must be multiples of, with the rule for messages.
    const fn multiples(self) -> (usize, usize, &'static str) {
        const ROWS4: &str = "the number of rows must be a multiple of 4";
        const COLS128: &str = "the number of columns must be a multiple of 128";
        const COLS64: &str = "the number of columns must be a multiple of 64";
        const COLS256: &str = "the number of columns must be a multiple of 256";
        match self {
            TritCodec::HfPacked | TritCodec::I2S(I2sLayout::Rows4) => (4, 1, ROWS4),
            TritCodec::I2S(I2sLayout::Group128) => (1, 128, COLS128),
            TritCodec::I2S(I2sLayout::Group64) | TritCodec::Iq1Bn | TritCodec::Iq2Bn => (1, 64, COLS64),
            TritCodec::Tq1_0 | TritCodec::Tq2_0 => (1, 256, COLS256),
            TritCodec::Iq2BnR4 => (4, 64, "rows must be a multiple of 4 and columns of 64"),
            TritCodec::Dense { dtype, .. } => {
                (1, dtype.block_len(), "the number of columns must be whole blocks of the type")
            }
            TritCodec::Tl1(_) | TritCodec::Tl2(_) => (1, 1, ""),
        }
    }

    /// Bytes that `[rows, cols]` take.
    ///
    /// # Errors
    /// [`QuantError::UnsupportedShape`] if the layout cannot hold the shape.
    pub fn byte_len(self, rows: usize, cols: usize) -> Result<u64> {
        let refuse = |rule| QuantError::UnsupportedShape { codec: self.name(), rows, cols, rule };
        let product = (rows as u64).checked_mul(cols as u64).ok_or_else(|| refuse("too large"))?;
        let (row_unit, col_unit, rule) = self.multiples();
        if !rows.is_multiple_of(row_unit) || !cols.is_multiple_of(col_unit) {
            return Err(refuse(rule));
        }
        let with_row_head = |head: u64| product / 4 + head * rows as u64;
        match self {
            TritCodec::HfPacked | TritCodec::I2S(_) => Ok(product / 4),
            TritCodec::Tq1_0 => Ok(product / 256 * tq::TQ1_BYTES as u64),
            TritCodec::Tq2_0 => Ok(product / 256 * tq::TQ2_BYTES as u64),
            TritCodec::Iq1Bn => Ok(product / 64 * bn::IQ1_BYTES as u64 + 2 * rows as u64),
            TritCodec::Iq2Bn | TritCodec::Iq2BnR4 => Ok(with_row_head(4)),
            TritCodec::Tl1(tiles) => tiles.check_tl1(rows, cols).map_err(refuse).map(|()| product / 4),
            TritCodec::Tl2(tiles) => {
                tiles.check_tl2(rows, cols).map_err(refuse)?;
                Ok(tl::tl2_len(tiles, rows, cols))
            }
            TritCodec::Dense { dtype, .. } => (product / dtype.block_len() as u64)
                .checked_mul(dtype.block_bytes() as u64)
                .ok_or_else(|| refuse("too large")),
        }
    }

    /// Reads stored row `row` of `[rows, out.len()]` from the bytes of the whole matrix.
    /// Returns false if a code stands for no trit.
    pub(crate) fn decode_row(self, data: &[u8], rows: usize, row: usize, out: &mut [i8]) -> bool {
        match self {
            TritCodec::HfPacked => two_bit::decode_hf(data, rows, row, out),
            TritCodec::I2S(layout) => two_bit::decode_i2s(layout, data, row, out),
            TritCodec::Tq1_0 => tq::decode_tq1_0(data, row, out),
            TritCodec::Tq2_0 => tq::decode_tq2_0(data, row, out),
            TritCodec::Iq1Bn => bn::decode_iq1_bn(data, row, out),
            TritCodec::Iq2Bn => bn::decode_iq2_bn(data, row, out),
            TritCodec::Iq2BnR4 => bn::decode_iq2_bn_r4(data, row, out),
            TritCodec::Tl1(tiles) => tl::decode_tl1(tiles, data, row, out),
            TritCodec::Tl2(tiles) => tl::decode_tl2(tiles, data, rows, row, out),
            TritCodec::Dense { dtype, inv } => {
                dense::decode(dtype, inv, data, row, out);
                true
            }
        }
    }

    /// The one scale of a matrix whose codec stores a scale for each block or row; `None` for the other codecs.
    ///
    /// Blocks and rows with the scale 0 are zeros whatever their codes, as all-zero blocks are written: they do not
    /// count. A matrix of nothing else has the scale 1.
    ///
    /// # Errors
    /// [`QuantError::SeveralScales`] if two of them differ, [`QuantError::BadScale`] for one that is not a number, and
    /// [`QuantError::UnsupportedShape`] and [`QuantError::WrongLength`] as for a matrix.
    pub fn common_scale(self, data: &[u8], rows: usize, cols: usize) -> Result<Option<f32>> {
        if !self.stores_scales() {
            return Ok(None);
        }
        let (expected, found) = (self.byte_len(rows, cols)?, data.len() as u64);
        if expected != found {
            return Err(QuantError::WrongLength { codec: self.name(), rows, cols, expected, found });
        }
        let mut first: Option<(usize, f32)> = None;
        for row in 0..rows {
            let mut wrong = None;
            self.row_scales(data, cols, row, &mut |scale| {
                if scale == 0.0 || wrong.is_some() {
                    return;
                }
                if !scale.is_finite() {
                    wrong = Some(QuantError::BadScale { scale });
                    return;
                }
                let &mut (first_row, first) = first.get_or_insert((row, scale));
                if first != scale {
                    wrong = Some(QuantError::SeveralScales {
                        codec: self.name(),
                        first_row,
                        first,
                        other_row: row,
                        other: scale,
                    });
                }
            });
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
        }
        Ok(Some(first.map_or(1.0, |(_, scale)| scale)))
    }
}

impl TritCodec {
    /// Whether each block or row has its scale.
    const fn stores_scales(self) -> bool {
        use TritCodec::{Iq1Bn, Iq2Bn, Iq2BnR4, Tq1_0, Tq2_0};
        matches!(self, Tq1_0 | Tq2_0 | Iq1Bn | Iq2Bn | Iq2BnR4)
    }

    /// Shows every scale of a stored row to `see`.
    fn row_scales(self, data: &[u8], cols: usize, row: usize, see: &mut dyn FnMut(f32)) {
        match self {
            TritCodec::Tq1_0 | TritCodec::Tq2_0 => tq::row_scales(self, data, cols, row, see),
            _ => see(bn::row_scale(self, data, cols, row)),
        }
    }
}

/// Checks what every packer is given; returns the length of its result.
fn packed_len(codec: TritCodec, trits: &[i8], rows: usize, cols: usize) -> Result<usize> {
    let len = codec.byte_len(rows, cols)?;
    assert_eq!(trits.len(), rows * cols, "shape");
    assert!(trits.iter().all(|t| (-1..=1).contains(t)), "trits");
    Ok(len as usize)
}

#[cfg(test)]
mod tests;
