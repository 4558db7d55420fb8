//! How the trits of one matrix are stored, and the packers that write the same bytes.
//!
//! A trit `t` in {-1, 0, +1} is the two-bit code `t + 1`; code 3 stands for nothing. Shapes are `[rows, cols]` with
//! `rows` the output features. Layouts are described in the transformers, bitnet.cpp and gguf sources.

use bitnet_core::DType;

use crate::{QuantError, Result};
use crate::{absmean, int2_tiles};

/// Byte order of GGUF type 36 (I2_S). The file does not say which; `Group128` is what official files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum I2sLayout {
    /// 128 consecutive trits of a row in 32 bytes; byte p holds trits p, 32+p, 64+p, 96+p from bits 7-6 down to 1-0.
    #[default]
    Group128,
    /// 64 trits in 16 bytes, from quantisers run on ARM after November 2025.
    Group64,
    /// One byte holds one column of four consecutive rows, first row in bits 7-6.
    Rows4,
}

/// How the trits of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TritCodec {
    /// Hugging Face packing: `[rows/4, cols]` bytes; byte `[r, c]` holds rows `r, R+r, 2R+r, 3R+r` (`R = rows/4`)
    /// of column `c`, the first in bits 1-0.
    HfPacked,
    /// GGUF I2_S, without its scale and padding tail.
    I2S(I2sLayout),
    /// Tiles of 16 rows and 32 columns, from microsoft/BitNet's GPU kernels ([`int2_tiles`]).
    Int2Tiles,
    /// Full-precision masters, rounded to trits while they are read.
    Dense {
        /// Element type.
        dtype: DType,
        /// What a weight is multiplied by before rounding, from [`absmean::measure`].
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
            TritCodec::Int2Tiles => "int2 tiles",
            TritCodec::Dense { .. } => "dense",
        }
    }

    /// Bytes that `[rows, cols]` take.
    ///
    /// # Errors
    /// [`QuantError::UnsupportedShape`] if the layout cannot hold the shape.
    pub fn byte_len(self, rows: usize, cols: usize) -> Result<u64> {
        let refuse = |rule| QuantError::UnsupportedShape { codec: self.name(), rows, cols, rule };
        let product = (rows as u64).checked_mul(cols as u64).ok_or_else(|| refuse("too large"))?;
        match self {
            TritCodec::HfPacked | TritCodec::I2S(I2sLayout::Rows4) if !rows.is_multiple_of(4) => {
                Err(refuse("the number of rows must be a multiple of 4"))
            }
            TritCodec::I2S(I2sLayout::Group128) if !cols.is_multiple_of(128) => {
                Err(refuse("the number of columns must be a multiple of 128"))
            }
            TritCodec::I2S(I2sLayout::Group64) if !cols.is_multiple_of(64) => {
                Err(refuse("the number of columns must be a multiple of 64"))
            }
            TritCodec::HfPacked | TritCodec::I2S(_) => Ok(product / 4),
            TritCodec::Int2Tiles => int2_tiles::byte_len(rows, cols).map_err(refuse),
            TritCodec::Dense { dtype, .. } => {
                product.checked_mul(dtype.size() as u64).ok_or_else(|| refuse("too large"))
            }
        }
    }

    /// Reads stored row `row` of `[rows, out.len()]` from the bytes of the whole matrix.
    /// Returns false if a code stands for no trit.
    pub(crate) fn decode_row(self, data: &[u8], rows: usize, row: usize, out: &mut [i8]) -> bool {
        let cols = out.len();
        match self {
            TritCodec::HfPacked => {
                let block = rows / 4;
                let bytes = &data[(row % block) * cols..][..cols];
                decode_codes(bytes, 2 * (row / block) as u32, out)
            }
            TritCodec::I2S(I2sLayout::Rows4) => {
                decode_codes(&data[(row / 4) * cols..][..cols], 6 - 2 * (row % 4) as u32, out)
            }
            TritCodec::I2S(I2sLayout::Group128) => {
                decode_groups::<32>(&data[row * cols / 4..][..cols / 4], out)
            }
            TritCodec::I2S(I2sLayout::Group64) => {
                decode_groups::<16>(&data[row * cols / 4..][..cols / 4], out)
            }
            TritCodec::Int2Tiles => int2_tiles::decode_row(data, row, out),
            TritCodec::Dense { dtype, inv } => {
                let size = dtype.size();
                decode_dense(dtype, inv, &data[row * cols * size..][..cols * size], out);
                true
            }
        }
    }
}

/// One code a byte, at the same bit position in all of them.
fn decode_codes(bytes: &[u8], shift: u32, out: &mut [i8]) -> bool {
    let mut invalid = 0u8;
    for (o, b) in out.iter_mut().zip(bytes) {
        let code = (b >> shift) & 3;
        invalid |= code & (code >> 1);
        *o = code as i8 - 1;
    }
    invalid == 0
}

/// Groups of `4 * N` trits in `N` bytes, the first quarter in the highest bits.
fn decode_groups<const N: usize>(bytes: &[u8], out: &mut [i8]) -> bool {
    let mut valid = true;
    for (group, out) in bytes.chunks_exact(N).zip(out.chunks_exact_mut(4 * N)) {
        for (quarter, out) in out.chunks_exact_mut(N).enumerate() {
            valid &= decode_codes(group, 6 - 2 * quarter as u32, out);
        }
    }
    valid
}

fn decode_dense(dtype: DType, inv: f32, bytes: &[u8], out: &mut [i8]) {
    let mut buf = [0.0f32; 512];
    for (bytes, out) in bytes.chunks(512 * dtype.size()).zip(out.chunks_mut(512)) {
        let values = &mut buf[..out.len()];
        dtype.decode(bytes, values);
        for (o, &v) in out.iter_mut().zip(values.iter()) {
            *o = absmean::trit(v, inv);
        }
    }
}

/// Packs trits `[rows, cols]`, row-major, as Hugging Face does.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if `rows` is not a multiple of 4.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values.
pub fn pack_hf(trits: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>> {
    let len = TritCodec::HfPacked.byte_len(rows, cols)?;
    assert_eq!(trits.len(), rows * cols, "shape");
    let mut out = vec![0u8; len as usize];
    for (block, part) in trits.chunks_exact((rows / 4 * cols).max(1)).enumerate() {
        for (o, &t) in out.iter_mut().zip(part) {
            *o |= ((t + 1) as u8) << (2 * block);
        }
    }
    Ok(out)
}

/// Packs trits `[rows, cols]`, row-major, as I2_S, without the 32-byte tail that holds the scale.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if the layout cannot hold the shape.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values.
pub fn pack_i2s(layout: I2sLayout, trits: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>> {
    let len = TritCodec::I2S(layout).byte_len(rows, cols)?;
    assert_eq!(trits.len(), rows * cols, "shape");
    let quarter = match layout {
        I2sLayout::Group128 => 32,
        I2sLayout::Group64 => 16,
        I2sLayout::Rows4 => cols.max(1),
    };
    let mut out = vec![0u8; len as usize];
    for (group, out) in trits.chunks_exact(4 * quarter).zip(out.chunks_exact_mut(quarter)) {
        for (i, part) in group.chunks_exact(quarter).enumerate() {
            for (o, &t) in out.iter_mut().zip(part) {
                *o |= ((t + 1) as u8) << (6 - 2 * i);
            }
        }
    }
    Ok(out)
}
