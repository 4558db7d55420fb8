//! Kernels in plain Rust: they run on every processor.

use super::{KernelSet, Product, generic, int8};
use crate::layout::{Form, TILE_BYTES};

generic::float_kernels!([f32; 16],);

/// The set of this module.
pub(super) const SCALAR: KernelSet = KernelSet {
    name: "scalar",
    requires: "any processor",
    available: || true,
    measure_forms: false,
    four_rows: false,
    tiles_from: usize::MAX,
    hidden_layout: int8::PartLayout::BLOCK,
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    merge_states,
    encode_kv,
    dense,
    int8_row,
    int8_hidden,
    int8_sums: int8::scalar_sums,
    int8_intervals,
};

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
unsafe fn product(p: &Product<'_>, codes: &mut [u8]) {
    p.check(codes);
    match p.form {
        // SAFETY: promised by the caller.
        Form::TwoBit => unsafe {
            product_of::<4>(p, |byte| [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6]);
        },
        // SAFETY: promised by the caller.
        Form::FiveTrits => unsafe {
            product_of::<5>(p, |byte| [byte % 3, byte / 3 % 3, byte / 9 % 3, byte / 27 % 3, byte / 81]);
        },
        // SAFETY: promised by the caller.
        Form::FourRows => unsafe { product_of_four_rows(p) },
    }
}

/// Product of weights with four rows a byte; for the sets that have none of their own.
///
/// # Safety
/// As [`KernelSet::product`] demands, after `p.check()`.
pub(super) unsafe fn product_of_four_rows(p: &Product<'_>) {
    for (block, tiles) in p.strips.chunks_exact(4 * p.strip_bytes).enumerate() {
        for row in 0..p.rows() {
            let start = p.row_start(row);
            let mut sums = [[0i32; 16]; 4];
            for (quad, tile) in tiles.chunks_exact(TILE_BYTES).enumerate() {
                // SAFETY: `check` measured the rows; a block has as many tiles as a row has quads.
                let q = unsafe { start.add(quad * 4 * p.row_block()).cast::<[i8; 4]>().read_unaligned() };
                for (strip, sums) in sums.iter_mut().enumerate() {
                    add_tile(tile, [q], |byte| [byte >> (2 * strip) & 3], sums);
                }
            }
            for (strip, sums) in sums.iter().enumerate() {
                // SAFETY: promised by the caller.
                unsafe { p.store(4 * block + strip, row, sums) };
            }
        }
    }
}

/// # Safety
/// As [`product`].
unsafe fn product_of<const DIGITS: usize>(p: &Product<'_>, digits: impl Fn(u8) -> [u8; DIGITS] + Copy) {
    for s in 0..p.strip_count() {
        let strip = &p.strips[s * p.strip_bytes..(s + 1) * p.strip_bytes];
        for row in 0..p.rows() {
            let start = p.row_start(row);
            let mut sums = [0i32; 16];
            for (group, tile) in strip.chunks_exact(TILE_BYTES).enumerate() {
                // SAFETY: `check` measured the rows; each has `DIGITS` quads a group.
                let q = std::array::from_fn(|i| unsafe {
                    start.add((DIGITS * group + i) * 4 * p.row_block()).cast::<[i8; 4]>().read_unaligned()
                });
                add_tile(tile, q, digits, &mut sums);
            }
            // SAFETY: promised by the caller.
            unsafe { p.store(s, row, &sums) };
        }
    }
}

fn add_tile<const DIGITS: usize>(
    tile: &[u8],
    q: [[i8; 4]; DIGITS],
    digits: impl Fn(u8) -> [u8; DIGITS],
    sums: &mut [i32; 16],
) {
    for (sum, bytes) in sums.iter_mut().zip(tile.chunks_exact(4)) {
        for (b, &byte) in bytes.iter().enumerate() {
            for (code, q) in digits(byte).iter().zip(&q) {
                *sum += i32::from(*code) * i32::from(q[b]);
            }
        }
    }
}
