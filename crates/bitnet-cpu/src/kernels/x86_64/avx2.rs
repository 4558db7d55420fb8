//! The kernel set for AVX2 with FMA, eight rows a register.

use std::arch::x86_64::*;

use super::product_avx2::product;
use crate::kernels::{KernelSet, generic};

generic::float_kernels!(super::vectors::Avx2, #[target_feature(enable = "avx2,fma")]);

/// The set of this module.
pub(in crate::kernels) const AVX2: KernelSet = KernelSet {
    name: "avx2",
    requires: "AVX2 and FMA",
    available: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    measure_forms: false,
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    dense,
    int8_row,
    int8_sums,
};

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
