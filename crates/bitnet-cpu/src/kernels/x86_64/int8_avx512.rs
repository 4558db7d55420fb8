//! Sums of the int8 output layer for AVX-512 with VNNI. `vpdpbusd` wants unsigned weights: adding 128 to each (flipping its
//! highest bit) adds 128 times the sum of the hidden row to each result, which is taken off at the end. 32-bit sums wrap
//! around, so what they pass on the way does not matter.

use std::arch::x86_64::*;

use crate::kernels::int8::{Panel, QUAD, Sums, TILE};

/// How far ahead of the multiplier memory is asked for, in bytes.
const AHEAD: usize = 4096;

/// Exact sums of a panel (see [`Panel`]).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(super) fn int8_sums(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    // SAFETY: `check` measured panel and rows; there are as many hidden rows as the code is compiled for.
    unsafe {
        match (p.stride, p.hidden.len()) {
            (1, _) => single(p, out),
            (_, 1) => several::<1>(p, out),
            (_, 2) => several::<2>(p, out),
            (_, 3) => several::<3>(p, out),
            (_, 4) => several::<4>(p, out),
            (_, 5) => several::<5>(p, out),
            (_, 6) => several::<6>(p, out),
            (_, 7) => several::<7>(p, out),
            _ => several::<8>(p, out),
        }
    }
}

/// The only hidden row: four quads side by side hide the latency of the product.
///
/// # Safety
/// `p` was checked.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn single(p: &Panel<'_>, out: &mut Sums) {
    let flip = _mm512_set1_epi8(-128);
    let mut acc = [[_mm512_setzero_si512(); 2]; 4];
    let (mut tile, mut q) = (p.weights.as_ptr(), p.q.as_ptr());
    // SAFETY: there are as many tiles as quads, a multiple of four, as the caller checked; a prefetch past the end does
    // nothing.
    unsafe {
        for _ in 0..p.quads() / 4 {
            for acc in &mut acc {
                _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD));
                _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD + 64));
                let a = _mm512_set1_epi32(q.cast::<i32>().read_unaligned());
                let low = _mm512_xor_si512(_mm512_loadu_si512(tile.cast()), flip);
                let high = _mm512_xor_si512(_mm512_loadu_si512(tile.add(64).cast()), flip);
                acc[0] = _mm512_dpbusd_epi32(acc[0], low, a);
                acc[1] = _mm512_dpbusd_epi32(acc[1], high, a);
                tile = tile.add(TILE);
                q = q.add(QUAD);
            }
        }
    }
    let half = |i: usize| {
        let pairs = [_mm512_add_epi32(acc[0][i], acc[1][i]), _mm512_add_epi32(acc[2][i], acc[3][i])];
        _mm512_add_epi32(pairs[0], pairs[1])
    };
    // SAFETY: `p` has one hidden row.
    unsafe { store(p, 0, [half(0), half(1)], out) };
}

/// `M` hidden rows side by side.
///
/// # Safety
/// `p` was checked and has `M` hidden rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn several<const M: usize>(p: &Panel<'_>, out: &mut Sums) {
    let flip = _mm512_set1_epi8(-128);
    let mut acc = [[_mm512_setzero_si512(); 2]; M];
    let (mut tile, mut q) = (p.weights.as_ptr(), p.q.as_ptr());
    // SAFETY: there are as many tiles as quads of each of the `stride` rows, as the caller checked.
    unsafe {
        for _ in 0..p.quads() {
            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD));
            _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD + 64));
            let low = _mm512_xor_si512(_mm512_loadu_si512(tile.cast()), flip);
            let high = _mm512_xor_si512(_mm512_loadu_si512(tile.add(64).cast()), flip);
            for m in 0..M {
                let a = _mm512_set1_epi32(q.add(m * QUAD).cast::<i32>().read_unaligned());
                acc[m][0] = _mm512_dpbusd_epi32(acc[m][0], low, a);
                acc[m][1] = _mm512_dpbusd_epi32(acc[m][1], high, a);
            }
            tile = tile.add(TILE);
            q = q.wrapping_add(p.stride * QUAD);
        }
        for m in 0..M {
            store(p, m, acc[m], out);
        }
    }
}

/// Takes off what making the weights unsigned has added, and writes the sums of one hidden row.
///
/// # Safety
/// `p` has the hidden row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn store(p: &Panel<'_>, row: usize, sums: [__m512i; 2], out: &mut Sums) {
    let added = _mm512_set1_epi32(128 * p.hidden[row].sum);
    // SAFETY: 32 sums in two registers of sixteen.
    unsafe {
        let to = out[row].as_mut_ptr();
        _mm512_storeu_si512(to.cast(), _mm512_sub_epi32(sums[0], added));
        _mm512_storeu_si512(to.add(16).cast(), _mm512_sub_epi32(sums[1], added));
    }
}
