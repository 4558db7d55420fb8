//! Kernel sets for AVX-512 with VNNI, sixteen rows a register; `avx512vbmi` differs in how it unpacks five trits a byte.

use std::arch::x86_64::*;

use super::product_avx512::{product, product_vbmi};
use crate::kernels::{KernelSet, generic};

generic::float_kernels!(super::vectors::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]);

/// Ice Lake, Zen 4 and later.
pub(in crate::kernels) const AVX512_VBMI: KernelSet = KernelSet {
    name: "avx512vbmi",
    requires: "AVX-512 F, BW, VL, DQ, VNNI and VBMI",
    available: || AVX512.is_available() && is_x86_feature_detected!("avx512vbmi"),
    product: product_vbmi,
    ..AVX512
};

/// Cascade Lake and Cooper Lake.
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
    measure_forms: true,
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    dense,
    int8_row,
    int8_sums,
};

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
