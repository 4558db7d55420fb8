//! The kernel set for AVX2 with FMA, eight rows a register.

use super::product_avx2::product;
use crate::kernels::{KernelSet, generic, int8};

generic::float_kernels!(super::vectors::Avx2, #[target_feature(enable = "avx2,fma,f16c")]);

/// The set of this module.
pub(in crate::kernels) const AVX2: KernelSet = KernelSet {
    name: "avx2",
    requires: "AVX2, FMA and F16C",
    available: || {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
    },
    measure_forms: false,
    four_rows: false,
    tiles_from: usize::MAX,
    hidden_layout: int8::PartLayout::Words { rows: int8::HIDDEN_BLOCK },
    product,
    norm_quantize,
    rms_norm,
    activate,
    attend,
    merge_states,
    encode_kv,
    dense,
    int8_row,
    int8_hidden,
    int8_sums: super::int8_avx2::int8_sums,
    int8_intervals,
};
