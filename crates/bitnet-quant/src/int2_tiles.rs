//! The layout of microsoft/BitNet's GPU kernels (W2A8): tiles of 16 rows and 32 columns, two bits a trit.
//!
//! Tiles follow each other along the rows, then from the top down. A tile is 32 little-endian words of 32 bits; word `p`
//! holds sixteen consecutive columns of row `8 * (p / 16) + p % 8`, from column `16 * (p % 16 / 8)` on. Column `e` of the
//! sixteen is at bit `8 * (e % 4) + 2 * (e / 4)`. A trit `t` is the code `t + 2`, 1 to 3; code 0 stands for nothing.
//! (`gpu/pack_weight.py` in microsoft/BitNet.) Sixteen rows are contiguous, so matrices can be cut between tiles.

use crate::{QuantError, Result, TritCodec};

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Columns of a tile.
const TILE_COLS: usize = 32;
/// Bytes of a tile.
const TILE_BYTES: usize = TILE_ROWS * TILE_COLS / 4;

/// Bytes that `[rows, cols]` take.
///
/// # Errors
/// The rule that the shape breaks.
pub(crate) fn byte_len(rows: usize, cols: usize) -> Result<u64, &'static str> {
    if !rows.is_multiple_of(TILE_ROWS) {
        return Err("the number of rows must be a multiple of 16");
    }
    if !cols.is_multiple_of(TILE_COLS) {
        return Err("the number of columns must be a multiple of 32");
    }
    (rows as u64).checked_mul(cols as u64).map(|product| product / 4).ok_or("too large")
}

/// Where the two words of a row begin in a tile.
fn words_of(row: usize) -> [usize; 2] {
    let first = 16 * (row % TILE_ROWS / 8) + row % 8;
    [4 * first, 4 * (first + 8)]
}

/// Bit of column `e` of the sixteen of a word.
fn bit_of(e: usize) -> u32 {
    (8 * (e % 4) + 2 * (e / 4)) as u32
}

/// Reads row `row` of a matrix with `out.len()` columns. Returns false if a code stands for no trit.
pub(crate) fn decode_row(data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let strip = &data[row / TILE_ROWS * (TILE_ROWS * out.len() / 4)..][..TILE_ROWS * out.len() / 4];
    let mut valid = true;
    for (tile, out) in strip.chunks_exact(TILE_BYTES).zip(out.chunks_exact_mut(TILE_COLS)) {
        for (at, out) in words_of(row).into_iter().zip(out.chunks_exact_mut(16)) {
            let word = u32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]]);
            for (e, out) in out.iter_mut().enumerate() {
                let code = (word >> bit_of(e) & 3) as i8;
                valid &= code != 0;
                *out = code - 2;
            }
        }
    }
    valid
}

/// Packs trits `[rows, cols]`, row-major.
///
/// # Errors
/// [`QuantError::UnsupportedShape`] if the layout cannot hold the shape.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values.
pub fn pack_int2_tiles(trits: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    let len = TritCodec::Int2Tiles.byte_len(rows, cols)?;
    assert_eq!(trits.len(), rows * cols, "shape");
    let mut out = vec![0u8; len as usize];
    for (row, trits) in trits.chunks_exact(cols.max(1)).enumerate() {
        let strip = &mut out[row / TILE_ROWS * (TILE_ROWS * cols / 4)..];
        for (tile, trits) in strip.chunks_exact_mut(TILE_BYTES).zip(trits.chunks_exact(TILE_COLS)) {
            for (at, trits) in words_of(row).into_iter().zip(trits.chunks_exact(16)) {
                let word: u32 = trits.iter().enumerate().map(|(e, &t)| ((t + 2) as u32) << bit_of(e)).sum();
                tile[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use bitnet_core::bytes::ByteView;

    use super::*;
    use crate::{RowOrder, TernaryMatrix};

    fn matrix(rows: usize, cols: usize, bytes: Vec<u8>) -> Result<TernaryMatrix> {
        let data = ByteView::from_vec(bytes);
        TernaryMatrix::new(rows, cols, 1.0, TritCodec::Int2Tiles, RowOrder::Natural, data)
    }

    #[test]
    fn equals_the_packing_script() {
        let text = include_str!("../../../testdata/vectors/vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let vector = &vectors["gpu_w2a8"];
        let rows = vector["ternary_16x64"].as_array().unwrap();
        let trits: Vec<i8> =
            rows.iter().flat_map(|row| row.as_array().unwrap()).map(|t| t.as_i64().unwrap() as i8).collect();
        let hex = vector["packed_hex"].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        assert_eq!(pack_int2_tiles(&trits, 16, 64).unwrap(), bytes);
        assert_eq!(matrix(16, 64, bytes).unwrap().to_trits().unwrap(), trits);
    }

    #[test]
    fn several_strips_and_their_parts() {
        let trits: Vec<i8> = (0..48 * 96).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
        let bytes = pack_int2_tiles(&trits, 48, 96).unwrap();
        assert_eq!(matrix(48, 96, bytes.clone()).unwrap().to_trits().unwrap(), trits);
        let strip = 16 * 96 / 4;
        let middle = matrix(16, 96, bytes[strip..2 * strip].to_vec()).unwrap();
        assert_eq!(middle.to_trits().unwrap(), trits[16 * 96..32 * 96]);
    }

    #[test]
    fn shapes_and_codes_are_checked() {
        assert!(matches!(matrix(24, 32, vec![0; 192]), Err(QuantError::UnsupportedShape { .. })));
        assert!(matches!(matrix(16, 48, vec![0; 192]), Err(QuantError::UnsupportedShape { .. })));
        assert!(matrix(16, 32, vec![0xaa; 128]).unwrap().to_trits().unwrap().iter().all(|&t| t == 0));
        let m = matrix(16, 32, vec![0; 128]).unwrap();
        assert!(matches!(m.to_trits(), Err(QuantError::InvalidCode { row: 0 })));
    }
}
