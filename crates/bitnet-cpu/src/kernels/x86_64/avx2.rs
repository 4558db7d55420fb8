//! The kernel set for AVX2 with FMA, eight rows a register.

use super::product_avx2::product;
use crate::kernels::{KernelSet, generic};

generic::float_kernels!(super::vectors::Avx2, #[target_feature(enable = "avx2,fma")]);

/// The set of this module.
pub(in crate::kernels) const AVX2: KernelSet = KernelSet {
    name: "avx2",
    requires: "AVX2 and FMA",
    available: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    measure_forms: false,
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    dense,
    int8_row,
    int8_hidden,
    int8_sums: super::int8_avx2::int8_sums,
    int8_intervals,
};
