//! TL1 and TL2 of bitnet.cpp: tables of pairs and triples of trits, in tiles made for one kernel.
//!
//! The sizes of the tiles are not in the file. [`TlTiles`] knows those of the kernels that bitnet.cpp has presets for;
//! matrices of other shapes cannot be read.
//!
//! TL1 (ARM): a pair of columns is `3 a + b + 4` in four bits; the first pair of four columns is in the high half of a
//! byte. Bytes are nested, outermost first: blocks of `block_rows`, of `block_cols`, of `tile_rows`, steps of
//! `256 / tile_rows` columns, 16 rows, four columns, rows.
//!
//! TL2 (x86): all columns but the last `cols % block_cols` are in triples `v = 9 a + 3 b + c`. First come the magnitudes
//! in four bits, two a byte, nested by blocks of `block_rows`, of `block_cols`, of 32 rows, steps of six columns, rows;
//! then the signs, nested by blocks of rows, of columns, of 32 rows, steps of 24 columns: 16 words of 16 bits, word `h`
//! having in bit `15 - (2 triple + half)` the sign of a triple of row `16 half + h`. The remaining columns are in pairs,
//! as in TL1, in blocks of 32 columns and steps of four. Rows 8 to 15 and 16 to 23 of every 32 change places, except in
//! the signs.

use super::{TritCodec, packed_len};
use crate::Result;

/// Sizes of the tiles of TL1 and TL2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlTiles {
    /// Rows of a block (BM).
    pub block_rows: usize,
    /// Columns of a block (BK).
    pub block_cols: usize,
    /// Rows of a tile (bm).
    pub tile_rows: usize,
}

const fn tiles(block_rows: usize, block_cols: usize, tile_rows: usize) -> TlTiles {
    TlTiles { block_rows, block_cols, tile_rows }
}

/// Tiles of the kernels of bitnet.cpp for bitnet_b1_58-large, bitnet_b1_58-3B and Llama3-8B-1.58, by `[rows, cols]`.
const TL1: [([usize; 2], TlTiles); 10] = [
    ([1536, 4096], tiles(256, 128, 32)),
    ([1536, 1536], tiles(128, 64, 64)),
    ([4096, 1536], tiles(256, 128, 32)),
    ([3200, 8640], tiles(160, 64, 32)),
    ([3200, 3200], tiles(320, 128, 64)),
    ([8640, 3200], tiles(320, 64, 32)),
    ([14_336, 4096], tiles(256, 128, 64)),
    ([4096, 14_336], tiles(256, 128, 32)),
    ([1024, 4096], tiles(128, 64, 64)),
    ([4096, 4096], tiles(128, 64, 32)),
];

/// As [`TL1`]. One preset, for [4096, 1536], has tiles of 64 rows, with which the packer of bitnet.cpp fails.
const TL2: [([usize; 2], TlTiles); 9] = [
    ([1536, 4096], tiles(256, 96, 32)),
    ([1536, 1536], tiles(128, 192, 32)),
    ([3200, 8640], tiles(160, 96, 32)),
    ([3200, 3200], tiles(320, 96, 32)),
    ([8640, 3200], tiles(320, 96, 32)),
    ([14_336, 4096], tiles(256, 96, 32)),
    ([4096, 14_336], tiles(128, 96, 32)),
    ([1024, 4096], tiles(256, 96, 32)),
    ([4096, 4096], tiles(128, 96, 32)),
];

/// Rows of a tile, columns of a block and columns of a step in the last columns of TL2.
const PAIR_ROWS: usize = 32;
const PAIR_BLOCK: usize = 32;
const PAIR_STEP: usize = 4;

impl TlTiles {
    /// The tiles of TL1 for a shape, if it is that of a known kernel.
    pub fn tl1(rows: usize, cols: usize) -> Option<Self> {
        TL1.iter().find(|(shape, _)| *shape == [rows, cols]).map(|&(_, tiles)| tiles)
    }

    /// The tiles of TL2 for a shape, if it is that of a known kernel.
    pub fn tl2(rows: usize, cols: usize) -> Option<Self> {
        TL2.iter().find(|(shape, _)| *shape == [rows, cols]).map(|&(_, tiles)| tiles)
    }

    /// Columns of a step in TL1.
    fn tl1_step(self) -> usize {
        256 / self.tile_rows
    }

    pub(super) fn check_tl1(self, rows: usize, cols: usize) -> Result<(), &'static str> {
        let fits = matches!(self.tile_rows, 32 | 64)
            && is_multiple(rows, self.block_rows)
            && is_multiple(cols, self.block_cols)
            && is_multiple(self.block_rows, self.tile_rows)
            && is_multiple(self.block_cols, self.tl1_step());
        if fits { Ok(()) } else { Err("it is not whole tiles") }
    }

    pub(super) fn check_tl2(self, rows: usize, cols: usize) -> Result<(), &'static str> {
        let fits = self.tile_rows == 32
            && is_multiple(rows, self.block_rows)
            && is_multiple(self.block_rows, self.tile_rows)
            && self.block_cols > 0
            && is_multiple(self.block_cols, 24)
            && is_multiple(cols % self.block_cols, PAIR_BLOCK);
        if fits { Ok(()) } else { Err("it is not whole tiles") }
    }
}

/// Whether `number` is a multiple of `unit`, which is not 0.
fn is_multiple(number: usize, unit: usize) -> bool {
    unit > 0 && number.is_multiple_of(unit)
}

/// Bytes of the codes of TL2.
pub(super) fn tl2_len(tiles: TlTiles, rows: usize, cols: usize) -> u64 {
    let Tl2 { pairs, .. } = Tl2::new(tiles, rows, cols);
    pairs as u64 + rows as u64 * (cols % tiles.block_cols) as u64 / 4
}

/// A pair of trits as a number from 0 to 8, and back.
fn pair_code(pair: &[i8]) -> u8 {
    (3 * pair[0] + pair[1] + 4) as u8
}

fn pair_trits(code: u8) -> [i8; 2] {
    [(code / 3) as i8 - 1, (code % 3) as i8 - 1]
}

/// The half of a byte that holds the first (`second` = 0) or the second of two codes.
fn half(byte: u8, second: usize) -> u8 {
    if second == 0 { byte >> 4 } else { byte & 15 }
}

/// The byte of TL1 with the pair at column `2 pair` of `row`; its half is that of `pair % 2`.
fn tl1_place(tiles: TlTiles, cols: usize, row: usize, pair: usize) -> usize {
    let TlTiles { block_rows, block_cols, tile_rows } = tiles;
    let step = tiles.tl1_step();
    let (in_block, column) = (row % block_rows, 2 * pair);
    let (tile, in_tile) = (in_block / tile_rows, in_block % tile_rows);
    let mut at = row / block_rows;
    at = at * (cols / block_cols) + column / block_cols;
    at = at * (block_rows / tile_rows) + tile;
    at = at * (block_cols / step) + column % block_cols / step;
    at = at * (tile_rows / 16) + in_tile / 16;
    at = at * (step / 4) + column % step / 4;
    at * 16 + in_tile % 16
}

pub(super) fn decode_tl1(tiles: TlTiles, data: &[u8], row: usize, out: &mut [i8]) -> bool {
    let (cols, mut valid) = (out.len(), true);
    for (pair, out) in out.chunks_exact_mut(2).enumerate() {
        let code = half(data[tl1_place(tiles, cols, row, pair)], pair % 2);
        valid &= code < 9;
        out.copy_from_slice(&pair_trits(code));
    }
    valid
}

/// Where the three parts of a TL2 matrix begin and how wide they are.
struct Tl2 {
    tiles: TlTiles,
    /// Columns in triples, and behind them in pairs.
    triple_cols: usize,
    pair_cols: usize,
    /// First byte of the signs and of the pairs.
    signs: usize,
    pairs: usize,
}

impl Tl2 {
    fn new(tiles: TlTiles, rows: usize, cols: usize) -> Self {
        let pair_cols = cols % tiles.block_cols;
        let triple_cols = cols - pair_cols;
        let signs = rows * triple_cols / 6;
        Self { tiles, triple_cols, pair_cols, signs, pairs: signs + rows * triple_cols / 24 }
    }

    /// Number of the tile of 32 rows and `step` columns that holds `row` and `column`, of a part with `cols` columns in
    /// blocks of `block_cols`.
    fn tile(&self, cols: usize, block_cols: usize, step: usize, row: usize, column: usize) -> usize {
        let TlTiles { block_rows, tile_rows, .. } = self.tiles;
        let mut at = row / block_rows;
        at = at * (cols / block_cols) + column / block_cols;
        at = at * (block_rows / tile_rows) + row % block_rows / tile_rows;
        at * (block_cols / step) + column % block_cols / step
    }

    /// Place of a row in its tile: the two middle eights change places.
    fn slot(&self, row: usize) -> usize {
        let within = row % self.tiles.block_rows % PAIR_ROWS;
        [0, 2, 1, 3][within / 8] * 8 + within % 8
    }

    /// The byte with the magnitude of a triple; its half is that of `triple % 2`.
    fn magnitude(&self, row: usize, triple: usize) -> usize {
        let tile = self.tile(self.triple_cols, self.tiles.block_cols, 6, row, 3 * triple);
        tile * PAIR_ROWS + self.slot(row)
    }

    /// The byte and the bit in it with the sign of a triple.
    fn sign(&self, row: usize, triple: usize) -> (usize, usize) {
        let tile = self.tile(self.triple_cols, self.tiles.block_cols, 24, row, 3 * triple);
        let within = row % self.tiles.block_rows % PAIR_ROWS;
        let bit = 15 - (2 * (triple % 8) + within / 16);
        (self.signs + 32 * tile + 2 * (within % 16) + bit / 8, bit % 8)
    }

    /// The byte with a pair of the last columns; its half is that of `pair % 2`.
    fn pair(&self, row: usize, pair: usize) -> usize {
        let tile = self.tile(self.pair_cols, PAIR_BLOCK, PAIR_STEP, row, 2 * pair);
        self.pairs + tile * PAIR_ROWS + self.slot(row)
    }
}

pub(super) fn decode_tl2(tiles: TlTiles, data: &[u8], rows: usize, row: usize, out: &mut [i8]) -> bool {
    let places = Tl2::new(tiles, rows, out.len());
    let (triples, pairs) = out.split_at_mut(places.triple_cols);
    let mut valid = true;
    for (triple, out) in triples.chunks_exact_mut(3).enumerate() {
        let magnitude = half(data[places.magnitude(row, triple)], triple % 2);
        let (byte, bit) = places.sign(row, triple);
        valid &= magnitude < 14;
        let magnitude = magnitude.min(13) as i8;
        let shifted = 13 + if data[byte] >> bit & 1 == 1 { -magnitude } else { magnitude };
        out.copy_from_slice(&[shifted / 9 - 1, shifted / 3 % 3 - 1, shifted % 3 - 1]);
    }
    for (pair, out) in pairs.chunks_exact_mut(2).enumerate() {
        let code = half(data[places.pair(row, pair)], pair % 2);
        valid &= code < 9;
        out.copy_from_slice(&pair_trits(code));
    }
    valid
}

/// Puts a code of four bits in the half of a byte.
fn put_half(byte: &mut u8, second: usize, code: u8) {
    *byte |= if second == 0 { code << 4 } else { code };
}

/// Packs trits `[rows, cols]`, row-major, as TL1, without the scale.
///
/// # Errors
/// [`QuantError::UnsupportedShape`](crate::QuantError::UnsupportedShape) if the shape is not whole tiles.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_tl1(tiles: TlTiles, trits: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>> {
    let mut out = vec![0; packed_len(TritCodec::Tl1(tiles), trits, rows, cols)?];
    for (row, trits) in trits.chunks_exact(cols.max(1)).enumerate() {
        for (pair, trits) in trits.chunks_exact(2).enumerate() {
            put_half(&mut out[tl1_place(tiles, cols, row, pair)], pair % 2, pair_code(trits));
        }
    }
    Ok(out)
}

/// Packs trits `[rows, cols]`, row-major, as TL2, without the padding and the scale.
///
/// # Errors
/// [`QuantError::UnsupportedShape`](crate::QuantError::UnsupportedShape) if the shape is not whole tiles.
///
/// # Panics
/// If `trits` does not hold `rows * cols` values of -1, 0 and 1.
pub fn pack_tl2(tiles: TlTiles, trits: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>> {
    let mut out = vec![0; packed_len(TritCodec::Tl2(tiles), trits, rows, cols)?];
    let places = Tl2::new(tiles, rows, cols);
    for (row, trits) in trits.chunks_exact(cols.max(1)).enumerate() {
        let (triples, pairs) = trits.split_at(places.triple_cols);
        for (triple, trits) in triples.chunks_exact(3).enumerate() {
            let value = 9 * trits[0] + 3 * trits[1] + trits[2];
            put_half(&mut out[places.magnitude(row, triple)], triple % 2, value.unsigned_abs());
            let (byte, bit) = places.sign(row, triple);
            out[byte] |= u8::from(value < 0) << bit;
        }
        for (pair, trits) in pairs.chunks_exact(2).enumerate() {
            put_half(&mut out[places.pair(row, pair)], pair % 2, pair_code(trits));
        }
    }
    Ok(out)
}
