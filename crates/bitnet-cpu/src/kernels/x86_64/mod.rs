//! Kernels for x86-64.

mod avx2;
mod avx512;
mod dots;
mod vectors;

pub(super) use avx2::AVX2;
pub(super) use avx512::AVX512;
