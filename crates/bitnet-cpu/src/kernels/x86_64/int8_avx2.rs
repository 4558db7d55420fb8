//! Sums of the int8 output layer for AVX2: weights are widened to 16 bits and multiplied by `vpmaddwd` with both parts of a
//! hidden row at once. Products of bytes by `vpmaddubsw` would need a sign moved from one factor to the other and twice the
//! multiplications: 4.3 instructions for 16 weights and one hidden row instead of 3, and 4 instead of 2 for each further one.

use std::arch::x86_64::*;

use crate::kernels::int8::{FINE_BITS, PANEL_ROWS, PARTS, Panel, PartLayout, QUAD, Sums, TILE};

/// How far ahead of the multiplier memory is asked for, in bytes.
const AHEAD: usize = 4096;
/// Bytes of weights that fill a register when they are widened: those of four rows.
const HALF: usize = 16;
/// Bytes of a quad of 16-bit columns.
const WORDS: usize = QUAD * size_of::<i16>();
/// Quads whose products fit 32 bits: 127 weights times `127 * 128 + 127`, 1024 times, are below 2^31.
const QUADS_PER_SECTION: usize = 256;

/// Exact sums of a panel (see [`Panel`]).
///
/// # Panics
/// If the columns of the hidden rows do not have 16 bits.
#[target_feature(enable = "avx2,fma")]
pub(super) fn int8_sums(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    assert!(matches!(p.layout, PartLayout::Words { .. }), "this set asks for words");
    // SAFETY: `check` measured panel and hidden rows, of which there are one to four.
    unsafe {
        match p.part_sums.len() / PARTS {
            1 => sums_of::<1, 8>(p, out),
            2 => sums_of::<2, 4>(p, out),
            3 => sums_of::<3, 2>(p, out),
            _ => sums_of::<4, 2>(p, out),
        }
    }
}

/// All rows of the panel with the first `M` hidden rows, in registers of `V` times four rows; `V` is even.
///
/// # Safety
/// `p` was checked and has so many hidden rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums_of<const M: usize, const V: usize>(p: &Panel<'_>, out: &mut Sums) {
    let PartLayout::Words { rows } = p.layout else { return };
    for part in 0..TILE / (V * HALF) {
        // SAFETY: there are as many tiles as quads of each of the hidden rows, as the caller checked; a prefetch past the
        // end does nothing.
        unsafe {
            let (mut tile, mut q) = (p.weights.as_ptr().add(part * V * HALF), p.q.as_ptr());
            let mut left = p.quads();
            let mut first = true;
            while left > 0 {
                let now = left.min(QUADS_PER_SECTION);
                let mut acc = [[_mm256_setzero_si256(); V]; M];
                for _ in 0..now {
                    fetch::<V>(p, tile, part);
                    let mut h = [_mm256_setzero_si256(); M];
                    for (m, h) in h.iter_mut().enumerate() {
                        *h = _mm256_set1_epi64x(q.add(m * WORDS).cast::<i64>().read_unaligned());
                    }
                    for v in 0..V {
                        let w = _mm256_cvtepi8_epi16(_mm_loadu_si128(tile.add(v * HALF).cast()));
                        for m in 0..M {
                            acc[m][v] = _mm256_add_epi32(acc[m][v], _mm256_madd_epi16(w, h[m]));
                        }
                    }
                    tile = tile.wrapping_add(TILE);
                    q = q.wrapping_add(rows * WORDS);
                }
                for (acc, out) in acc.iter().zip(out.as_chunks_mut::<PARTS>().0) {
                    for (i, pair) in acc.as_chunks::<2>().0.iter().enumerate() {
                        put(*pair, out, part * V * 4 + i * 8, first);
                    }
                }
                (left, first) = (left - now, false);
            }
        }
    }
}

/// Fetches what comes after `V` registers of a tile: with all rows at once what is a little ahead, otherwise a cache line of
/// the next panel, as this one stays near for the next rows.
#[inline(always)]
fn fetch<const V: usize>(p: &Panel<'_>, tile: *const i8, part: usize) {
    // SAFETY: a prefetch of any address does nothing but warm caches.
    unsafe {
        if V * HALF == TILE {
            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD));
            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD + TILE / 2));
        } else if (part * V * HALF).is_multiple_of(TILE / 2) {
            _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(p.weights.len()));
        }
    }
}

/// Adds the sums of eight rows, two lanes each, to those of rows `at` on of a hidden row, which are set if these are the
/// first.
///
/// # Safety
/// There are eight rows from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn put([low, high]: [__m256i; 2], out: &mut [[i32; PANEL_ROWS]; PARTS], at: usize, first: bool) {
    // Rows 0, 1, 4, 5 and 2, 3, 6, 7, then in order.
    let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
    let fine = _mm256_and_si256(sums, _mm256_set1_epi32((1 << FINE_BITS) - 1));
    let coarse = _mm256_srai_epi32::<{ FINE_BITS as i32 }>(sums);
    for (sums, out) in [coarse, fine].into_iter().zip(out) {
        // SAFETY: promised by the caller.
        unsafe {
            let to = out.as_mut_ptr().add(at).cast::<__m256i>();
            let before = if first { _mm256_setzero_si256() } else { _mm256_loadu_si256(to) };
            _mm256_storeu_si256(to, _mm256_add_epi32(before, sums));
        }
    }
}
