//! Kernels for ARM64.
//!
//! NEON is part of the architecture. The sets differ in how they multiply int8 vectors: [`neon`] with widening products, which every processor has; [`dotprod`] with `sdot`, four
//! products a lane; [`i8mm`] with `smmla`, a 2x2 matrix of sums of eight products, where there are several rows.
//!
//! The intrinsics of `sdot` and `smmla` are not stable; [`asm`] has them as inline assembly, one instruction a function.

mod asm;
mod digits;
mod dotprod;
mod dots;
mod i8mm;
mod int8;
mod neon;
mod vectors;

pub(super) use dotprod::DOTPROD;
pub(super) use i8mm::I8MM;
pub(super) use neon::NEON;
