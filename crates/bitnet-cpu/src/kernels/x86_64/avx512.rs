//! Kernel sets for AVX-512 with VNNI, sixteen rows a register; `avx512vbmi` differs in how it unpacks five trits a byte,
//! `amx-int8` in how it multiplies several rows.

use super::product_avx512::{product, product_vbmi};
use crate::kernels::{KernelSet, generic, int8};

/// Rows from which on AMX is faster. Up to eight rows VNNI needs no codes in memory: with eight it was 0.9 times as fast in quiet
/// minutes, 1.25 times where another program shared the core.
const TILES_FROM: usize = 9;

generic::float_kernels!(super::vectors::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]);

/// Sapphire Rapids and later server processors of Intel.
pub(in crate::kernels) const AMX: KernelSet = KernelSet {
    name: "amx-int8",
    requires: "AMX-TILE, AMX-INT8 and AVX-512 F, BW, VL, DQ, VNNI and VBMI, and Linux",
    available: || AVX512_VBMI.is_available() && bitnet_core::amx::is_available(),
    tiles_from: TILES_FROM,
    product: super::product_amx::product,
    hidden_layout: int8::PartLayout::Tiles,
    int8_sums: super::int8_amx::int8_sums,
    ..AVX512_VBMI
};

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
    four_rows: true,
    tiles_from: usize::MAX,
    hidden_layout: int8::PartLayout::BLOCK,
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
