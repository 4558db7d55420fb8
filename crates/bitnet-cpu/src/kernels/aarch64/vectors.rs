//! [`Lanes16`] in four NEON registers of four lanes, and what the kernels of this folder share.

use std::arch::aarch64::*;

use super::asm::fcvtl;
use crate::kernels::Product;
use crate::kernels::lanes16::Lanes16;

/// Four NEON registers; needs NEON.
#[derive(Clone, Copy)]
pub(super) struct Neon([float32x4_t; 4]);

// In all methods below: SAFETY: features and pointers are promised by the caller of the trait.

impl Lanes16 for Neon {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see above.
        unsafe { Self([vdupq_n_f32(0.0); 4]) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self([vdupq_n_f32(x); 4]) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Self([vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]) }
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> Self {
        // SAFETY: see above.
        unsafe {
            let words = [vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p.add(16)))];
            let low = |w| vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(w)));
            let high = |w| vreinterpretq_f32_u32(vshll_high_n_u16::<16>(w));
            Self([low(words[0]), high(words[0]), low(words[1]), high(words[1])])
        }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self {
        // SAFETY: see above.
        unsafe {
            let words = [vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p.add(16)))];
            let low = |w| fcvtl(vget_low_u16(w));
            let high = |w| fcvtl(vget_high_u16(w));
            Self([low(words[0]), high(words[0]), low(words[1]), high(words[1])])
        }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(std::array::from_fn(|i| vfmaq_f32(b.0[i], self.0[i], a.0[i]))) }
    }

    #[inline(always)]
    unsafe fn mul(self, a: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(std::array::from_fn(|i| vmulq_f32(self.0[i], a.0[i]))) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see above.
        unsafe {
            for i in 0..4 {
                vst1q_f32(p.add(4 * i), self.0[i]);
            }
        }
    }
}

/// The codes of the four fields of 16 bytes of a tile: vector `i` holds column `4 i + b` of row `r` in byte `4 r + b`.
///
/// # Safety
/// Needs NEON.
#[inline(always)]
pub(super) unsafe fn unpack(v: uint8x16_t) -> [int8x16_t; 4] {
    // SAFETY: promised by the caller.
    unsafe {
        let mask = vdupq_n_u8(3);
        [
            vreinterpretq_s8_u8(vandq_u8(v, mask)),
            vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8::<2>(v), mask)),
            vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8::<4>(v), mask)),
            vreinterpretq_s8_u8(vshrq_n_u8::<6>(v)),
        ]
    }
}

/// Scales the sums of four outputs of one row, from output `at` of that row on, and writes them.
///
/// # Safety
/// Needs NEON. The outputs exist and belong to this thread.
#[inline(always)]
pub(super) unsafe fn store4(p: &Product<'_>, at: usize, row: usize, sums: int32x4_t) {
    // SAFETY: promised by the caller.
    unsafe {
        let out = p.out.add(row * p.stride + at);
        let exact = vcvtq_f32_s32(vsubq_s32(sums, vdupq_n_s32(p.row_sums[row])));
        let mut y = vmulq_f32(exact, vdupq_n_f32(p.factors[row]));
        if p.accumulate {
            y = vaddq_f32(vld1q_f32(out), y);
        }
        vst1q_f32(out, y);
    }
}
