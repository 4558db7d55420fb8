//! Kernels with `sdot`: four products and their sum in each 32-bit lane, that is, four output rows a register.
//!
//! `sdot` takes its activations from one lane of a register, so nothing is broadcast. One row (decoding) is limited by
//! memory: four strips run side by side, so that the processor follows four streams. Several rows are limited by the
//! multiplier: the codes of a strip are unpacked once, to scratch, and multiplied with blocks of six rows: 24 registers
//! of sums, seven loads for 24 products.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::asm::{prefetch, sdot};
use super::digits::{Digits, FiveTrits, TwoBit, VECTORS, store, unpack};
use super::int8::int8_sums_dotprod;
use super::neon::NEON;
use super::vectors::Neon;
use crate::kernels::attention::{self, Attend, AttendScratch};
use crate::kernels::{KernelSet, Product, ROW_BLOCK, scalar};
use crate::layout::{Form, TILE_BYTES};

/// Cortex-A76, Neoverse N1, Apple M1 and later.
pub(in crate::kernels) const DOTPROD: KernelSet = KernelSet {
    name: "neon-dotprod",
    requires: "NEON with dot products (sdot)",
    available: || is_aarch64_feature_detected!("dotprod"),
    measure_forms: true,
    tiles_from: usize::MAX,
    product,
    attend,
    int8_sums: int8_sums_dotprod,
    ..NEON
};

/// Strips that one row is multiplied with side by side.
const STRIPS: usize = 4;

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "neon,dotprod")]
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

/// Ternary product with the only row.
///
/// # Safety
/// As [`product`], for one row, after `p.check()`.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn product_of_one_row(p: &Product<'_>) {
    // SAFETY: promised by the caller.
    unsafe {
        match p.form {
            Form::TwoBit => strips_with_one_row::<TwoBit, 4>(p),
            Form::FiveTrits => strips_with_one_row::<FiveTrits, 5>(p),
            Form::FourRows => scalar::product_of_four_rows(p),
        }
    }
}

/// # Safety
/// As [`product_of_one_row`].
#[inline(always)]
unsafe fn strips_with_one_row<D: Digits<N>, const N: usize>(p: &Product<'_>) {
    let strips = p.strip_count();
    let mut strip = 0;
    // SAFETY: promised by the caller.
    unsafe {
        let digits = D::new();
        while strip + STRIPS <= strips {
            one_row::<D, N, STRIPS>(p, digits, strip);
            strip += STRIPS;
        }
        while strip < strips {
            one_row::<D, N, 1>(p, digits, strip);
            strip += 1;
        }
    }
}

/// `S` strips with the only row.
///
/// # Safety
/// The strips are inside `p`, whose outputs exist and belong to this thread.
#[inline(always)]
unsafe fn one_row<D: Digits<N>, const N: usize, const S: usize>(p: &Product<'_>, digits: D, strip: usize) {
    // SAFETY: pointers stay inside the strips and the activation row; outputs are promised by the caller.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); VECTORS]; S];
        let base = p.strips.as_ptr().add(strip * p.strip_bytes);
        let row = p.q.as_ptr().cast::<i32>();
        for g in 0..p.groups() {
            let quads: [int8x8_t; N] =
                std::array::from_fn(|i| vreinterpret_s8_s32(vdup_n_s32(row.add(N * g + i).read_unaligned())));
            for s in 0..S {
                let tile = base.add(s * p.strip_bytes + g * TILE_BYTES);
                // The same tile of the strips that come next.
                prefetch(tile.wrapping_add(S * p.strip_bytes));
                for v in 0..VECTORS {
                    let codes = digits.codes(vld1q_u8(tile.add(16 * v)));
                    for i in 0..N {
                        sums[s][v] = sdot::<0>(sums[s][v], codes[i], quads[i]);
                    }
                }
            }
        }
        for s in 0..S {
            for v in 0..VECTORS {
                store(p, strip + s, v, 0, sums[s][v]);
            }
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
            unpack::<D, N>(p, strip, codes);
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

/// One strip of codes with `P` pairs of rows from `row` on, which is the first of a block. Where the last row is missing,
/// its place in the block is read and the result dropped.
///
/// # Safety
/// The strip and the row are inside `p`, whose outputs exist and belong to this thread; `codes` holds the strip,
/// `[quads][64]`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn row_block<const P: usize>(p: &Product<'_>, codes: &[u8], strip: usize, row: usize) {
    let mut sums = [[[vdupq_n_s32(0); VECTORS]; 2]; P];
    let (mut code, mut q) = (codes.as_ptr().cast::<i8>(), p.row_start(row));
    // SAFETY: pointers stay inside the codes and the block of rows; outputs are promised by the caller.
    unsafe {
        for _ in 0..p.quads() {
            let codes: [int8x16_t; VECTORS] = std::array::from_fn(|v| vld1q_s8(code.add(16 * v)));
            for (j, sums) in sums.iter_mut().enumerate() {
                let pair = vld1_s8(q.add(8 * j));
                for v in 0..VECTORS {
                    sums[0][v] = sdot::<0>(sums[0][v], codes[v], pair);
                    sums[1][v] = sdot::<1>(sums[1][v], codes[v], pair);
                }
            }
            code = code.add(TILE_BYTES);
            q = q.wrapping_add(4 * ROW_BLOCK);
        }
        for (m, sums) in sums.as_flattened().iter().enumerate().take(p.rows() - row) {
            for v in 0..VECTORS {
                store(p, strip, v, row + m, sums[v]);
            }
        }
    }
}

/// Attention (see [`attend`](crate::kernels::attention::attend)).
#[target_feature(enable = "neon,dotprod")]
fn attend(a: &Attend<'_, '_>, scratch: &mut AttendScratch, states: &mut [f32]) {
    // SAFETY: this function has the features of the vector type.
    unsafe { attention::attend::<Neon<true>>(a, scratch, states) }
}
