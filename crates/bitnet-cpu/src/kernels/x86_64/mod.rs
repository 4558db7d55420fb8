//! Kernels for x86-64.

mod avx2;
mod avx512;
mod dots;
mod int8_avx2;
mod int8_avx512;
mod product_avx2;
mod product_avx512;
mod vectors;

pub(super) use avx2::AVX2;
pub(super) use avx512::{AVX512, AVX512_VBMI};
