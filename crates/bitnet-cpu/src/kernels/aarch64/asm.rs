//! Instructions whose intrinsics are not stable, one a function.
//!
//! Functions are `inline(always)`, so that the assembler sees them in functions that have the target feature they need.

use std::arch::aarch64::*;
use std::arch::asm;

/// In each 32-bit lane, adds to `acc` the dot product of the four bytes of `w` with the four bytes of lane `LANE` of `q`.
///
/// # Safety
/// Needs `dotprod`. `LANE` is 0 or 1.
#[inline(always)]
pub(super) unsafe fn sdot<const LANE: usize>(mut acc: int32x4_t, w: int8x16_t, q: int8x8_t) -> int32x4_t {
    // SAFETY: reads and writes registers only; the feature is promised by the caller.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {q:v}.4b[{lane}]",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            q = in(vreg) q,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// In each 32-bit lane, adds to `acc` the dot product of the four bytes of `w` with the four of `q`.
///
/// # Safety
/// Needs `dotprod`.
#[inline(always)]
pub(super) unsafe fn sdot_all(mut acc: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes registers only; the feature is promised by the caller.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {q:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            q = in(vreg) q,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Adds to `acc` the product of `w`, two rows of eight columns, with the transpose of `q`, two rows of eight columns:
/// `[w0 q0, w0 q1, w1 q0, w1 q1]`.
///
/// # Safety
/// Needs `i8mm`.
#[inline(always)]
pub(super) unsafe fn smmla(mut acc: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes registers only; the feature is promised by the caller.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {w:v}.16b, {q:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            q = in(vreg) q,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Four IEEE half-precision numbers to single precision, exactly.
///
/// # Safety
/// Needs `neon`.
#[inline(always)]
pub(super) unsafe fn fcvtl(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: reads and writes registers only; the feature is promised by the caller.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {halves:v}.4h",
            wide = lateout(vreg) wide,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    wide
}

/// Asks for a line of memory that is read soon. An address that is not there does no harm.
#[inline(always)]
pub(super) fn prefetch(p: *const u8) {
    // SAFETY: a hint; it never faults.
    unsafe { asm!("prfm pldl2keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags)) };
}
