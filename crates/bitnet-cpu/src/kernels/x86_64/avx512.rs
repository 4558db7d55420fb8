//! Kernel sets for AVX-512 with VNNI, sixteen rows a register; `avx512vbmi` differs in how it unpacks five trits a byte.

use super::product_avx512::{product, product_vbmi};
use crate::kernels::{KernelSet, generic};

generic::float_kernels!(super::vectors::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]);

/// Ice Lake, Zen 4 and later.
pub(in crate::kernels) const AVX512_VBMI: KernelSet = KernelSet {
    name: "avx512vbmi",
    requires: "AVX-512 F, BW, VL, DQ, VNNI and VBMI",
    available: || AVX512.is_available() && is_x86_feature_detected!("avx512vbmi"),
    product: product_vbmi,
    ..AVX512
};

/// Cascade Lake and Cooper Lake.
pub(in crate::kernels) const AVX512: KernelSet = KernelSet {
    name: "avx512vnni",
    requires: "AVX-512 F, BW, VL, DQ and VNNI",
    available: || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
    },
    measure_forms: true,
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
    int8_sums: super::int8_avx512::int8_sums,
    int8_intervals,
};
