//! Ternary weights in registers: taking the two forms apart, and scaling sums.
//!
//! Sixteen bytes of a tile belong to four output rows, four bytes each. Digit `i` of all of them is a vector of codes:
//! in each 32-bit lane four columns of one output row.

use std::arch::aarch64::*;

use crate::kernels::Product;
use crate::layout::TILE_BYTES;

/// Vectors of a tile.
pub(super) const VECTORS: usize = TILE_BYTES / 16;

/// A form with `N` digits a byte, and what taking it apart keeps in registers.
///
/// # Safety
/// Methods need NEON. They are inlined into functions that have the target features.
pub(super) trait Digits<const N: usize>: Copy {
    unsafe fn new() -> Self;
    /// The codes of each digit.
    unsafe fn codes(self, bytes: uint8x16_t) -> [int8x16_t; N];
}

/// Two bits a trit.
#[derive(Clone, Copy)]
pub(super) struct TwoBit;

impl Digits<4> for TwoBit {
    #[inline(always)]
    unsafe fn new() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn codes(self, bytes: uint8x16_t) -> [int8x16_t; 4] {
        // SAFETY: see the trait.
        unsafe {
            let mask = vdupq_n_u8(3);
            [
                vreinterpretq_s8_u8(vandq_u8(bytes, mask)),
                vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8::<2>(bytes), mask)),
                vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8::<4>(bytes), mask)),
                vreinterpretq_s8_u8(vshrq_n_u8::<6>(bytes)),
            ]
        }
    }
}

/// Five trits a byte. A byte is divided by 27: the quotient, below 9, has the upper two digits, the remainder the lower
/// three, and all are looked up.
#[derive(Clone, Copy)]
pub(super) struct FiveTrits {
    /// Digits 0, 1, 2 of 0..27.
    low: [int8x16x2_t; 3],
    /// Digits 0, 1 of 0..9.
    high: [int8x16_t; 2],
}

/// Base-3 digits 0, 1 and 2 of the numbers below 27.
const TRITS: [[i8; 32]; 3] = {
    let mut digits = [[0; 32]; 3];
    let mut n = 0;
    while n < 27 {
        digits[0][n] = (n % 3) as i8;
        digits[1][n] = (n / 3 % 3) as i8;
        digits[2][n] = (n / 9) as i8;
        n += 1;
    }
    digits
};

impl Digits<5> for FiveTrits {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: see the trait; each table is 32 bytes.
        unsafe {
            let half = |i: usize, half: usize| vld1q_s8(TRITS[i].as_ptr().add(16 * half));
            let whole = |i| int8x16x2_t(half(i, 0), half(i, 1));
            Self { low: [whole(0), whole(1), whole(2)], high: [half(0, 0), half(1, 0)] }
        }
    }

    #[inline(always)]
    unsafe fn codes(self, bytes: uint8x16_t) -> [int8x16_t; 5] {
        // SAFETY: see the trait.
        unsafe {
            // 19 / 512 is a little more than 1 / 27; below 243 the product is rounded down to the same quotient.
            let factor = vdupq_n_u8(19);
            let low = vmull_u8(vget_low_u8(bytes), vget_low_u8(factor));
            let high = vmull_high_u8(bytes, factor);
            let by_256 = vuzp2q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
            let quotient = vshrq_n_u8::<1>(by_256);
            let rest = vmlsq_u8(bytes, quotient, vdupq_n_u8(27));
            [
                vqtbl2q_s8(self.low[0], rest),
                vqtbl2q_s8(self.low[1], rest),
                vqtbl2q_s8(self.low[2], rest),
                vqtbl1q_s8(self.high[0], quotient),
                vqtbl1q_s8(self.high[1], quotient),
            ]
        }
    }
}

/// Unpacks one strip: `codes` becomes `[quads][64]`.
///
/// # Safety
/// Needs NEON. The strip is inside `p`, and `codes` has room for it.
#[inline(always)]
pub(super) unsafe fn unpack<D: Digits<N>, const N: usize>(p: &Product<'_>, strip: usize, codes: &mut [u8]) {
    // SAFETY: promised by the caller; a tile gives `N` quads.
    unsafe {
        let digits = D::new();
        let tiles = p.strips.as_ptr().add(strip * p.strip_bytes);
        for g in 0..p.groups() {
            for v in 0..VECTORS {
                let bytes = vld1q_u8(tiles.add(g * TILE_BYTES + 16 * v));
                for (i, code) in digits.codes(bytes).into_iter().enumerate() {
                    let to = codes.as_mut_ptr().add((N * g + i) * TILE_BYTES + 16 * v);
                    vst1q_s8(to.cast(), code);
                }
            }
        }
    }
}

/// Scales the sums of four outputs of one row, vector `v` of a strip, and writes them.
///
/// # Safety
/// Needs NEON. The outputs exist and belong to this thread.
#[inline(always)]
pub(super) unsafe fn store(p: &Product<'_>, strip: usize, v: usize, row: usize, sums: int32x4_t) {
    // SAFETY: promised by the caller.
    unsafe {
        let out = p.out.add(row * p.stride + 16 * strip + 4 * v);
        let exact = vcvtq_f32_s32(vsubq_s32(sums, vdupq_n_s32(p.row_sums[row])));
        let mut y = vmulq_f32(exact, vdupq_n_f32(p.factors[row]));
        if p.accumulate {
            y = vaddq_f32(vld1q_f32(out), y);
        }
        vst1q_f32(out, y);
    }
}
