//! [`Dots16`] in NEON registers, with and without `sdot`.

use std::arch::aarch64::*;

use super::asm::sdot_all;
use super::vectors::Neon;
use crate::kernels::dots16::Dots16;

// In all methods below: SAFETY: features and pointers are promised by the caller of the trait.

/// The same 32 bits in every lane.
#[inline(always)]
unsafe fn splat(bytes: i32) -> int8x16_t {
    // SAFETY: see above.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(bytes)) }
}

/// `acc` and the sum of four products of bytes in each lane, without `sdot`. Products of a signed byte with a byte of
/// either sign fit 16 bits, two of them may not.
#[inline(always)]
unsafe fn add_products(acc: int32x4_t, a: int8x16_t, low: int16x8_t, high: int16x8_t) -> int32x4_t {
    // SAFETY: see above.
    unsafe {
        let low = vpaddlq_s16(vmulq_s16(vmovl_s8(vget_low_s8(a)), low));
        let high = vpaddlq_s16(vmulq_s16(vmovl_high_s8(a), high));
        vaddq_s32(acc, vpaddq_s32(low, high))
    }
}

impl<const SDOT: bool> Dots16 for Neon<SDOT> {
    type Ints = [int32x4_t; 4];
    type Tile = [int8x16_t; 4];
    const WIDE: bool = false;
    const KEY_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn ints(x: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(x); 4] }
    }

    #[inline(always)]
    unsafe fn load_keys(p: *const u8) -> Self::Tile {
        // SAFETY: see above.
        unsafe { Self::load_values(p).map(|k| veorq_s8(k, vdupq_n_s8(-128))) }
    }

    #[inline(always)]
    unsafe fn load_values(p: *const u8) -> Self::Tile {
        // SAFETY: see above.
        unsafe { std::array::from_fn(|v| vld1q_s8(p.cast::<i8>().add(16 * v))) }
    }

    #[inline(always)]
    unsafe fn dot_keys(acc: Self::Ints, keys: Self::Tile, q: i32) -> Self::Ints {
        let mut acc = acc;
        // SAFETY: see above.
        unsafe {
            let q = splat(q);
            let (low, high) = (vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q));
            for v in 0..4 {
                acc[v] = match SDOT {
                    true => sdot_all(acc[v], keys[v], q),
                    false => add_products(acc[v], keys[v], low, high),
                };
            }
        }
        acc
    }

    /// `sdot` takes signed bytes: a weight is less by 128, then 127 and 1 of each value are added.
    #[inline(always)]
    unsafe fn dot_values(acc: Self::Ints, values: Self::Tile, w: i32) -> Self::Ints {
        let mut acc = acc;
        // SAFETY: see above.
        unsafe {
            let less = veorq_s8(splat(w), vdupq_n_s8(-128));
            let wide = vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_s8(vget_low_s8(splat(w)))));
            for v in 0..4 {
                if SDOT {
                    acc[v] = sdot_all(acc[v], values[v], less);
                    acc[v] = sdot_all(acc[v], values[v], vdupq_n_s8(127));
                    acc[v] = sdot_all(acc[v], values[v], vdupq_n_s8(1));
                } else {
                    acc[v] = add_products(acc[v], values[v], wide, wide);
                }
            }
        }
        acc
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self {
        // SAFETY: see above.
        unsafe { Self(ints.map(|i| vcvtq_f32_s32(i))) }
    }
}
