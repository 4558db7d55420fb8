//! [`Dots16`] in the registers of AVX2 and AVX-512 VNNI.

use std::arch::x86_64::*;

use super::vectors::{Avx2, Avx512};
use crate::kernels::dots16::Dots16;

// In all methods below: SAFETY: features and pointers are promised by the caller of the trait.

/// `vpmaddubsw` adds two products into 16 bits, which must not saturate.
impl Dots16 for Avx2 {
    type Ints = [__m256i; 2];
    type Tile = [__m256i; 2];
    const WIDE: bool = false;
    const KEY_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn ints(x: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }

    #[inline(always)]
    unsafe fn load_keys(p: *const u8) -> Self::Tile {
        // SAFETY: see above.
        unsafe {
            let flip = _mm256_set1_epi8(-128);
            Self::load_values(p).map(|k| _mm256_xor_si256(k, flip))
        }
    }

    #[inline(always)]
    unsafe fn load_values(p: *const u8) -> Self::Tile {
        // SAFETY: see above.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }

    /// Magnitudes of the query times keys with its signs: a pair is at most `2 * 127 * 127`.
    #[inline(always)]
    unsafe fn dot_keys(acc: Self::Ints, keys: Self::Tile, q: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe {
            let (q, ones) = (_mm256_set1_epi32(q), _mm256_set1_epi16(1));
            let magnitude = _mm256_abs_epi8(q);
            let half = |acc, keys| {
                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(keys, q));
                _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones))
            };
            [half(acc[0], keys[0]), half(acc[1], keys[1])]
        }
    }

    /// Even and odd weights apart, so that a "pair" is one product, at most `255 * 128`.
    #[inline(always)]
    unsafe fn dot_values(acc: Self::Ints, values: Self::Tile, w: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let even = _mm256_set1_epi32(w & 0x00ff_00ff);
            let odd = _mm256_set1_epi32(w & 0xff00_ff00_u32 as i32);
            let half = |acc, values| {
                let even = _mm256_madd_epi16(_mm256_maddubs_epi16(even, values), ones);
                let odd = _mm256_madd_epi16(_mm256_maddubs_epi16(odd, values), ones);
                _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
            };
            [half(acc[0], values[0]), half(acc[1], values[1])]
        }
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])) }
    }
}

/// `vpdpbusd` multiplies unsigned bytes with signed ones: keys as they are stored with queries, weights with values.
impl Dots16 for Avx512 {
    type Ints = __m512i;
    type Tile = __m512i;
    const WIDE: bool = true;
    const KEY_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn ints(x: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn load_keys(p: *const u8) -> Self::Tile {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load_values(p: *const u8) -> Self::Tile {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn dot_keys(acc: Self::Ints, keys: Self::Tile, q: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(acc, keys, _mm512_set1_epi32(q)) }
    }

    #[inline(always)]
    unsafe fn dot_values(acc: Self::Ints, values: Self::Tile, w: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(w), values) }
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_cvtepi32_ps(ints)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Avx2, Avx512};
    use crate::kernels::dots16::check;
    use crate::kernels::lanes16::Lanes16;

    #[test]
    #[allow(clippy::print_stdout, reason = "what was not tested")]
    fn dot_products_are_exact_up_to_the_limits() {
        if super::super::AVX2.is_available() {
            // SAFETY: the processor has the features.
            unsafe { check::<Avx2>() };
        }
        if super::super::AVX512.is_available() {
            // SAFETY: the processor has the features.
            unsafe { check::<Avx512>() };
        } else {
            println!("AVX-512 was not tested: this processor lacks it");
        }
    }

    /// # Safety
    /// As [`Lanes16`].
    unsafe fn halves<V: Lanes16>() {
        for start in (0..0x1_0000u32).step_by(16) {
            let bits: [u16; 16] = std::array::from_fn(|l| (start + l as u32) as u16);
            // SAFETY: sixteen halves; the rest is promised by the caller.
            unsafe {
                let plain = <[f32; 16]>::load_f16(bits.as_ptr().cast());
                for (got, want) in V::load_f16(bits.as_ptr().cast()).to_array().iter().zip(plain) {
                    assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{got} {want}");
                }
            }
        }
    }

    #[test]
    fn every_half_widens_alike() {
        if super::super::AVX2.is_available() {
            // SAFETY: the processor has the features.
            unsafe { halves::<Avx2>() };
        }
        if super::super::AVX512.is_available() {
            // SAFETY: the processor has the features.
            unsafe { halves::<Avx512>() };
        }
    }
}
