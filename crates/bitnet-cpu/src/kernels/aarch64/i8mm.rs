//! Kernels with `smmla`: a 2x2 matrix of sums of eight products, twice the work of `sdot` an instruction.
//!
//! It pays where there are several rows; a single one goes the way of [`super::dotprod`]. Codes are unpacked once a
//! strip so that two output rows by eight columns (two quads) make a register; two rows of the batch by the same columns
//! are the other operand. A strip with six rows takes 24 registers of sums.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::asm::smmla;
use super::digits::{Digits, FiveTrits, TwoBit, VECTORS, store};
use super::dotprod::{DOTPROD, product_of_one_row};
use crate::kernels::{KernelSet, Product, ROW_BLOCK, scalar};
use crate::layout::{Form, TILE_BYTES};

/// Neoverse V1 and N2, Apple M2, Cortex-A710 and later.
pub(in crate::kernels) const I8MM: KernelSet = KernelSet {
    name: "neon-i8mm",
    requires: "NEON with dot products (sdot) and int8 matrix products (smmla)",
    available: || is_aarch64_feature_detected!("dotprod") && is_aarch64_feature_detected!("i8mm"),
    product,
    ..DOTPROD
};

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product(p: &Product<'_>, codes: &mut [u8]) {
    p.check(codes);
    // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
    unsafe {
        match p.form {
            _ if p.rows() == 1 => product_of_one_row(p),
            Form::TwoBit => product_of_rows::<TwoBit, 4>(p, codes),
            Form::FiveTrits => product_of_rows::<FiveTrits, 5>(p, codes),
            Form::FourRows => scalar::product_of_four_rows(p),
        }
    }
}

/// Ternary product with several rows.
///
/// # Safety
/// As [`product`], after `p.check()`.
#[inline(always)]
unsafe fn product_of_rows<D: Digits<N>, const N: usize>(p: &Product<'_>, codes: &mut [u8]) {
    for strip in 0..p.strip_count() {
        // SAFETY: promised by the caller.
        unsafe {
            unpack_pairs::<D, N>(p, strip, codes);
            for row in (0..p.rows()).step_by(ROW_BLOCK) {
                match p.rows() - row {
                    1..=2 => row_block::<1>(p, codes, strip, row),
                    3..=4 => row_block::<2>(p, codes, strip, row),
                    _ => row_block::<{ ROW_BLOCK / 2 }>(p, codes, strip, row),
                }
            }
        }
    }
}

/// Unpacks one strip by pairs of quads: `codes` becomes `[quads / 2][8 pairs of output rows][2 rows][8 columns]`. An odd
/// quad at the end stays as [`super::digits::unpack`] has it, `[16 output rows][4 columns]`.
///
/// # Safety
/// Needs NEON. The strip is inside `p`, and `codes` has room for it.
#[inline(always)]
unsafe fn unpack_pairs<D: Digits<N>, const N: usize>(p: &Product<'_>, strip: usize, codes: &mut [u8]) {
    // SAFETY: promised by the caller; a tile gives `N` quads.
    unsafe {
        let digits = D::new();
        let tiles = p.strips.as_ptr().add(strip * p.strip_bytes);
        let codes = codes.as_mut_ptr().cast::<i32>();
        let words = TILE_BYTES / 4;
        for v in 0..VECTORS {
            // The even quad that waits for its odd one; tiles with an odd number of quads leave one over.
            let mut even = vdupq_n_s32(0);
            for g in 0..p.groups() {
                let bytes = vld1q_u8(tiles.add(g * TILE_BYTES + 16 * v));
                for (i, code) in digits.codes(bytes).into_iter().enumerate() {
                    let (quad, code) = (N * g + i, vreinterpretq_s32_s8(code));
                    if quad % 2 == 0 {
                        even = code;
                    } else {
                        let to = codes.add((quad - 1) * words + 8 * v);
                        vst1q_s32(to, vzip1q_s32(even, code));
                        vst1q_s32(to.add(4), vzip2q_s32(even, code));
                    }
                }
            }
            if p.quads() % 2 == 1 {
                vst1q_s32(codes.add((p.quads() - 1) * words + 4 * v), even);
            }
        }
    }
}

/// The sums of one strip with `P` pairs of rows: 2x2 matrices by pair of rows and pair of outputs.
type Sums<const P: usize> = [[int32x4_t; 2 * VECTORS]; P];

/// One strip of codes with `P` pairs of rows from `row` on, which is the first of a block. Where the last row is missing,
/// its place in the block is read and the result dropped.
///
/// # Safety
/// The strip and the row are inside `p`, whose outputs exist and belong to this thread; `codes` is as [`unpack_pairs`]
/// leaves it.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn row_block<const P: usize>(p: &Product<'_>, codes: &[u8], strip: usize, row: usize) {
    let mut sums: Sums<P> = [[vdupq_n_s32(0); 2 * VECTORS]; P];
    let (mut code, mut q) = (codes.as_ptr().cast::<i8>(), p.row_start(row));
    // SAFETY: pointers stay inside the codes and the block of rows; outputs are promised by the caller.
    unsafe {
        let quad = |q: *const i8, j: usize| vreinterpret_s32_s8(vld1_s8(q.add(8 * j)));
        let two_rows = |a, b| vreinterpretq_s8_s32(vcombine_s32(vzip1_s32(a, b), vzip2_s32(a, b)));
        for _ in 0..p.quads() / 2 {
            let next = q.wrapping_add(4 * ROW_BLOCK);
            let rows: [int8x16_t; P] = std::array::from_fn(|j| two_rows(quad(q, j), quad(next, j)));
            for n in 0..2 * VECTORS {
                let codes = vld1q_s8(code.add(16 * n));
                for j in 0..P {
                    sums[j][n] = smmla(sums[j][n], codes, rows[j]);
                }
            }
            code = code.add(2 * TILE_BYTES);
            q = q.wrapping_add(8 * ROW_BLOCK);
        }
        // A copy, so that the sums of the loop above are nowhere but in registers.
        let mut sums = sums;
        if p.quads() % 2 == 1 {
            // Zeros stand for the columns of the quad that is not there.
            let none = vdup_n_s32(0);
            for n in 0..2 * VECTORS {
                let codes = two_rows(quad(code, n), none);
                for j in 0..P {
                    sums[j][n] = smmla(sums[j][n], codes, two_rows(quad(q, j), none));
                }
            }
        }
        for (j, sums) in sums.iter().enumerate() {
            for v in 0..VECTORS {
                let (a, b) = (sums[2 * v], sums[2 * v + 1]);
                store(p, strip, v, row + 2 * j, vuzp1q_s32(a, b));
                if row + 2 * j + 1 < p.rows() {
                    store(p, strip, v, row + 2 * j + 1, vuzp2q_s32(a, b));
                }
            }
        }
    }
}
