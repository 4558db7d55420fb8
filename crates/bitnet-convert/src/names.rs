//! What tensors are called in the files that are written.

/// Names of the tensors of a model in one kind of file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) embedding: &'static str,
    pub(crate) output: &'static str,
    pub(crate) final_norm: &'static str,
    /// What stands before the number of a layer.
    layers: &'static str,
    pub(crate) attn_norm: &'static str,
    pub(crate) ffn_norm: &'static str,
    pub(crate) attn_sub_norm: &'static str,
    pub(crate) ffn_sub_norm: &'static str,
    /// In the order of `LayerWeights::projections`.
    pub(crate) projections: [&'static str; 7],
}

impl Names {
    /// Name of the weight of a part of a layer.
    pub(crate) fn weight(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}.weight", self.layers)
    }
}

/// Names of transformers.
pub(crate) const HUGGING_FACE: Names = Names {
    embedding: "model.embed_tokens.weight",
    output: "lm_head.weight",
    final_norm: "model.norm.weight",
    layers: "model.layers.",
    attn_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
    attn_sub_norm: "self_attn.attn_sub_norm",
    ffn_sub_norm: "mlp.ffn_sub_norm",
    projections: [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
};

/// Names in GGUF files.
pub(crate) const GGUF: Names = Names {
    embedding: "token_embd.weight",
    output: "output.weight",
    final_norm: "output_norm.weight",
    layers: "blk.",
    attn_norm: "attn_norm",
    ffn_norm: "ffn_norm",
    attn_sub_norm: "attn_sub_norm",
    ffn_sub_norm: "ffn_sub_norm",
    projections: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
};
