//! Kernels for every ARM64 processor: products by widening multiply-adds.
//!
//! A code (0..=2) times an int8 is at most 256 in magnitude, so the four columns that a 16-bit lane gets from one tile
//! add at most 1024: nothing overflows before they are widened in pairs.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::vectors::{Neon, store4, unpack};
use crate::kernels::{KernelSet, Product, generic};
use crate::layout::TILE_BYTES;

generic::float_kernels!(Neon, #[target_feature(enable = "neon")]);

/// The set of this module.
pub(in crate::kernels) const NEON: KernelSet = KernelSet {
    name: "neon",
    requires: "NEON",
    available: || is_aarch64_feature_detected!("neon"),
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
#[target_feature(enable = "neon")]
unsafe fn product(p: &Product<'_>) {
    p.check();
    for strip in 0..p.strip_count() {
        let mut row = 0;
        // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
        unsafe {
            while row + 2 <= p.rows() {
                strip_rows::<2>(p, strip, row);
                row += 2;
            }
            if row < p.rows() {
                strip_rows::<1>(p, strip, row);
            }
        }
    }
}

/// One strip with `M` rows from `row` on.
///
/// # Safety
/// The strip and the rows are inside `p`, whose outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn strip_rows<const M: usize>(p: &Product<'_>, strip: usize, row: usize) {
    // Rows of a call lie in one block: blocks hold an even number.
    let (mut q, step) = (p.row_start(row).cast::<i32>(), p.row_block());
    // In each pair of lanes the sums of one row, of even and of odd pairs of columns.
    let mut acc = [[[vdupq_n_s32(0); 2]; 4]; M];
    // SAFETY: pointers stay inside the strip and the activation rows; outputs are promised by the caller.
    unsafe {
        let mut tile = p.strips.as_ptr().add(strip * p.strip_bytes);
        for _ in 0..p.groups() {
            let quads: [[int8x16_t; 4]; M] = std::array::from_fn(|m| {
                std::array::from_fn(|i| {
                    vreinterpretq_s8_s32(vdupq_n_s32(q.add(i * step + m).read_unaligned()))
                })
            });
            for v in 0..4 {
                let codes = unpack(vld1q_u8(tile.add(16 * v)));
                for m in 0..M {
                    acc[m][v] = add_products(acc[m][v], &codes, &quads[m]);
                }
            }
            tile = tile.add(TILE_BYTES);
            q = q.wrapping_add(4 * step);
        }
        for m in 0..M {
            for v in 0..4 {
                let sums = vpaddq_s32(acc[m][v][0], acc[m][v][1]);
                store4(p, 16 * strip + 4 * v, row + m, sums);
            }
        }
    }
}

/// Adds the products of four vectors of codes with four vectors of activations, in pairs of columns.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(acc: [int32x4_t; 2], codes: &[int8x16_t; 4], q: &[int8x16_t; 4]) -> [int32x4_t; 2] {
    let mut low = vmull_s8(vget_low_s8(codes[0]), vget_low_s8(q[0]));
    let mut high = vmull_high_s8(codes[0], q[0]);
    for i in 1..4 {
        low = vmlal_s8(low, vget_low_s8(codes[i]), vget_low_s8(q[i]));
        high = vmlal_high_s8(high, codes[i], q[i]);
    }
    [vpadalq_s16(acc[0], low), vpadalq_s16(acc[1], high)]
}

/// Sums of int8 strips: `out[16 * strip + lane] = sum(w * q)`. Every product is widened by itself: two of the largest do
/// not fit 16 bits.
#[target_feature(enable = "neon")]
fn int8_sums(strips: &[i8], q: &[i8], _sum: i32, out: &mut [i32]) {
    for (strip, out) in strips.chunks_exact(16 * q.len()).zip(out.as_chunks_mut::<16>().0) {
        let mut acc = [[vdupq_n_s32(0); 2]; 4];
        for (tile, q) in strip.as_chunks::<64>().0.iter().zip(q.as_chunks::<4>().0) {
            let q = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(q.map(|q| q as u8))));
            for v in 0..4 {
                // SAFETY: a tile is 64 bytes.
                let w = unsafe { vld1q_s8(tile.as_ptr().add(16 * v)) };
                acc[v][0] = vpadalq_s16(acc[v][0], vmull_s8(vget_low_s8(w), vget_low_s8(q)));
                acc[v][1] = vpadalq_s16(acc[v][1], vmull_high_s8(w, q));
            }
        }
        for v in 0..4 {
            // SAFETY: sixteen sums in four registers.
            unsafe { vst1q_s32(out.as_mut_ptr().add(4 * v), vpaddq_s32(acc[v][0], acc[v][1])) };
        }
    }
}
