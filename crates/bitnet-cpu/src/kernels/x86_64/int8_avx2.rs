//! Sums of the int8 output layer for AVX2. One hidden row waits for memory: its two parts are multiplied by `vpmaddubsw`,
//! magnitudes with signed weights, both at most 127, so that two products fit 16 bits. Several hidden rows do not: weights
//! are widened once and multiplied by `vpmaddwd` with both parts at once, at half the instructions for each.

use std::arch::x86_64::*;

use crate::kernels::int8::{FINE_BITS, HIDDEN_BLOCK, PARTS, Panel, PartLayout, QUAD, Sums, TILE};

/// How far ahead of the multiplier memory is asked for, in bytes.
const AHEAD: usize = 4096;
/// Quads whose products fit 32 bits: 127 weights times `127 * 128 + 127`, 1024 times, are below 2^31.
const QUADS_PER_SECTION: usize = 256;

/// Exact sums of a panel (see [`Panel`]).
#[target_feature(enable = "avx2,fma")]
pub(super) fn int8_sums(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    // SAFETY: `check` measured panel and hidden rows.
    unsafe {
        match (p.layout, p.part_sums.len() / PARTS) {
            (PartLayout::Words, 1) => several::<1>(p, out),
            (PartLayout::Words, 2) => several::<2>(p, out),
            (PartLayout::Words, 3) => several::<3>(p, out),
            (PartLayout::Words, _) => several::<HIDDEN_BLOCK>(p, out),
            _ => pair(p, out),
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

/// All rows of the panel with the first `M` hidden rows of a block, whose columns have 16 bits; eight rows at a time.
///
/// # Safety
/// `p` was checked and has so many hidden rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn several<const M: usize>(p: &Panel<'_>, out: &mut Sums) {
    for part in 0..TILE / 32 {
        let mut sums = [[_mm256_setzero_si256(); PARTS]; M];
        let mut left = p.quads();
        // SAFETY: there are as many tiles as quads of each of the hidden rows, as the caller checked; a prefetch past the
        // end does nothing.
        unsafe {
            let (mut tile, mut q) = (p.weights.as_ptr().add(32 * part), p.q.as_ptr());
            while left > 0 {
                let now = left.min(QUADS_PER_SECTION);
                let mut acc = [[_mm256_setzero_si256(); 2]; M];
                for _ in 0..now {
                    if part % 2 == 0 {
                        // The next panel, a cache line of it; this one stays near in the meantime.
                        _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(p.weights.len()));
                    }
                    let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(tile.cast()));
                    let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(tile.add(16).cast()));
                    for (m, acc) in acc.iter_mut().enumerate() {
                        let h = _mm256_set1_epi64x(q.cast::<i64>().add(m).read_unaligned());
                        acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, h));
                        acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, h));
                    }
                    tile = tile.wrapping_add(TILE);
                    q = q.wrapping_add(HIDDEN_BLOCK * QUAD * size_of::<i16>());
                }
                for ([coarse, fine], [low, high]) in sums.iter_mut().zip(acc) {
                    // Two lanes of each row become one; rows 0, 1, 4, 5 and 2, 3, 6, 7 come out.
                    let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
                    let rest = _mm256_and_si256(both, _mm256_set1_epi32((1 << FINE_BITS) - 1));
                    *coarse = _mm256_add_epi32(*coarse, _mm256_srai_epi32::<{ FINE_BITS as i32 }>(both));
                    *fine = _mm256_add_epi32(*fine, rest);
                }
                left -= now;
            }
            for (sums, out) in sums.iter().zip(out.as_chunks_mut::<PARTS>().0) {
                for (sum, out) in sums.iter().zip(out) {
                    _mm256_storeu_si256(out.as_mut_ptr().add(8 * part).cast(), *sum);
                }
            }
        }
    }
}
