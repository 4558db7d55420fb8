//! [`Lanes16`]: sixteen floats that are added and multiplied lane by lane, in the registers of an instruction set.

use super::generic::{bf16_to_f32, f16_to_f32};

/// Sixteen lanes. Methods are `inline(always)` and have no target features of their own: they take those of the kernel
/// that they are inlined into.
///
/// # Safety
/// All methods may only be called where the processor has the features of the implementation; pointers must be valid for
/// sixteen elements, at any alignment.
pub(crate) trait Lanes16: Copy {
    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    /// Sixteen bfloat16 numbers.
    unsafe fn load_bf16(p: *const u8) -> Self;
    /// Sixteen IEEE half-precision numbers.
    unsafe fn load_f16(p: *const u8) -> Self;
    /// `self * a + b`, rounded once.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    unsafe fn mul(self, a: Self) -> Self;
    unsafe fn store(self, p: *mut f32);

    #[inline(always)]
    unsafe fn to_array(self) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: sixteen elements; the rest is promised by the caller.
        unsafe { self.store(out.as_mut_ptr()) };
        out
    }
}

/// Plain Rust.
impl Lanes16 for [f32; 16] {
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; 16]
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> Self {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[[u8; 2]; 16]>().read_unaligned() }.map(bf16_to_f32)
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[[u8; 2]; 16]>().read_unaligned() }.map(f16_to_f32)
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|l| self[l].mul_add(a[l], b[l]))
    }

    #[inline(always)]
    unsafe fn mul(self, a: Self) -> Self {
        std::array::from_fn(|l| self[l] * a[l])
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<Self>().write_unaligned(self) }
    }
}
