//! Two bits a trit and no scales: Hugging Face packing and the three byte orders of I2_S.

use super::{TritCodec, packed_len};
use crate::Result;

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

pub(super) fn decode_hf(data: &[u8], rows: usize, row: usize, out: &mut [i8]) -> bool {
    let (cols, block) = (out.len(), rows / 4);
    decode_codes(&data[(row % block) * cols..][..cols], 2 * (row / block) as u32, out)
}

pub(super) fn decode_i2s(layout: I2sLayout, data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let cols = out.len();
    match layout {
        I2sLayout::Rows4 => decode_codes(&data[(row / 4) * cols..][..cols], 6 - 2 * (row % 4) as u32, out),
        I2sLayout::Group128 => decode_groups::<32>(&data[row * cols / 4..][..cols / 4], out),
        I2sLayout::Group64 => decode_groups::<16>(&data[row * cols / 4..][..cols / 4], out),
    }
}

/// One code a byte, at the same bit position in all of them. Returns false if one is 3.
pub(super) fn decode_codes(bytes: &[u8], shift: u32, out: &mut [i8]) -> bool {
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

/// Packs trits `[rows, cols]`, row-major, as Hugging Face does.
///
/// # Errors
/// [`QuantError::UnsupportedShape`](crate::QuantError::UnsupportedShape) if `rows` is not a multiple of 4.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_hf(trits: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>> {
    let mut out = vec![0u8; packed_len(TritCodec::HfPacked, trits, rows, cols)?];
    for (block, part) in trits.chunks_exact((rows / 4 * cols).max(1)).enumerate() {
        for (o, &t) in out.iter_mut().zip(part) {
            *o |= ((t + 1) as u8) << (2 * block);
        }
    }
    Ok(out)
}

/// Packs trits `[rows, cols]`, row-major, as I2_S, without the 32-byte tail that holds the scale ([`i2s_tail`]).
/// Chunks of rows (of four rows for `Rows4`) can be packed one after the other.
///
/// # Errors
/// [`QuantError::UnsupportedShape`](crate::QuantError::UnsupportedShape) if the layout cannot hold the shape.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_i2s(layout: I2sLayout, trits: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>> {
    let mut out = vec![0u8; packed_len(TritCodec::I2S(layout), trits, rows, cols)?];
    let quarter = match layout {
        I2sLayout::Group128 => 32,
        I2sLayout::Group64 => 16,
        I2sLayout::Rows4 => cols.max(1),
    };
    for (group, out) in trits.chunks_exact(4 * quarter).zip(out.chunks_exact_mut(quarter)) {
        for (i, part) in group.chunks_exact(quarter).enumerate() {
            for (o, &t) in out.iter_mut().zip(part) {
                *o |= ((t + 1) as u8) << (6 - 2 * i);
            }
        }
    }
    Ok(out)
}

/// What follows the last row of an I2_S tensor in a file: the scale, and zeros.
pub fn i2s_tail(scale: f32) -> [u8; 32] {
    let mut tail = [0; 32];
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    tail
}
