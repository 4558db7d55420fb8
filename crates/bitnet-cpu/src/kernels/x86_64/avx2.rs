//! Kernels for AVX2 with FMA: products by `vpmaddubsw`, eight rows a register.
//!
//! `vpmaddubsw` adds two products of a code (0..=2) and an int8 into 16 bits: at most 512 in magnitude. The four bit
//! pairs of a tile together add at most 2048, so sixteen tiles fit 16 bits exactly (-32768 at worst) before they are
//! widened; nothing ever saturates.

use std::arch::x86_64::*;

use crate::kernels::{KernelSet, Product, generic};
use crate::layout::TILE_BYTES;

generic::float_kernels!(super::vectors::Avx2, #[target_feature(enable = "avx2,fma,f16c")]);

/// The set of this module.
pub(in crate::kernels) const AVX2: KernelSet = KernelSet {
    name: "avx2",
    requires: "AVX2, FMA and F16C",
    available: || {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
    },
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    merge_states,
    encode_kv,
    dense,
    int8_row,
    int8_sums,
};

/// Tiles whose 16-bit sums cannot overflow.
const TILES_PER_WIDENING: usize = 16;

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "avx2,fma")]
unsafe fn product(p: &Product<'_>) {
    p.check();
    for strip in 0..p.strip_count() {
        let mut row = 0;
        // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
        unsafe {
            while row + 4 <= p.rows() {
                strip_rows::<4>(p, strip, row);
                row += 4;
            }
            while row < p.rows() {
                strip_rows::<1>(p, strip, row);
                row += 1;
            }
        }
    }
}

/// One strip with `M` rows from `row` on.
///
/// # Safety
/// The strip and the rows are inside `p`, whose outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn strip_rows<const M: usize>(p: &Product<'_>, strip: usize, row: usize) {
    let groups = p.groups();
    // Rows of a call lie in one block: blocks hold a multiple of four.
    let (q, step) = (p.row_start(row).cast::<i32>(), p.row_block());
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; M];
    let mut group = 0;
    while group < groups {
        let end = groups.min(group + TILES_PER_WIDENING);
        let mut narrow = [[_mm256_setzero_si256(); 2]; M];
        for g in group..end {
            for half in 0..2 {
                // SAFETY: tile `g` of the strip and columns `16 g ..` of the rows are inside the slices.
                unsafe {
                    let at = p.strips.as_ptr().add(strip * p.strip_bytes + g * TILE_BYTES + 32 * half);
                    let v = _mm256_loadu_si256(at.cast());
                    let codes = [
                        _mm256_and_si256(v, mask),
                        _mm256_and_si256(_mm256_srli_epi16::<2>(v), mask),
                        _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask),
                        _mm256_and_si256(_mm256_srli_epi16::<6>(v), mask),
                    ];
                    for m in 0..M {
                        for (i, code) in codes.iter().enumerate() {
                            let a = _mm256_set1_epi32(q.add((4 * g + i) * step + m).read_unaligned());
                            narrow[m][half] =
                                _mm256_add_epi16(narrow[m][half], _mm256_maddubs_epi16(*code, a));
                        }
                    }
                }
            }
        }
        for m in 0..M {
            for half in 0..2 {
                let wide = _mm256_madd_epi16(narrow[m][half], ones);
                sums[m][half] = _mm256_add_epi32(sums[m][half], wide);
            }
        }
        group = end;
    }
    for (m, sums) in sums.iter().enumerate() {
        let mut lanes = [0i32; 16];
        // SAFETY: two halves of eight lanes each; outputs as promised by the caller.
        unsafe {
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums[0]);
            _mm256_storeu_si256(lanes.as_mut_ptr().add(8).cast(), sums[1]);
            p.store(strip, row + m, &lanes);
        }
    }
}

/// Sums of int8 strips: `out[16 * strip + lane] = sum(w * q)`, by products of magnitudes and signed weights: at most
/// 2 * 127 * 128, which fits 16 bits.
#[target_feature(enable = "avx2,fma")]
fn int8_sums(strips: &[i8], q: &[i8], _sum: i32, out: &mut [i32]) {
    let ones = _mm256_set1_epi16(1);
    for (strip, out) in strips.chunks_exact(16 * q.len()).zip(out.as_chunks_mut::<16>().0) {
        let mut acc = [_mm256_setzero_si256(); 2];
        for (tile, q) in strip.as_chunks::<64>().0.iter().zip(q.as_chunks::<4>().0) {
            let a = _mm256_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)));
            let magnitude = _mm256_abs_epi8(a);
            for (half, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a tile has two halves of 32 bytes.
                let w = unsafe { _mm256_loadu_si256(tile.as_ptr().add(32 * half).cast()) };
                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, a));
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(pairs, ones));
            }
        }
        // SAFETY: sixteen sums in two registers of eight.
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), acc[0]);
            _mm256_storeu_si256(out.as_mut_ptr().add(8).cast(), acc[1]);
        }
    }
}
