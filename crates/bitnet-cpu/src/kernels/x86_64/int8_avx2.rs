//! Sums of the int8 output layer for AVX2: products of magnitudes and signed weights by `vpmaddubsw`. Both are at most 127,
//! so two products fit 16 bits.

use std::arch::x86_64::*;

use crate::kernels::int8::{PARTS, Panel, QUAD, Sums, TILE};

/// How far ahead of the multiplier memory is asked for, in bytes.
const AHEAD: usize = 4096;

/// Exact sums of a panel (see [`Panel`]).
#[target_feature(enable = "avx2,fma")]
pub(super) fn int8_sums(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    // SAFETY: `check` measured panel and parts; those named are among them, and the halves are 0 and 1.
    unsafe {
        let rows = p.part_sums.len();
        if rows == PARTS {
            pair(p, out);
            return;
        }
        for half in 0..2 {
            for row in (0..rows).step_by(4) {
                match rows - row {
                    4.. => several::<4>(p, half, row, out),
                    _ => several::<PARTS>(p, half, row, out),
                }
            }
        }
    }
}

/// Adds the products of 32 weights with the four activations in each lane of `a`, whose magnitudes are given as well.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_products(acc: __m256i, w: __m256i, a: __m256i, magnitude: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, a));
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// All rows of the panel with the two parts of the only hidden row.
///
/// # Safety
/// `p` was checked.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn pair(p: &Panel<'_>, out: &mut Sums) {
    let mut acc = [[_mm256_setzero_si256(); 4]; PARTS];
    let (mut tile, mut q) = (p.weights.as_ptr(), p.q.as_ptr());
    // SAFETY: there are as many tiles as quads of each of the `stride` parts, as the caller checked; a prefetch past the
    // end does nothing.
    unsafe {
        for _ in 0..p.quads() {
            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD));
            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD + 64));
            let coarse = _mm256_set1_epi32(q.cast::<i32>().read_unaligned());
            let fine = _mm256_set1_epi32(q.add(QUAD).cast::<i32>().read_unaligned());
            let magnitudes = [_mm256_abs_epi8(coarse), _mm256_abs_epi8(fine)];
            for i in 0..4 {
                let w = _mm256_loadu_si256(tile.add(32 * i).cast());
                acc[0][i] = add_products(acc[0][i], w, coarse, magnitudes[0]);
                acc[1][i] = add_products(acc[1][i], w, fine, magnitudes[1]);
            }
            tile = tile.add(TILE);
            q = q.wrapping_add(p.layout.stride() * QUAD);
        }
        for (acc, out) in acc.iter().zip(out) {
            for (i, acc) in acc.iter().enumerate() {
                _mm256_storeu_si256(out.as_mut_ptr().add(8 * i).cast(), *acc);
            }
        }
    }
}

/// Half of the rows of the panel with `M` parts from `row` on.
///
/// # Safety
/// `p` was checked, `half` is 0 or 1, and the parts are in `p`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn several<const M: usize>(p: &Panel<'_>, half: usize, row: usize, out: &mut Sums) {
    let mut acc = [[_mm256_setzero_si256(); 2]; M];
    // SAFETY: there are as many tiles as quads of each of the `stride` parts, as the caller checked.
    unsafe {
        let (mut tile, mut q) = (p.weights.as_ptr().add(half * TILE / 2), p.q.as_ptr().add(row * QUAD));
        for _ in 0..p.quads() {
            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD));
            let w = [_mm256_loadu_si256(tile.cast()), _mm256_loadu_si256(tile.add(32).cast())];
            for m in 0..M {
                let a = _mm256_set1_epi32(q.add(m * QUAD).cast::<i32>().read_unaligned());
                let magnitude = _mm256_abs_epi8(a);
                acc[m][0] = add_products(acc[m][0], w[0], a, magnitude);
                acc[m][1] = add_products(acc[m][1], w[1], a, magnitude);
            }
            tile = tile.wrapping_add(TILE);
            q = q.wrapping_add(p.layout.stride() * QUAD);
        }
        for m in 0..M {
            let to = out[row + m].as_mut_ptr().add(16 * half);
            _mm256_storeu_si256(to.cast(), acc[m][0]);
            _mm256_storeu_si256(to.add(8).cast(), acc[m][1]);
        }
    }
}
