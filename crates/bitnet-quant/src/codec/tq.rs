//! TQ1_0 and TQ2_0 of ggml: blocks of 256 trits of a row, each with an f16 scale at its end.
//!
//! TQ2_0 has 64 bytes of codes: byte `32 h + m` holds trits `128 h + 32 n + m` (n = 0 to 3) from bits 1-0 up. TQ1_0 has
//! 52 bytes of five trits each, the most significant first: bytes 0 to 31 hold trits `m + 32 n`, bytes 32 to 47 trits
//! `160 + m + 16 n`; bytes 48 to 51 hold four trits each, `240 + m + 4 n`, and an empty last digit.
//!
//! The scale of a block is its largest magnitude in f16. Blocks with the scale 0 are zeros.

use half::f16;

use super::two_bit::decode_codes;
use super::{TritCodec, digits, packed_len};
use crate::{QuantError, Result};

/// Trits of a block.
const BLOCK: usize = 256;
/// Bytes of a block of each type.
pub(super) const TQ1_BYTES: usize = 54;
pub(super) const TQ2_BYTES: usize = 66;

/// Runs of bytes of a TQ1_0 block with five trits: first byte, number of bytes, first trit.
const FIVES: [(usize, usize, usize); 2] = [(0, 32, 0), (32, 16, 160)];
/// The four bytes with four trits, and the first of these trits.
const FOURS: usize = 48;
const FOURS_TRIT: usize = 240;

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The bytes of stored row `row`.
fn row_bytes(data: &[u8], block_bytes: usize, cols: usize, row: usize) -> &[u8] {
    let len = cols / BLOCK * block_bytes;
    &data[row * len..][..len]
}

pub(super) fn decode_tq1_0(data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let mut valid = true;
    let bytes = row_bytes(data, TQ1_BYTES, out.len(), row);
    for (block, out) in bytes.chunks_exact(TQ1_BYTES).zip(out.chunks_exact_mut(BLOCK)) {
        for (first, count, trit) in FIVES {
            for (m, &byte) in block[first..first + count].iter().enumerate() {
                let trits = digits::unpack(byte);
                valid &= digits::is_valid(trits);
                trits.into_iter().enumerate().for_each(|(n, t)| out[trit + m + count * n] = t);
            }
        }
        for (m, &byte) in block[FOURS..FOURS + 4].iter().enumerate() {
            let [a, b, c, d, empty] = digits::unpack(byte);
            valid &= empty == -1;
            [a, b, c, d].into_iter().enumerate().for_each(|(n, t)| out[FOURS_TRIT + m + 4 * n] = t);
        }
        if f16_at(block, TQ1_BYTES - 2) == 0.0 {
            out.fill(0);
        }
    }
    valid
}

pub(super) fn decode_tq2_0(data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let mut valid = true;
    let bytes = row_bytes(data, TQ2_BYTES, out.len(), row);
    for (block, out) in bytes.chunks_exact(TQ2_BYTES).zip(out.chunks_exact_mut(BLOCK)) {
        for (codes, out) in block[..64].chunks_exact(32).zip(out.chunks_exact_mut(128)) {
            for (n, out) in out.chunks_exact_mut(32).enumerate() {
                valid &= decode_codes(codes, 2 * n as u32, out);
            }
        }
        if f16_at(block, TQ2_BYTES - 2) == 0.0 {
            out.fill(0);
        }
    }
    valid
}

/// Shows the scale of every block of a stored row to `see`.
pub(super) fn row_scales(codec: TritCodec, data: &[u8], cols: usize, row: usize, see: &mut dyn FnMut(f32)) {
    let block_bytes = if codec == TritCodec::Tq1_0 { TQ1_BYTES } else { TQ2_BYTES };
    for block in row_bytes(data, block_bytes, cols, row).chunks_exact(block_bytes) {
        see(f16_at(block, block_bytes - 2));
    }
}

/// The scale as f16, for blocks that are not all zeros.
fn stored_scale(scale: f32) -> Result<f16> {
    let stored = f16::from_f32(scale);
    if stored.is_finite() && stored.to_f32() > 0.0 { Ok(stored) } else { Err(QuantError::BadScale { scale }) }
}

fn push_scale(trits: &[i8], scale: f16, out: &mut Vec<u8>) {
    let scale = if trits.iter().all(|&t| t == 0) { f16::ZERO } else { scale };
    out.extend(scale.to_le_bytes());
}

/// Packs trits `[rows, cols]`, row-major, as TQ1_0, byte for byte as ggml packs the weights `scale * trit`. Chunks of
/// rows can be packed one after the other. The scale is rounded to f16.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if `cols` is not a multiple of 256, [`QuantError::BadScale`] for a scale that f16
/// does not hold.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_tq1_0(trits: &[i8], rows: usize, cols: usize, scale: f32) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(packed_len(TritCodec::Tq1_0, trits, rows, cols)?);
    let scale = stored_scale(scale)?;
    for trits in trits.chunks_exact(BLOCK) {
        for (_, count, trit) in FIVES {
            let byte = |m| digits::pack(std::array::from_fn(|n| trits[trit + m + count * n]));
            out.extend((0..count).map(byte));
        }
        let byte =
            |m| digits::pack(std::array::from_fn(|n| if n < 4 { trits[FOURS_TRIT + m + 4 * n] } else { -1 }));
        out.extend((0..4).map(byte));
        push_scale(trits, scale, &mut out);
    }
    Ok(out)
}

/// Packs trits `[rows, cols]`, row-major, as TQ2_0, byte for byte as ggml packs the weights `scale * trit`. Chunks of
/// rows can be packed one after the other. The scale is rounded to f16.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if `cols` is not a multiple of 256, [`QuantError::BadScale`] for a scale that f16
/// does not hold.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_tq2_0(trits: &[i8], rows: usize, cols: usize, scale: f32) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(packed_len(TritCodec::Tq2_0, trits, rows, cols)?);
    let scale = stored_scale(scale)?;
    for trits in trits.chunks_exact(BLOCK) {
        for half in trits.chunks_exact(128) {
            let byte = |m| (0..4usize).fold(0, |byte, n| byte | ((half[32 * n + m] + 1) as u8) << (2 * n));
            out.extend((0..32).map(byte));
        }
        push_scale(trits, scale, &mut out);
    }
    Ok(out)
}
