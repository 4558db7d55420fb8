//! [`Lanes16`] in four NEON registers of four lanes.

use std::arch::aarch64::*;

use super::asm::fcvtl;
use crate::kernels::lanes16::Lanes16;

/// Four NEON registers; needs NEON, and `dotprod` if `SDOT`, for dot products of bytes.
#[derive(Clone, Copy)]
pub(super) struct Neon<const SDOT: bool>(pub(super) [float32x4_t; 4]);

// In all methods below: SAFETY: features and pointers are promised by the caller of the trait.

impl<const SDOT: bool> Lanes16 for Neon<SDOT> {
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
