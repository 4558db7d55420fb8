//! Kernels with `smmla`: a 2x2 matrix of sums of eight products, twice the work of `sdot` an instruction.
//!
//! It pays where there are several rows; a single one goes the way of [`super::dotprod`]. Two output rows by eight
//! columns make a register: each 32-bit word of a tile is doubled, then its two copies are shifted by the two fields
//! that belong to the eight columns.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::asm::smmla;
use super::dotprod::{int8_sums, product_of_one_row};
use super::neon::{activate, attend, dense, int8_row, norm_quantize, rms_norm};
use super::vectors::store4;
use crate::kernels::{KernelSet, Product, ROW_BLOCK};
use crate::layout::TILE_BYTES;

/// The set of this module.
pub(in crate::kernels) const I8MM: KernelSet = KernelSet {
    name: "neon-i8mm",
    requires: "NEON with dot products (sdot) and int8 matrix products (smmla)",
    available: || is_aarch64_feature_detected!("dotprod") && is_aarch64_feature_detected!("i8mm"),
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    dense,
    int8_row,
    int8_sums,
};

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product(p: &Product<'_>) {
    p.check();
    // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
    unsafe {
        if p.rows() == 1 {
            return product_of_one_row(p);
        }
        for strip in 0..p.strip_count() {
            let mut row = 0;
            while row < p.rows() {
                // A block of twelve rows is eight and four.
                row += if row % ROW_BLOCK == 0 && p.rows() - row > 4 {
                    several_rows::<2, 2>(p, strip, 0, row);
                    several_rows::<2, 2>(p, strip, 2, row);
                    8
                } else {
                    several_rows::<4, 1>(p, strip, 0, row);
                    4
                };
            }
        }
    }
}

/// Vectors `first .. first + V` of one strip (four output rows each) with `4 * R` rows from `row` on, a multiple of
/// four. Where the last rows are missing, their places in the block are read and the results dropped.
///
/// # Safety
/// The strip and the first row are inside `p`, and all rows in one block; the outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn several_rows<const V: usize, const R: usize>(
    p: &Product<'_>,
    strip: usize,
    first: usize,
    row: usize,
) {
    // By four rows of the batch; by vector; the 2x2 matrices of two outputs and two rows.
    let mut acc = [[[vdupq_n_s32(0); 4]; V]; R];
    let mut q = p.row_start(row);
    // SAFETY: pointers stay inside the strip and the block of rows; outputs are promised by the caller.
    unsafe {
        let mut tile = p.strips.as_ptr().add(strip * p.strip_bytes + 16 * first);
        for _ in 0..p.groups() {
            let words: [[uint8x16_t; 2]; V] = std::array::from_fn(|v| doubled(tile.add(16 * v)));
            for half in 0..2 {
                let codes = words.map(|w| w.map(|w| codes_of_eight(w, half)));
                for (j, acc) in acc.iter_mut().enumerate() {
                    let quads = |i: usize| vreinterpretq_s32_s8(vld1q_s8(q.add(4 * (i * ROW_BLOCK + 4 * j))));
                    let (a, b) = (quads(2 * half), quads(2 * half + 1));
                    let rows =
                        [vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b))];
                    for v in 0..V {
                        for n in 0..4 {
                            acc[v][n] = smmla(acc[v][n], codes[v][n / 2], rows[n % 2]);
                        }
                    }
                }
            }
            tile = tile.add(TILE_BYTES);
            q = q.wrapping_add(16 * ROW_BLOCK);
        }
        for (j, acc) in acc.iter().enumerate() {
            for v in 0..V {
                for m in (0..4).take_while(|m| row + 4 * j + m < p.rows()) {
                    // Outputs 0 and 1, outputs 2 and 3 of two rows, of which `m` is the first or the second.
                    let (low, high) = (acc[v][m / 2], acc[v][2 + m / 2]);
                    let sums = if m % 2 == 0 { vuzp1q_s32(low, high) } else { vuzp2q_s32(low, high) };
                    store4(p, 16 * strip + 4 * (first + v), row + 4 * j + m, sums);
                }
            }
        }
    }
}

/// Sixteen bytes of a tile with each word doubled: output rows 0, 0, 1, 1 and 2, 2, 3, 3.
///
/// # Safety
/// Needs NEON; `tile` is valid for sixteen bytes.
#[inline(always)]
unsafe fn doubled(tile: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: promised by the caller.
    unsafe {
        let v = vreinterpretq_u32_u8(vld1q_u8(tile));
        [vreinterpretq_u8_u32(vzip1q_u32(v, v)), vreinterpretq_u8_u32(vzip2q_u32(v, v))]
    }
}

/// The codes of columns `8 * half .. 8 * half + 8` of two output rows.
///
/// # Safety
/// Needs NEON.
#[inline(always)]
unsafe fn codes_of_eight(doubled: uint8x16_t, half: usize) -> int8x16_t {
    // Shifts to the right by two bits for each field, as negative shifts to the left.
    const SHIFTS: [[i8; 16]; 2] = [
        [0, 0, 0, 0, -2, -2, -2, -2, 0, 0, 0, 0, -2, -2, -2, -2],
        [-4, -4, -4, -4, -6, -6, -6, -6, -4, -4, -4, -4, -6, -6, -6, -6],
    ];
    // SAFETY: sixteen shifts; the rest is promised by the caller.
    unsafe {
        let shifted = vshlq_u8(doubled, vld1q_s8(SHIFTS[half].as_ptr()));
        vreinterpretq_s8_u8(vandq_u8(shifted, vdupq_n_u8(3)))
    }
}
