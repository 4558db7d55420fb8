//! [`ModelSpec`]: the architecture of a model as data.
//!
//! Every variant that the engine runs is a value of this type, never another forward pass.

/// The gate's activation in the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(0, x)^2`, BitNet b1.58 2B4T.
    Relu2,
    /// `x / (1 + exp(-x))`, Llama-shaped models and the first BitNet b1.58 models.
    Silu,
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Activation::Relu2 => "ReLU²",
            Activation::Silu => "SiLU",
        })
    }
}

/// A decoder-only transformer with ternary projections: RMS norms, rotary positions in half-split pairing,
/// grouped-query attention and a gated feed-forward part.
///
/// For one token with residual stream `x`:
/// `h = norm(x)`, `q, k, v = W h`, `x += W_o sub_norm(attention)`, `h = norm(x)`,
/// `x += W_down sub_norm(act(W_gate h) * W_up h)`; at the end `logits = W_out norm(x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Architecture as the file names it, for people ("BitNetForCausalLM", "gguf bitnet-b1.58").
    pub architecture: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Activation of the gate.
    pub activation: Activation,
    /// Whether an RMS norm stands before `o_proj` and before `down_proj`.
    pub sub_norms: bool,
    /// Added to the mean of squares in every norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence the model was made for, in tokens.
    pub context_length: usize,
    /// Whether the output layer is the embedding.
    pub tied_output: bool,
}

/// A field of the architecture that cannot be right.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{field} = {value} cannot be right: {rule}")]
pub struct SpecError {
    /// The field, as [`ModelSpec`] names it.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it breaks.
    pub rule: &'static str,
}

impl ModelSpec {
    /// Width of all query heads together.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Ternary weights of the whole model.
    pub fn ternary_parameters(&self) -> u64 {
        let (h, f) = (self.hidden_size as u64, self.intermediate_size as u64);
        let attention = 2 * h * self.q_size() as u64 + 2 * h * self.kv_size() as u64;
        self.num_layers as u64 * (attention + 3 * h * f)
    }

    /// All weights of the model: ternary, embedding, output layer and norms.
    pub fn parameters(&self) -> u64 {
        let h = self.hidden_size as u64;
        let tables = self.vocab_size as u64 * h * if self.tied_output { 1 } else { 2 };
        let sub = if self.sub_norms { (self.q_size() + self.intermediate_size) as u64 } else { 0 };
        self.ternary_parameters() + tables + self.num_layers as u64 * (2 * h + sub) + h
    }

    /// Checks that the fields fit each other and stay within what any real model has.
    ///
    /// # Errors
    /// [`SpecError`] naming the first field that does not.
    pub fn validate(&self) -> Result<(), SpecError> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 17),
            ("intermediate_size", self.intermediate_size, 1 << 19),
            ("num_layers", self.num_layers, 1 << 10),
            ("num_heads", self.num_heads, 1 << 12),
            ("num_kv_heads", self.num_kv_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("context_length", self.context_length, 1 << 26),
        ];
        for (field, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(SpecError {
                    field,
                    value: value.to_string(),
                    rule: "outside what any model has",
                });
            }
        }
        let refuse = |field, value: String, rule| Err(SpecError { field, value, rule });
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return refuse(
                "num_kv_heads",
                self.num_kv_heads.to_string(),
                "it must divide the number of heads",
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return refuse("head_dim", self.head_dim.to_string(), "rotary positions need an even head size");
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return refuse(
                "rms_norm_eps",
                self.rms_norm_eps.to_string(),
                "it must be a small positive number",
            );
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            return refuse("rope_theta", self.rope_theta.to_string(), "it must be greater than 1");
        }
        Ok(())
    }
}
