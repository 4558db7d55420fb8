//! Kernels for AVX-512 with VNNI: products by `vpdpbusd`, sixteen rows a register.
//!
//! One row (decode) is limited by memory: four strips run side by side, and the four bit pairs of a byte are masked but
//! not shifted. A bit pair `i` then counts `4^i` times its code (128 at most, which is still a valid unsigned byte), so
//! its sums are kept apart and shifted at the end, exactly. Several rows (prefill, batches) are limited by the
//! multiplier: codes are unpacked once and used for up to 24 rows.

use std::arch::x86_64::*;

use crate::kernels::{KernelSet, Product, ROW_BLOCK, generic};
use crate::layout::TILE_BYTES;

generic::float_kernels!(super::vectors::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]);

/// The set of this module.
pub(in crate::kernels) const AVX512: KernelSet = KernelSet {
    name: "avx512vnni",
    requires: "AVX-512 F, BW, VL, DQ and VNNI",
    available: || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
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

/// Ternary product.
///
/// # Safety
/// The outputs of `p` exist and belong to this thread.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn product(p: &Product<'_>) {
    p.check();
    let strips = p.strip_count();
    // SAFETY: strips and rows are inside the slices that `check` measured; outputs are promised by the caller.
    unsafe {
        if p.rows() == 1 {
            let mut strip = 0;
            while strip + 4 <= strips {
                single_row::<4>(p, strip);
                strip += 4;
            }
            while strip < strips {
                single_row::<1>(p, strip);
                strip += 1;
            }
            return;
        }
        let mut strip = 0;
        while strip + 2 <= strips {
            let row = row_blocks::<2>(p, strip);
            tail_rows::<2>(p, strip, row);
            strip += 2;
        }
        if strip < strips {
            let row = row_blocks::<1>(p, strip);
            tail_rows::<1>(p, strip, row);
        }
    }
}

/// Whole blocks of rows of `S` strips; returns the first row that is left.
///
/// # Safety
/// As [`product`], with `S` strips from `strip` on inside `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn row_blocks<const S: usize>(p: &Product<'_>, strip: usize) -> usize {
    let mut row = 0;
    while row + ROW_BLOCK <= p.rows() {
        // SAFETY: promised by the caller.
        unsafe { several_rows::<S, ROW_BLOCK>(p, strip, row) };
        row += ROW_BLOCK;
    }
    row
}

/// The rows of the last, incomplete block of `S` strips.
///
/// # Safety
/// As [`row_blocks`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn tail_rows<const S: usize>(p: &Product<'_>, strip: usize, mut row: usize) {
    while row < p.rows() {
        // SAFETY: promised by the caller.
        unsafe {
            match p.rows() - row {
                8.. => {
                    several_rows::<S, 8>(p, strip, row);
                    row += 8;
                }
                4..8 => {
                    several_rows::<S, 4>(p, strip, row);
                    row += 4;
                }
                2..4 => {
                    several_rows::<S, 2>(p, strip, row);
                    row += 2;
                }
                _ => {
                    several_rows::<S, 1>(p, strip, row);
                    row += 1;
                }
            }
        }
    }
}

/// `S` strips with the only row.
///
/// # Safety
/// The strips are inside `p`, whose outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn single_row<const S: usize>(p: &Product<'_>, strip: usize) {
    let masks = [3u8, 12, 48, 192].map(|m| _mm512_set1_epi8(m as i8));
    let mut acc = [[_mm512_setzero_si512(); 4]; S];
    // SAFETY: pointers stay inside the strips and the activation row; outputs are promised by the caller.
    unsafe {
        let base = p.strips.as_ptr().add(strip * p.strip_bytes);
        let q = p.q.as_ptr().cast::<i32>();
        for g in 0..p.groups() {
            let a: [__m512i; 4] =
                std::array::from_fn(|i| _mm512_set1_epi32(q.add(4 * g + i).read_unaligned()));
            for (s, acc) in acc.iter_mut().enumerate() {
                let tile = base.add(s * p.strip_bytes + g * TILE_BYTES);
                // The same tile of the strips that come next; past the end a prefetch does nothing.
                _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(S * p.strip_bytes).cast());
                let v = _mm512_loadu_si512(tile.cast());
                for i in 0..4 {
                    acc[i] = _mm512_dpbusd_epi32(acc[i], _mm512_and_si512(v, masks[i]), a[i]);
                }
            }
        }
        for (s, acc) in acc.iter().enumerate() {
            let low = _mm512_add_epi32(acc[0], _mm512_srai_epi32::<2>(acc[1]));
            let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(acc[2]), _mm512_srai_epi32::<6>(acc[3]));
            store(p, strip + s, 0, _mm512_add_epi32(low, high));
        }
    }
}

/// `S` strips with `M` rows from `row` on.
///
/// # Safety
/// The strips and rows are inside `p`, whose outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn several_rows<const S: usize, const M: usize>(p: &Product<'_>, strip: usize, row: usize) {
    let mask = _mm512_set1_epi8(3);
    let mut acc = [[_mm512_setzero_si512(); S]; M];
    // Rows of a call lie in one block.
    let mut q = p.row_start(row).cast::<i32>();
    // SAFETY: pointers stay inside the strips and the activation rows; outputs are promised by the caller.
    unsafe {
        let mut tile = p.strips.as_ptr().add(strip * p.strip_bytes);
        for _ in 0..p.groups() {
            let mut v = [_mm512_setzero_si512(); S];
            for s in 0..S {
                v[s] = _mm512_loadu_si512(tile.add(s * p.strip_bytes).cast());
            }
            for i in 0..4 {
                for m in 0..M {
                    let a = _mm512_set1_epi32(q.add(i * ROW_BLOCK + m).read_unaligned());
                    for s in 0..S {
                        acc[m][s] = _mm512_dpbusd_epi32(acc[m][s], _mm512_and_si512(v[s], mask), a);
                    }
                }
                for s in 0..S {
                    v[s] = _mm512_srli_epi16::<2>(v[s]);
                }
            }
            tile = tile.add(TILE_BYTES);
            q = q.wrapping_add(4 * ROW_BLOCK);
        }
        for m in 0..M {
            for s in 0..S {
                store(p, strip + s, row + m, acc[m][s]);
            }
        }
    }
}

/// Scales the sums of one strip and row and writes them.
///
/// # Safety
/// The outputs exist and belong to this thread.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn store(p: &Product<'_>, strip: usize, row: usize, sums: __m512i) {
    let exact = _mm512_sub_epi32(sums, _mm512_set1_epi32(p.row_sums[row]));
    let mut y = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(p.factors[row]));
    // SAFETY: promised by the caller.
    unsafe {
        let out = p.out.add(row * p.stride + strip * 16);
        if p.accumulate {
            y = _mm512_add_ps(_mm512_loadu_ps(out), y);
        }
        _mm512_storeu_ps(out, y);
    }
}

/// Sums of int8 strips: `out[16 * strip + lane] = sum(w * q)`. Weights are made unsigned by adding 128, which adds
/// `128 * sum` to each result.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn int8_sums(strips: &[i8], q: &[i8], sum: i32, out: &mut [i32]) {
    let (pairs, odd) = out.as_chunks_mut::<32>();
    let (strip_pairs, odd_strip) = strips.split_at(pairs.len() * 32 * q.len());
    for (strips, out) in strip_pairs.chunks_exact(32 * q.len()).zip(pairs) {
        let (a, b) = strips.split_at(16 * q.len());
        let sums = int8_strips([a, b], q, sum);
        // SAFETY: 32 sums in two registers of sixteen.
        unsafe {
            _mm512_storeu_si512(out.as_mut_ptr().cast(), sums[0]);
            _mm512_storeu_si512(out.as_mut_ptr().add(16).cast(), sums[1]);
        }
    }
    if let (Some(out), false) = (odd.first_chunk_mut::<16>(), odd_strip.is_empty()) {
        let sums = int8_strips([odd_strip], q, sum);
        // SAFETY: sixteen sums in one register.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums[0]) };
    }
}

/// `S` strips at once; two accumulators each hide the latency of the product.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn int8_strips<const S: usize>(strips: [&[i8]; S], q: &[i8], sum: i32) -> [__m512i; S] {
    let flip = _mm512_set1_epi8(-128);
    let mut acc = [[_mm512_setzero_si512(); 2]; S];
    let tiles = strips.map(|s| s.as_chunks::<64>().0);
    for (g, q) in q.as_chunks::<4>().0.iter().enumerate() {
        let a = _mm512_set1_epi32(i32::from_le_bytes(q.map(|q| q as u8)));
        for s in 0..S {
            // SAFETY: a tile is 64 bytes.
            let w = unsafe { _mm512_loadu_si512(tiles[s][g].as_ptr().cast()) };
            acc[s][g % 2] = _mm512_dpbusd_epi32(acc[s][g % 2], _mm512_xor_si512(w, flip), a);
        }
    }
    let offset = _mm512_set1_epi32(128 * sum);
    acc.map(|acc| _mm512_sub_epi32(_mm512_add_epi32(acc[0], acc[1]), offset))
}
