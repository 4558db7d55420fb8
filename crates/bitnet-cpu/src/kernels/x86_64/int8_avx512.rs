//! Sums of the int8 output layer for AVX-512 with VNNI. `vpdpbusd` wants unsigned weights: adding 128 to each (flipping its
//! highest bit) adds 128 times the sum of the part to each result, which is taken off at the end. 32-bit sums wrap
//! around, so what they pass on the way does not matter.

use std::arch::x86_64::*;

use crate::kernels::int8::{PARTS, Panel, QUAD, Sums, TILE};

/// How far ahead of the multiplier memory is asked for, in bytes.
const AHEAD: usize = 4096;

/// Exact sums of a panel (see [`Panel`]).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(super) fn int8_sums(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    // SAFETY: `check` measured panel and parts, an even number of at most eight; there are as many as the code is
    // compiled for.
    unsafe {
        match p.part_sums.len() {
            PARTS => pair(p, out),
            4 => several::<4>(p, out),
            6 => several::<6>(p, out),
            _ => several::<8>(p, out),
        }
    }
}

/// The two parts of the only hidden row: two quads side by side hide the latency of the product.
///
/// # Safety
/// `p` was checked and has two parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn pair(p: &Panel<'_>, out: &mut Sums) {
    let flip = _mm512_set1_epi8(-128);
    // For each quad the halves of the coarse and of the fine part.
    let mut acc = [[[_mm512_setzero_si512(); 2]; PARTS]; 2];
    let (mut tile, mut q) = (p.weights.as_ptr(), p.q.as_ptr());
    // SAFETY: there are as many tiles as quads of each of the `stride` parts, a multiple of four, as the caller checked; a
    // prefetch past the end does nothing.
    unsafe {
        for _ in 0..p.quads() / 2 {
            for acc in &mut acc {
                _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD));
                _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(AHEAD + 64));
                let coarse = _mm512_set1_epi32(q.cast::<i32>().read_unaligned());
                let fine = _mm512_set1_epi32(q.add(QUAD).cast::<i32>().read_unaligned());
                let low = _mm512_xor_si512(_mm512_loadu_si512(tile.cast()), flip);
                let high = _mm512_xor_si512(_mm512_loadu_si512(tile.add(64).cast()), flip);
                acc[0][0] = _mm512_dpbusd_epi32(acc[0][0], low, coarse);
                acc[0][1] = _mm512_dpbusd_epi32(acc[0][1], high, coarse);
                acc[1][0] = _mm512_dpbusd_epi32(acc[1][0], low, fine);
                acc[1][1] = _mm512_dpbusd_epi32(acc[1][1], high, fine);
                tile = tile.add(TILE);
                q = q.wrapping_add(p.layout.stride() * QUAD);
            }
        }
    }
    for part in 0..PARTS {
        let half = |i: usize| _mm512_add_epi32(acc[0][part][i], acc[1][part][i]);
        // SAFETY: `p` has two parts.
        unsafe { store(p, part, [half(0), half(1)], out) };
    }
}

/// `M` parts side by side.
///
/// # Safety
/// `p` was checked and has `M` parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn several<const M: usize>(p: &Panel<'_>, out: &mut Sums) {
    let flip = _mm512_set1_epi8(-128);
    let mut acc = [[_mm512_setzero_si512(); 2]; M];
    let (mut tile, mut q) = (p.weights.as_ptr(), p.q.as_ptr());
    // SAFETY: there are as many tiles as quads of each of the `stride` parts, as the caller checked.
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
            q = q.wrapping_add(p.layout.stride() * QUAD);
        }
        for m in 0..M {
            store(p, m, acc[m], out);
        }
    }
}

/// Takes off what making the weights unsigned has added, and writes the sums of one part.
///
/// # Safety
/// `p` has the part.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn store(p: &Panel<'_>, part: usize, sums: [__m512i; 2], out: &mut Sums) {
    let added = _mm512_set1_epi32(128 * p.part_sums[part]);
    // SAFETY: 32 sums in two registers of sixteen.
    unsafe {
        let to = out[part].as_mut_ptr();
        _mm512_storeu_si512(to.cast(), _mm512_sub_epi32(sums[0], added));
        _mm512_storeu_si512(to.add(16).cast(), _mm512_sub_epi32(sums[1], added));
    }
}
