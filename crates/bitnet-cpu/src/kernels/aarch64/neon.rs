//! Kernels for every ARM64 processor: products by widening multiply-adds.
//!
//! A code (0..=2) times an int8 is at most 256 in magnitude, so that a 16-bit lane holds the sum of 127 products before
//! it is widened, with its neighbour, to 32 bits. Nothing overflows.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::digits::{Digits, FiveTrits, TwoBit, VECTORS, store, unpack};
use super::vectors::Neon;
use crate::kernels::{KernelSet, Product, ROW_BLOCK, generic, int8, scalar};
use crate::layout::{Form, TILE_BYTES};

generic::float_kernels!(Neon<false>, #[target_feature(enable = "neon")]);

/// Every ARM64 processor.
pub(in crate::kernels) const NEON: KernelSet = KernelSet {
    name: "neon",
    requires: "NEON",
    available: || is_aarch64_feature_detected!("neon"),
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
    int8_sums: super::int8::int8_sums,
    int8_intervals,
};

/// Quads whose products fit 16 bits: each lane gets one of each.
const QUADS_PER_WIDENING: usize = 64;

/// Two registers for two output rows each.
type Halves<T> = [T; 2];

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "neon")]
unsafe fn product(p: &Product<'_>, codes: &mut [u8]) {
    p.check(codes);
    // SAFETY: promised by the caller.
    unsafe {
        match p.form {
            Form::TwoBit => product_of::<TwoBit, 4>(p, codes),
            Form::FiveTrits => product_of::<FiveTrits, 5>(p, codes),
            Form::FourRows => scalar::product_of_four_rows(p),
        }
    }
}

/// # Safety
/// As [`product`], after `p.check()`.
#[inline(always)]
unsafe fn product_of<D: Digits<N>, const N: usize>(p: &Product<'_>, codes: &mut [u8]) {
    for strip in 0..p.strip_count() {
        // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
        unsafe {
            if p.rows() == 1 {
                one_row::<D, N>(p, strip);
                continue;
            }
            unpack::<D, N>(p, strip, codes);
            // Rows of a call lie in one block: blocks hold an even number.
            for row in (0..p.rows()).step_by(2) {
                match p.rows() - row {
                    1 => several_rows::<1>(p, codes, strip, row),
                    _ => several_rows::<2>(p, codes, strip, row),
                }
            }
        }
    }
}

/// One strip with the only row.
///
/// # Safety
/// The strip is inside `p`, whose outputs exist and belong to this thread.
#[inline(always)]
unsafe fn one_row<D: Digits<N>, const N: usize>(p: &Product<'_>, strip: usize) {
    // SAFETY: pointers stay inside the strip and the activation row; outputs are promised by the caller.
    unsafe {
        let digits = D::new();
        let mut wide = [[vdupq_n_s32(0); 2]; VECTORS];
        let (tiles, row) = (p.strips.as_ptr().add(strip * p.strip_bytes), p.q.as_ptr());
        for g in 0..p.groups() {
            let quads: [int8x16_t; N] = std::array::from_fn(|i| quad(row.add(4 * (N * g + i))));
            for v in 0..VECTORS {
                let codes = digits.codes(vld1q_u8(tiles.add(g * TILE_BYTES + 16 * v)));
                let mut narrow = [vdupq_n_s16(0); 2];
                for i in 0..N {
                    narrow = multiply(narrow, codes[i], quads[i]);
                }
                wide[v] = widen(wide[v], narrow);
            }
        }
        for v in 0..VECTORS {
            store(p, strip, v, 0, total(wide[v]));
        }
    }
}

/// One strip of codes with `M` rows from `row` on, which lie in one block.
///
/// # Safety
/// As [`one_row`], for those rows; `codes` holds the strip, `[quads][64]`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn several_rows<const M: usize>(p: &Product<'_>, codes: &[u8], strip: usize, row: usize) {
    let mut wide = [[[vdupq_n_s32(0); 2]; VECTORS]; M];
    let (mut code, mut q) = (codes.as_ptr().cast::<i8>(), p.row_start(row));
    let mut quads = p.quads();
    // SAFETY: pointers stay inside the codes and the block of rows; outputs are promised by the caller.
    unsafe {
        while quads > 0 {
            let now = quads.min(QUADS_PER_WIDENING);
            let mut narrow = [[[vdupq_n_s16(0); 2]; VECTORS]; M];
            for _ in 0..now {
                let rows: [int8x16_t; M] = std::array::from_fn(|m| quad(q.add(4 * m)));
                for v in 0..VECTORS {
                    let codes = vld1q_s8(code.add(16 * v));
                    for m in 0..M {
                        narrow[m][v] = multiply(narrow[m][v], codes, rows[m]);
                    }
                }
                code = code.add(TILE_BYTES);
                q = q.wrapping_add(4 * ROW_BLOCK);
            }
            for m in 0..M {
                for v in 0..VECTORS {
                    wide[m][v] = widen(wide[m][v], narrow[m][v]);
                }
            }
            quads -= now;
        }
        for m in 0..M {
            for v in 0..VECTORS {
                store(p, strip, v, row + m, total(wide[m][v]));
            }
        }
    }
}

/// Four activations in each lane.
///
/// # Safety
/// Needs NEON; `q` is valid for four bytes.
#[inline(always)]
unsafe fn quad(q: *const i8) -> int8x16_t {
    // SAFETY: promised by the caller.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(q.cast::<i32>().read_unaligned())) }
}

/// Adds the products of codes and activations, a column a lane.
#[inline]
#[target_feature(enable = "neon")]
fn multiply(narrow: Halves<int16x8_t>, codes: int8x16_t, q: int8x16_t) -> Halves<int16x8_t> {
    let low = vmlal_s8(narrow[0], vget_low_s8(codes), vget_low_s8(q));
    [low, vmlal_high_s8(narrow[1], codes, q)]
}

/// Adds neighbouring columns.
#[inline]
#[target_feature(enable = "neon")]
fn widen(wide: Halves<int32x4_t>, narrow: Halves<int16x8_t>) -> Halves<int32x4_t> {
    [vpadalq_s16(wide[0], narrow[0]), vpadalq_s16(wide[1], narrow[1])]
}

/// The sums of four output rows.
#[inline]
#[target_feature(enable = "neon")]
fn total(wide: Halves<int32x4_t>) -> int32x4_t {
    vpaddq_s32(wide[0], wide[1])
}
