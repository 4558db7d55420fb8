//! IQ1_BN, IQ2_BN and IQ2_BN_R4 of `ik_llama.cpp`: rows of blocks of 64 trits, with a scale at the head of each row.
//!
//! IQ2_BN: an f32, then 16 bytes a block; byte `j` holds trits `16 k + j` (k = 0 to 3) from bits 1-0 up. IQ2_BN_R4 has
//! four rows together: four f32, then 64 bytes for the block of each; byte `16 l + 4 k + i` holds trits
//! `16 l + i + 4 s` (s = 0 to 3) of row `k`. IQ1_BN: an f16, then 13 bytes a block: three bytes for each 16 trits hold
//! the first 15, five a byte, the *least* significant digit first; the last byte holds the 16th of each.
//!
//! Rows with the scale 0 are zeros whatever their codes: quantisers write +1 there.

use half::f16;

use super::two_bit::decode_codes;
use super::{TritCodec, digits, packed_len};
use crate::{QuantError, Result};

/// Trits of a block.
const BLOCK: usize = 64;
/// Bytes of an IQ1_BN block.
pub(super) const IQ1_BYTES: usize = 13;

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Scale and codes of a stored row of IQ1_BN.
fn iq1_row(data: &[u8], cols: usize, row: usize) -> (f32, &[u8]) {
    let len = 2 + cols / BLOCK * IQ1_BYTES;
    let bytes = &data[row * len..][..len];
    (f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(), &bytes[2..])
}

/// Scale and codes of a stored row of IQ2_BN.
fn iq2_row(data: &[u8], cols: usize, row: usize) -> (f32, &[u8]) {
    let len = 4 + cols / 4;
    let bytes = &data[row * len..][..len];
    (f32_at(bytes, 0), &bytes[4..])
}

/// Scale of a stored row of IQ2_BN_R4, and the codes of all four rows that it is stored with.
fn iq2_r4_row(data: &[u8], cols: usize, row: usize) -> (f32, &[u8]) {
    let len = 16 + cols;
    let bytes = &data[row / 4 * len..][..len];
    (f32_at(bytes, 4 * (row % 4)), &bytes[16..])
}

/// The scale of a stored row.
pub(super) fn row_scale(codec: TritCodec, data: &[u8], cols: usize, row: usize) -> f32 {
    match codec {
        TritCodec::Iq1Bn => iq1_row(data, cols, row).0,
        TritCodec::Iq2Bn => iq2_row(data, cols, row).0,
        _ => iq2_r4_row(data, cols, row).0,
    }
}

pub(super) fn decode_iq1_bn(data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let (scale, codes) = iq1_row(data, out.len(), row);
    let mut valid = true;
    for (block, out) in codes.chunks_exact(IQ1_BYTES).zip(out.chunks_exact_mut(BLOCK)) {
        let [empty, last @ ..] = digits::unpack(block[12]);
        valid &= empty == -1;
        for (group, out) in out.chunks_exact_mut(16).enumerate() {
            for (&byte, out) in block[3 * group..3 * group + 3].iter().zip(out.chunks_exact_mut(5)) {
                let trits = digits::unpack(byte);
                valid &= digits::is_valid(trits);
                out.iter_mut().zip(trits.into_iter().rev()).for_each(|(o, t)| *o = t);
            }
            out[15] = last[3 - group];
        }
    }
    if scale == 0.0 {
        out.fill(0);
    }
    valid
}

pub(super) fn decode_iq2_bn(data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let (scale, codes) = iq2_row(data, out.len(), row);
    let mut valid = true;
    for (block, out) in codes.chunks_exact(16).zip(out.chunks_exact_mut(BLOCK)) {
        for (k, out) in out.chunks_exact_mut(16).enumerate() {
            valid &= decode_codes(block, 2 * k as u32, out);
        }
    }
    if scale == 0.0 {
        out.fill(0);
    }
    valid
}

pub(super) fn decode_iq2_bn_r4(data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let (scale, codes) = iq2_r4_row(data, out.len(), row);
    let mut valid = true;
    for (tile, out) in codes.chunks_exact(BLOCK).zip(out.chunks_exact_mut(BLOCK)) {
        for (quarter, out) in tile.chunks_exact(16).zip(out.chunks_exact_mut(16)) {
            for (s, out) in out.chunks_exact_mut(4).enumerate() {
                valid &= decode_codes(&quarter[4 * (row % 4)..], 2 * s as u32, out);
            }
        }
    }
    if scale == 0.0 {
        out.fill(0);
    }
    valid
}

/// The scale of a row: 0 if it has zeros only.
fn scale_of(trits: &[i8], scale: f32) -> f32 {
    if trits.iter().all(|&t| t == 0) { 0.0 } else { scale }
}

fn check_scale(scale: f32, stored: f32) -> Result<()> {
    let good = stored.is_finite() && stored > 0.0;
    if good { Ok(()) } else { Err(QuantError::BadScale { scale }) }
}

/// Packs trits `[rows, cols]`, row-major, as IQ1_BN. Chunks of rows can be packed one after the other. The scale is
/// rounded to f16.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if `cols` is not a multiple of 64, [`QuantError::BadScale`] for a scale that f16
/// does not hold.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_iq1_bn(trits: &[i8], rows: usize, cols: usize, scale: f32) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(packed_len(TritCodec::Iq1Bn, trits, rows, cols)?);
    check_scale(scale, f16::from_f32(scale).to_f32())?;
    for trits in trits.chunks_exact(cols.max(1)) {
        out.extend(f16::from_f32(scale_of(trits, scale)).to_le_bytes());
        for block in trits.chunks_exact(BLOCK) {
            for group in block.chunks_exact(16) {
                let byte = |five: &[i8]| digits::pack(std::array::from_fn(|n| five[4 - n]));
                out.extend(group[..15].chunks_exact(5).map(byte));
            }
            out.push(digits::pack([-1, block[63], block[47], block[31], block[15]]));
        }
    }
    Ok(out)
}

/// Packs trits `[rows, cols]`, row-major, as IQ2_BN. Chunks of rows can be packed one after the other.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if `cols` is not a multiple of 64, [`QuantError::BadScale`] for a scale that is not
/// a positive number.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_iq2_bn(trits: &[i8], rows: usize, cols: usize, scale: f32) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(packed_len(TritCodec::Iq2Bn, trits, rows, cols)?);
    check_scale(scale, scale)?;
    for trits in trits.chunks_exact(cols.max(1)) {
        out.extend(scale_of(trits, scale).to_le_bytes());
        for block in trits.chunks_exact(BLOCK) {
            let byte = |j| (0..4usize).fold(0, |byte, k| byte | ((block[16 * k + j] + 1) as u8) << (2 * k));
            out.extend((0..16).map(byte));
        }
    }
    Ok(out)
}

/// Packs trits `[rows, cols]`, row-major, as IQ2_BN_R4. Chunks of four rows can be packed one after the other.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if `rows` is not a multiple of 4 or `cols` of 64, [`QuantError::BadScale`] for a
/// scale that is not a positive number.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_iq2_bn_r4(trits: &[i8], rows: usize, cols: usize, scale: f32) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(packed_len(TritCodec::Iq2BnR4, trits, rows, cols)?);
    check_scale(scale, scale)?;
    for four in trits.chunks_exact((4 * cols).max(1)) {
        for row in four.chunks_exact(cols) {
            out.extend(scale_of(row, scale).to_le_bytes());
        }
        for block in 0..cols / BLOCK {
            for at in 0..BLOCK {
                let (l, row, i) = (at / 16, at % 16 / 4, at % 4);
                let first = row * cols + block * BLOCK + 16 * l + i;
                out.push((0..4usize).fold(0, |byte, s| byte | ((four[first + 4 * s] + 1) as u8) << (2 * s)));
            }
        }
    }
    Ok(out)
}
