//! Kernels for x86-64.

pub(crate) mod amx;
mod avx2;
mod avx512;
mod dots;
mod four_rows_avx512;
mod int8_amx;
mod int8_avx2;
mod int8_avx512;
mod product_amx;
mod product_avx2;
mod product_avx512;
mod vectors;

pub(super) use avx2::AVX2;
pub(super) use avx512::{AMX, AVX512, AVX512_VBMI};

/// Inverses modulo 2^32: multiplying a multiple of the number by it divides exactly.
const INVERSE_3: i32 = 0xaaaa_aaabu32.cast_signed();
const INVERSE_9: i32 = 0x38e3_8e39;
const INVERSE_27: i32 = 0x684b_da13;
const INVERSE_81: i32 = 0x7819_48b1;

/// The codes of bytes that are 3, 9 or 27 times a code, by the low four bits of these bytes.
const CODES_OF_MULTIPLES: [i8; 16] = [0, 0, 2, 1, 0, 0, 2, 0, 0, 1, 0, 1, 0, 0, 0, 0];
