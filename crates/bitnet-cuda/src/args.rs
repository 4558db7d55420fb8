//! Arguments of kernels, as the structures of `kernels/*.cu` lay them out. A test compares their sizes with the kernels'.

use bytemuck::{Pod, Zeroable};

use crate::gpu::Address;

/// `RowBlock` of `product.cuh`: what the sixteen rows of a row block are.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RowBlock {
    pub(crate) scale: [f32; 2],
    pub(crate) out: [u32; 2],
    pub(crate) valid: [u32; 2],
    pub(crate) kind: u32,
    pub(crate) pad: u32,
}

/// What becomes of sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Epilogue {
    Store = 0,
    Add = 1,
    Gated = 2,
    Qkv = 3,
}

/// `KvTarget` of `kv.cuh`.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct KvTarget {
    pub(crate) cosines: Address,
    pub(crate) sines: Address,
    pub(crate) positions: Address,
    pub(crate) blocks: Address,
    pub(crate) layer_offset: u64,
    pub(crate) piece_bytes: u32,
    pub(crate) key_bytes: u32,
    pub(crate) head_dim: u32,
    pub(crate) padded_dim: u32,
    pub(crate) kv_type: u32,
    pub(crate) pad: u32,
}

/// `Product` of `product.cuh`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Product {
    pub(crate) weights: Address,
    pub(crate) blocks: Address,
    pub(crate) out: Address,
    pub(crate) row_blocks: u32,
    pub(crate) groups: u32,
    pub(crate) stride: u32,
    pub(crate) epilogue: u32,
    pub(crate) activation: u32,
    pub(crate) pad: u32,
    pub(crate) kv: KvTarget,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct GemmArgs {
    pub(crate) q: Address,
    pub(crate) scales: Address,
    pub(crate) sums: Address,
    pub(crate) tokens: u32,
    pub(crate) pad: u32,
    pub(crate) product: Product,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct WaveArgs {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    pub(crate) len: u32,
    pub(crate) eps: f32,
    pub(crate) sets: u32,
    pub(crate) staged: u32,
    pub(crate) product: Product,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct AttentionArgs {
    pub(crate) q: Address,
    pub(crate) out: Address,
    pub(crate) positions: Address,
    pub(crate) table_offsets: Address,
    pub(crate) table: Address,
    pub(crate) partials: Address,
    pub(crate) counters: Address,
    pub(crate) tiles: Address,
    pub(crate) layer_offset: u64,
    pub(crate) q_stride: u32,
    pub(crate) out_stride: u32,
    pub(crate) heads: u32,
    pub(crate) kv_heads: u32,
    pub(crate) head_dim: u32,
    pub(crate) padded_dim: u32,
    pub(crate) piece_bytes: u32,
    pub(crate) key_bytes: u32,
    pub(crate) window: u32,
    pub(crate) slices: u32,
    pub(crate) ranges: u32,
    pub(crate) split: u32,
    pub(crate) scale: f32,
    pub(crate) value_bytes: u32,
    pub(crate) staged: u32,
    pub(crate) pad: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct EmbedArgs {
    pub(crate) table: Address,
    pub(crate) tokens: Address,
    pub(crate) x: Address,
    pub(crate) hidden: u32,
    pub(crate) pitch: u32,
    pub(crate) dtype: u32,
    pub(crate) scale: f32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct QuantizeArgs {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    pub(crate) second: Address,
    pub(crate) q: Address,
    pub(crate) scales: Address,
    pub(crate) sums: Address,
    pub(crate) rows: Address,
    pub(crate) len: u32,
    pub(crate) padded: u32,
    pub(crate) stride: u32,
    pub(crate) eps: f32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct NormArgs {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    pub(crate) picked: Address,
    pub(crate) out: Address,
    pub(crate) rows: Address,
    pub(crate) flags: Address,
    pub(crate) parts: Address,
    pub(crate) images: Address,
    pub(crate) split: u32,
    pub(crate) groups: u32,
    pub(crate) len: u32,
    pub(crate) stride: u32,
    pub(crate) out_stride: u32,
    pub(crate) add: u32,
    pub(crate) eps: f32,
    pub(crate) pad: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct HeadsArgs {
    pub(crate) qkv: Address,
    pub(crate) query_norm: Address,
    pub(crate) key_norm: Address,
    pub(crate) stride: u32,
    pub(crate) heads: u32,
    pub(crate) kv_heads: u32,
    pub(crate) eps: f32,
    pub(crate) kv: KvTarget,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ActivateArgs {
    pub(crate) gate_up: Address,
    pub(crate) out: Address,
    pub(crate) len: u32,
    pub(crate) activation: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct LogitsArgs {
    pub(crate) h: Address,
    pub(crate) table: Address,
    pub(crate) logits: Address,
    pub(crate) flags: Address,
    pub(crate) rows: u32,
    pub(crate) vocab: u32,
    pub(crate) pitch: u32,
    pub(crate) pad: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ImageArgs {
    pub(crate) table: Address,
    pub(crate) codes: Address,
    pub(crate) images: Address,
    pub(crate) vocab: u32,
    pub(crate) cols: u32,
    pub(crate) pitch: u32,
    pub(crate) groups: u32,
    pub(crate) dtype: u32,
    pub(crate) pad: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ScanArgs {
    pub(crate) codes: Address,
    pub(crate) images: Address,
    pub(crate) parts: Address,
    pub(crate) hidden: Address,
    pub(crate) near: Address,
    pub(crate) masks: Address,
    pub(crate) mask_at: Address,
    pub(crate) mask_len: Address,
    pub(crate) maxima: Address,
    pub(crate) rows: u32,
    pub(crate) vocab: u32,
    pub(crate) groups: u32,
    pub(crate) row_blocks: u32,
    pub(crate) chunks: u32,
    pub(crate) rounding: f32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SelectArgs {
    pub(crate) near: Address,
    pub(crate) images: Address,
    pub(crate) hidden: Address,
    pub(crate) h: Address,
    pub(crate) table: Address,
    pub(crate) counts: Address,
    pub(crate) masks: Address,
    pub(crate) mask_at: Address,
    pub(crate) mask_len: Address,
    pub(crate) maxima: Address,
    pub(crate) found: Address,
    pub(crate) flags: Address,
    pub(crate) vocab: u32,
    pub(crate) chunks: u32,
    pub(crate) capacity: u32,
    pub(crate) pitch: u32,
    pub(crate) dtype: u32,
    pub(crate) rounding: f32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct DrawArgs {
    pub(crate) draws: Address,
    pub(crate) found: Address,
    pub(crate) capacity: u32,
    pub(crate) pad: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct FetchArgs {
    pub(crate) mail: Address,
    pub(crate) inputs: Address,
    pub(crate) to: Address,
    pub(crate) number: Address,
    pub(crate) pieces: u32,
    pub(crate) pad: u32,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct DeliverArgs {
    pub(crate) mail: Address,
    pub(crate) results: Address,
    pub(crate) flags: Address,
    pub(crate) found: Address,
    pub(crate) number: Address,
    pub(crate) rows: u32,
    pub(crate) capacity: u32,
    pub(crate) room: u32,
    pub(crate) pad: u32,
}

/// Whether a kernel is in targets with tensor cores only.
pub fn needs_tensor_cores(kernel: &str) -> bool {
    let may = ["gemm_", "scan_"].into_iter().any(|start| kernel.starts_with(start));
    may && !kernel.ends_with("_dot")
}

/// Whether blocks of threads of a kernel may be clusters.
pub(crate) fn is_attention_to_ranges(kernel: &str) -> bool {
    kernel.starts_with("attention_") && kernel != "attention_many"
}

/// Every kernel with the bytes of its argument, for checks of kernels that were built from other sources.
pub fn argument_sizes() -> Vec<(&'static str, usize)> {
    let mut all = Vec::new();
    let mut add = |names: &[&'static str], size| all.extend(names.iter().map(|&name| (name, size)));
    add(&["gemm_dot", "gemm_64x16", "gemm_64x32", "gemm_128x32", "gemm_128x64"], size_of::<GemmArgs>());
    add(&["wave_row"], size_of::<WaveArgs>());
    add(&["attention_f32_1", "attention_f16_1", "attention_int8_1"], size_of::<AttentionArgs>());
    add(&["attention_f32_2", "attention_f16_2", "attention_int8_2"], size_of::<AttentionArgs>());
    add(&["attention_f32_4", "attention_f16_4", "attention_int8_4"], size_of::<AttentionArgs>());
    add(&["attention_f16_4_many", "attention_int8_4_many"], size_of::<AttentionArgs>());
    add(&["attention_many"], size_of::<AttentionArgs>());
    add(&["embed"], size_of::<EmbedArgs>());
    add(&["quantize_rows"], size_of::<QuantizeArgs>());
    add(&["norm_rows"], size_of::<NormArgs>());
    add(&["place_heads"], size_of::<HeadsArgs>());
    add(&["activate_rows"], size_of::<ActivateArgs>());
    let logits =
        ["logits_f32_1", "logits_f32_4", "logits_f16_1", "logits_f16_4", "logits_bf16_1", "logits_bf16_4"];
    add(&logits, size_of::<LogitsArgs>());
    add(&["make_image"], size_of::<ImageArgs>());
    add(&["scan_dot", "scan_4", "scan_16", "scan_64"], size_of::<ScanArgs>());
    add(&["collect", "rescore"], size_of::<SelectArgs>());
    add(&["draw"], size_of::<DrawArgs>());
    add(&["fetch"], size_of::<FetchArgs>());
    add(&["deliver"], size_of::<DeliverArgs>());
    all
}
