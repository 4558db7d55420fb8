//! Shapes of the model families beside BitNet's own: Llama 3, Falcon3 and the embedding models.
//!
//! Sizes are those of the published configurations (format note, section 1c and 1d). Falcon-E is not here: its sizes are
//! not known from a file.

use crate::{Activation, Extras, ModelSpec, SlidingWindow};

/// Llama shapes: layers, hidden size, feed-forward width, heads, key/value heads, vocabulary, context.
pub(super) struct Llama {
    pub(super) sizes: [usize; 7],
    pub(super) head_dim: usize,
    pub(super) rope_theta: f64,
    pub(super) rms_norm_eps: f32,
}

/// HF1BitLLM/Llama3-8B-1.58-100B-tokens.
pub(super) const LLAMA3_8B: Llama = Llama {
    sizes: [32, 4096, 14_336, 32, 8, 128_256, 8192],
    head_dim: 128,
    rope_theta: 500_000.0,
    rms_norm_eps: 1e-5,
};
/// A Llama shape for tests.
pub(super) const TINY_LLAMA: Llama =
    Llama { sizes: [2, 256, 512, 4, 2, 1024, 512], head_dim: 64, ..LLAMA3_8B };
/// tiiuae/Falcon3-1B-Instruct-1.58bit.
pub(super) const FALCON3_1B: Llama = falcon3([18, 2048, 8192, 8, 4, 131_072, 8192]);
/// tiiuae/Falcon3-3B-Base-1.58bit.
pub(super) const FALCON3_3B: Llama = falcon3([22, 3072, 9216, 12, 4, 131_072, 32_768]);
/// tiiuae/Falcon3-7B-Base-1.58bit.
pub(super) const FALCON3_7B: Llama = falcon3([28, 3072, 23_040, 12, 4, 131_080, 32_768]);
/// tiiuae/Falcon3-10B-Base-1.58bit.
pub(super) const FALCON3_10B: Llama = falcon3([40, 3072, 23_040, 12, 4, 131_072, 32_768]);
/// A Falcon3 shape for tests: heads of 256, few of them.
pub(super) const TINY_FALCON3: Llama = falcon3([2, 512, 640, 2, 1, 1024, 512]);

const fn falcon3(sizes: [usize; 7]) -> Llama {
    Llama { sizes, head_dim: 256, rope_theta: 1_000_042.0, rms_norm_eps: 1e-6 }
}

impl Llama {
    pub(super) fn spec(&self) -> ModelSpec {
        let [num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, vocab_size, context_length] =
            self.sizes;
        ModelSpec {
            architecture: "LlamaForCausalLM".to_owned(),
            vocab_size,
            hidden_size,
            intermediate_size,
            num_layers,
            num_heads,
            num_kv_heads,
            head_dim: self.head_dim,
            activation: Activation::Silu,
            sub_norms: false,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta,
            context_length,
            tied_output: false,
            extras: Extras::default(),
        }
    }
}

/// BitNet-embedding 0.6B, or a shape of its kind for tests.
pub(super) fn qwen3_embedding(tiny: bool) -> ModelSpec {
    let [num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, vocab_size, context] =
        if tiny { [2, 128, 384, 4, 2, 64, 1024, 512] } else { [28, 1024, 3072, 16, 8, 128, 151_936, 32_768] };
    ModelSpec {
        architecture: "Qwen3Model".to_owned(),
        vocab_size,
        hidden_size,
        intermediate_size,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        activation: Activation::Silu,
        sub_norms: true,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        context_length: context,
        tied_output: true,
        extras: Extras { head_norms: true, projection_norms: true, ..Extras::default() },
    }
}

/// BitNet-embedding 270M, or a shape of its kind for tests. Only the latter has a sliding window: whether the published
/// model has one is not known.
pub(super) fn gemma3_embedding(tiny: bool) -> ModelSpec {
    let [num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, vocab_size, context] =
        if tiny { [3, 128, 256, 2, 1, 128, 1024, 512] } else { [18, 640, 2048, 4, 1, 256, 262_144, 32_768] };
    ModelSpec {
        architecture: "Gemma3TextModel".to_owned(),
        vocab_size,
        hidden_size,
        intermediate_size,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        activation: Activation::Gelu,
        sub_norms: true,
        rms_norm_eps: 1e-6,
        rope_theta: if tiny { 1e6 } else { 1e4 },
        context_length: context,
        tied_output: true,
        extras: Extras {
            head_norms: true,
            projection_norms: true,
            post_norms: true,
            scaled_embedding: true,
            sliding: tiny.then(|| SlidingWindow::periodic(16, num_layers, 3, 1e4)),
            ..Extras::default()
        },
    }
}
