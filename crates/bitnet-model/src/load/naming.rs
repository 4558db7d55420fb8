//! What the tensors of a model are called in files: [`Naming`].

/// What the tensors of a model are called.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    /// Token embedding.
    pub(crate) embedding: String,
    /// Output layer.
    pub(crate) output: &'static str,
    /// Norm before the output layer.
    pub(crate) final_norm: String,
    /// What stands before the number of a layer.
    pub(crate) layers: String,
    /// The parts of a layer.
    pub(crate) parts: Parts,
    /// Whether norms are stored as what they differ from one by (Gemma), but for those before projections.
    pub(crate) from_one: bool,
}

/// What the parts of a layer are called, without `.weight`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    /// Norm before attention.
    pub(crate) attn_norm: &'static str,
    /// Norm before the feed-forward part.
    pub(crate) ffn_norm: &'static str,
    /// Norm before the attention output.
    pub(crate) attn_sub_norm: &'static str,
    /// Norm before the down projection.
    pub(crate) ffn_sub_norm: &'static str,
    /// Query, key, value, attention output, gate, up, down.
    pub(crate) projections: [&'static str; 7],
    /// Norms over heads of queries and keys.
    pub(crate) head_norms: [&'static str; 2],
    /// Norms before query, key, value, gate and up.
    pub(crate) projection_norms: [&'static str; 5],
    /// Norms behind attention and behind the feed-forward part.
    pub(crate) post_norms: [&'static str; 2],
}

impl Naming {
    /// Names of transformers; `prefix` is `model.` or nothing.
    pub(crate) fn hugging_face(prefix: &str) -> Self {
        Self {
            embedding: format!("{prefix}embed_tokens.weight"),
            output: HUGGING_FACE_OUTPUT,
            final_norm: format!("{prefix}norm.weight"),
            layers: format!("{prefix}layers."),
            parts: HUGGING_FACE,
            from_one: false,
        }
    }

    /// The same with a norm before every projection: those before the last projection of each part take the place of the
    /// sub-norms.
    pub(crate) fn with_projection_norms(self) -> Self {
        let parts = Parts {
            attn_sub_norm: self.parts.output_norms()[0],
            ffn_sub_norm: self.parts.output_norms()[1],
            ..self.parts
        };
        Self { parts, ..self }
    }

    /// Names of transformers' Gemma 3.
    pub(crate) fn gemma3(prefix: &str) -> Self {
        Self { parts: GEMMA3, from_one: true, ..Self::hugging_face(prefix) }
    }

    /// The same with the sub-norms of the first reproductions.
    pub(crate) fn first_bitnet(prefix: &str) -> Self {
        Self { parts: FIRST_BITNET, ..Self::hugging_face(prefix) }
    }

    /// Names of TorchScale, in the checkpoints of microsoft/BitNet's GPU programs. Query, key and value and gate and up are
    /// named as if they were apart.
    #[allow(clippy::needless_update, reason = "whatever else there is to name keeps its usual name")]
    pub(crate) fn torch_scale() -> Self {
        Self {
            embedding: "tok_embeddings.weight".to_owned(),
            output: "output.weight",
            final_norm: "norm.weight".to_owned(),
            layers: "layers.".to_owned(),
            parts: TORCH_SCALE,
            ..Self::hugging_face("")
        }
    }

    /// Names in GGUF files.
    pub(crate) fn gguf() -> Self {
        Self {
            embedding: "token_embd.weight".to_owned(),
            output: "output.weight",
            final_norm: "output_norm.weight".to_owned(),
            layers: "blk.".to_owned(),
            parts: GGUF,
            from_one: false,
        }
    }

    /// Name of a part of a layer, without `.weight`.
    pub(crate) fn part(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}", self.layers)
    }

    /// Name of the weight of a part of a layer.
    pub(crate) fn weight(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}.weight", self.layers)
    }
}

impl Parts {
    /// Norms before the attention output and before the down projection, where every projection has one.
    fn output_norms(&self) -> [&'static str; 2] {
        if self.projections[0] == GGUF.projections[0] {
            ["attn_output_norm_in", "ffn_down_norm_in"]
        } else {
            ["self_attn.o_proj.norm", "mlp.down_proj.norm"]
        }
    }
}

/// The output layer of Hugging Face models.
const HUGGING_FACE_OUTPUT: &str = "lm_head.weight";

/// Names of transformers' BitNet and Llama classes.
const HUGGING_FACE: Parts = Parts {
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
    head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    projection_norms: [
        "self_attn.q_proj.norm",
        "self_attn.k_proj.norm",
        "self_attn.v_proj.norm",
        "mlp.gate_proj.norm",
        "mlp.up_proj.norm",
    ],
    // Only Gemma has them, under names that mean other things elsewhere.
    post_norms: ["post_attention_norm", "post_feedforward_norm"],
};

/// Names of transformers' Gemma 3 classes.
const GEMMA3: Parts = Parts {
    ffn_norm: "pre_feedforward_layernorm",
    post_norms: ["post_attention_layernorm", "post_feedforward_layernorm"],
    ..HUGGING_FACE
};

/// Names of the first reproductions (1bitLLM), which differ in the sub-norms.
const FIRST_BITNET: Parts =
    Parts { attn_sub_norm: "self_attn.inner_attn_ln", ffn_sub_norm: "mlp.ffn_layernorm", ..HUGGING_FACE };

/// Names of TorchScale.
#[allow(clippy::needless_update, reason = "whatever else there is to name keeps its usual name")]
const TORCH_SCALE: Parts = Parts {
    attn_norm: "attention_norm",
    ffn_norm: "ffn_norm",
    attn_sub_norm: "attention.attn_sub_norm",
    ffn_sub_norm: "feed_forward.ffn_sub_norm",
    projections: [
        "attention.wq",
        "attention.wk",
        "attention.wv",
        "attention.wo",
        "feed_forward.w1",
        "feed_forward.w3",
        "feed_forward.w2",
    ],
    ..HUGGING_FACE
};

/// Names in GGUF files, the same for all architectures.
const GGUF: Parts = Parts {
    attn_norm: "attn_norm",
    ffn_norm: "ffn_norm",
    attn_sub_norm: "attn_sub_norm",
    ffn_sub_norm: "ffn_sub_norm",
    projections: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
    head_norms: ["attn_q_norm", "attn_k_norm"],
    projection_norms: [
        "attn_q_norm_in",
        "attn_k_norm_in",
        "attn_v_norm_in",
        "ffn_gate_norm_in",
        "ffn_up_norm_in",
    ],
    post_norms: ["post_attention_norm", "post_ffw_norm"],
};
