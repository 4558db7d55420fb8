//! Kernels with `sdot`: four products and their sum in each 32-bit lane, that is, four output rows a register.
//!
//! `sdot` takes its activations from one lane of a register, so nothing is broadcast. One row (decoding) is limited by
//! memory: two of the four fields of a byte are masked but not shifted. Such a field counts four times its code, so its
//! sums are kept apart and shifted at the end, exactly. Several rows are limited by the multiplier: codes are unpacked
//! once and used for up to twelve rows, whose activations lie side by side.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::asm::sdot;
use super::neon::{activate, attend, dense, int8_row, norm_quantize, rms_norm};
use super::vectors::{store4, unpack};
use crate::kernels::{KernelSet, Product, ROW_BLOCK};
use crate::layout::TILE_BYTES;

/// The set of this module.
pub(in crate::kernels) const DOTPROD: KernelSet = KernelSet {
    name: "neon-dotprod",
    requires: "NEON with dot products (sdot)",
    available: || is_aarch64_feature_detected!("dotprod"),
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
#[target_feature(enable = "neon,dotprod")]
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
                row += match p.rows() - row {
                    9.. => {
                        several_rows::<2, 3>(p, strip, 0, row);
                        several_rows::<2, 3>(p, strip, 2, row);
                        12
                    }
                    5..9 => {
                        several_rows::<2, 2>(p, strip, 0, row);
                        several_rows::<2, 2>(p, strip, 2, row);
                        8
                    }
                    _ => {
                        several_rows::<4, 1>(p, strip, 0, row);
                        4
                    }
                };
            }
        }
    }
}

/// Ternary product with the only row.
///
/// # Safety
/// As [`product`], for one row, after `p.check()`.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn product_of_one_row(p: &Product<'_>) {
    let strips = p.strip_count();
    let mut strip = 0;
    // SAFETY: promised by the caller.
    unsafe {
        while strip + 2 <= strips {
            single_row::<2>(p, strip);
            strip += 2;
        }
        if strip < strips {
            single_row::<1>(p, strip);
        }
    }
}

/// `S` strips with the only row.
///
/// # Safety
/// The strips are inside `p`, whose outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn single_row<const S: usize>(p: &Product<'_>, strip: usize) {
    let (low, high) = (vdupq_n_u8(3), vdupq_n_u8(12));
    let codes = |v, mask| vreinterpretq_s8_u8(vandq_u8(v, mask));
    // Sums of codes, and of four times the codes.
    let mut acc = [[[vdupq_n_s32(0); 2]; 4]; S];
    // SAFETY: pointers stay inside the strips and the activation row; outputs are promised by the caller.
    unsafe {
        let base = p.strips.as_ptr().add(strip * p.strip_bytes);
        for g in 0..p.groups() {
            let q = vld1q_s8(p.q.as_ptr().add(16 * g));
            for (s, acc) in acc.iter_mut().enumerate() {
                let tile = base.add(s * p.strip_bytes + g * TILE_BYTES);
                for (v, [once, four_times]) in acc.iter_mut().enumerate() {
                    let fields01 = vld1q_u8(tile.add(16 * v));
                    let fields23 = vshrq_n_u8::<4>(fields01);
                    *once = sdot::<0>(*once, codes(fields01, low), q);
                    *four_times = sdot::<1>(*four_times, codes(fields01, high), q);
                    *once = sdot::<2>(*once, codes(fields23, low), q);
                    *four_times = sdot::<3>(*four_times, codes(fields23, high), q);
                }
            }
        }
        for (s, acc) in acc.iter().enumerate() {
            for (v, [once, four_times]) in acc.iter().enumerate() {
                let sums = vsraq_n_s32::<2>(*once, *four_times);
                store4(p, 16 * (strip + s) + 4 * v, 0, sums);
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
#[target_feature(enable = "neon,dotprod")]
unsafe fn several_rows<const V: usize, const R: usize>(
    p: &Product<'_>,
    strip: usize,
    first: usize,
    row: usize,
) {
    let mut acc = [[[vdupq_n_s32(0); V]; 4]; R];
    let mut q = p.row_start(row);
    // SAFETY: pointers stay inside the strip and the block of rows; outputs are promised by the caller.
    unsafe {
        let mut tile = p.strips.as_ptr().add(strip * p.strip_bytes + 16 * first);
        for _ in 0..p.groups() {
            let codes: [[int8x16_t; 4]; V] = std::array::from_fn(|v| unpack(vld1q_u8(tile.add(16 * v))));
            for i in 0..4 {
                for (j, acc) in acc.iter_mut().enumerate() {
                    let rows = vld1q_s8(q.add(4 * (i * ROW_BLOCK + 4 * j)));
                    for v in 0..V {
                        acc[0][v] = sdot::<0>(acc[0][v], codes[v][i], rows);
                        acc[1][v] = sdot::<1>(acc[1][v], codes[v][i], rows);
                        acc[2][v] = sdot::<2>(acc[2][v], codes[v][i], rows);
                        acc[3][v] = sdot::<3>(acc[3][v], codes[v][i], rows);
                    }
                }
            }
            tile = tile.add(TILE_BYTES);
            q = q.wrapping_add(16 * ROW_BLOCK);
        }
        for (m, acc) in acc.as_flattened().iter().enumerate().take(p.rows() - row) {
            for v in 0..V {
                store4(p, 16 * strip + 4 * (first + v), row + m, acc[v]);
            }
        }
    }
}

/// Sums of int8 strips: `out[16 * strip + lane] = sum(w * q)`.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn int8_sums(strips: &[i8], q: &[i8], _sum: i32, out: &mut [i32]) {
    for (strip, out) in strips.chunks_exact(16 * q.len()).zip(out.as_chunks_mut::<16>().0) {
        let (tiles, quads) = (strip.as_chunks::<64>().0, q.as_chunks::<4>().0);
        // Even and odd tiles apart: twice as many sums hide the latency of the product.
        let mut acc = [[vdupq_n_s32(0); 4]; 2];
        let add = |acc: &mut [int32x4_t; 4], tile: &[i8; 64], quad: [i8; 4]| {
            let q = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(quad.map(|q| q as u8))));
            for v in 0..4 {
                // SAFETY: a tile is 64 bytes; this function has the features.
                acc[v] = unsafe { sdot::<0>(acc[v], vld1q_s8(tile.as_ptr().add(16 * v)), q) };
            }
        };
        let (tile_pairs, last_tile) = tiles.as_chunks::<2>();
        let (quad_pairs, last_quad) = quads.as_chunks::<2>();
        for (tiles, quads) in tile_pairs.iter().zip(quad_pairs) {
            add(&mut acc[0], &tiles[0], quads[0]);
            add(&mut acc[1], &tiles[1], quads[1]);
        }
        if let ([tile], [quad]) = (last_tile, last_quad) {
            add(&mut acc[0], tile, *quad);
        }
        for v in 0..4 {
            // SAFETY: sixteen sums in four registers.
            unsafe { vst1q_s32(out.as_mut_ptr().add(4 * v), vaddq_s32(acc[0][v], acc[1][v])) };
        }
    }
}
