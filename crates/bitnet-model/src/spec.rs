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
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, Gemma 3.
    Gelu,
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Activation::Relu2 => "ReLU²",
            Activation::Silu => "SiLU",
            Activation::Gelu => "GELU",
        })
    }
}

/// A decoder-only transformer with ternary projections: RMS norms, rotary positions in half-split pairing,
/// grouped-query attention and a gated feed-forward part.
///
/// For one token with residual stream `x`:
/// `h = norm(x)`, `q, k, v = W h`, `x += W_o sub_norm(attention)`, `h = norm(x)`,
/// `x += W_down sub_norm(act(W_gate h) * W_up h)`; at the end `logits = W_out norm(x)`. [`Extras`] adds to that.
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
    /// Whether an RMS norm stands before `o_proj` and before `down_proj`, each as wide as what it norms.
    pub sub_norms: bool,
    /// Added to the mean of squares in every norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence the model was made for, in tokens.
    pub context_length: usize,
    /// Whether the output layer is the embedding.
    pub tied_output: bool,
    /// What the architecture has beside all this.
    pub extras: Extras,
}

/// What some architectures have beside the plain shape; by default nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Extras {
    /// An RMS norm over each head of queries and keys, before they are rotated (Qwen3, Gemma 3).
    pub head_norms: bool,
    /// An RMS norm of its own before each of `q`, `k`, `v`, `gate` and `up`, behind the norm that they share, so that each
    /// quantises another row (the BitNet embedding models). Those before `o` and `down` are the sub-norms.
    pub projection_norms: bool,
    /// An RMS norm of what attention and feed-forward part give, before it is added to the stream (Gemma 3).
    pub post_norms: bool,
    /// Whether embeddings are multiplied by the square root of the hidden size (Gemma 3), see
    /// [`ModelSpec::embedding_scale`].
    pub scaled_embedding: bool,
    /// Scores are divided by the square root of this instead of that of `head_dim` (Gemma 3).
    pub query_pre_attn_scalar: Option<f64>,
    /// How rotary frequencies are changed, but for those of layers with a sliding window.
    pub rope_scaling: RopeScaling,
    /// Layers that attend to the last positions only.
    pub sliding: Option<SlidingWindow>,
}

/// How rotary frequencies differ from `theta^(-2j / head_dim)`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// All are divided by this.
    Linear(f64),
    /// Low frequencies are divided by a factor, high ones are not, those between partly (Llama 3.1).
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Context before it was stretched, in tokens.
        original_context: f64,
    },
    /// Each is divided by a number of its own, `[head_dim / 2]` (the tensor `rope_freqs.weight` of GGUF files).
    Factors(Vec<f32>),
}

/// Layers whose tokens attend to the last `window` positions, their own included.
#[derive(Debug, Clone, PartialEq)]
pub struct SlidingWindow {
    /// Positions that a token attends to.
    pub window: usize,
    /// For each layer, whether it has the window.
    pub layers: Vec<bool>,
    /// Base of the rotary frequencies in these layers, which are not scaled.
    pub rope_theta: f64,
}

impl SlidingWindow {
    /// All layers but every `period`-th have the window, the last of each period has not (Gemma 3).
    pub fn periodic(window: usize, layers: usize, period: usize, rope_theta: f64) -> Self {
        let layers = (1..=layers).map(|layer| period == 0 || !layer.is_multiple_of(period)).collect();
        Self { window, layers, rope_theta }
    }
}

impl RopeScaling {
    /// The frequency that pair `index` of a head turns with, where `frequency` is the unscaled one.
    pub fn apply(&self, index: usize, frequency: f64) -> f64 {
        match self {
            RopeScaling::None => frequency,
            RopeScaling::Linear(factor) => frequency / factor,
            RopeScaling::Factors(factors) => frequency / f64::from(factors[index]),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let turns = original_context * frequency / std::f64::consts::TAU;
                let high = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let high = if turns < *low_freq_factor { 0.0 } else { high.min(1.0) };
                frequency * ((1.0 - high) / factor + high)
            }
        }
    }

    fn is_possible(&self, head_dim: usize) -> bool {
        let positive = |x: &f64| x.is_finite() && *x > 0.0;
        match self {
            RopeScaling::None => true,
            RopeScaling::Linear(factor) => positive(factor),
            RopeScaling::Factors(factors) => {
                factors.len() == head_dim / 2 && factors.iter().all(|&f| positive(&f64::from(f)))
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                [factor, low_freq_factor, high_freq_factor, original_context].into_iter().all(positive)
                    && high_freq_factor > low_freq_factor
            }
        }
    }
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

    /// What scores of a query and a key are multiplied by.
    pub fn attention_scale(&self) -> f32 {
        let width = self.extras.query_pre_attn_scalar.map_or(self.head_dim as f32, |scalar| scalar as f32);
        1.0 / width.sqrt()
    }

    /// What embeddings are multiplied by: in single precision, whatever the type of the table. (transformers rounds it to
    /// that type, llama.cpp does not; so that a model is the same in every file format, it is not rounded here.)
    pub fn embedding_scale(&self) -> f32 {
        if self.extras.scaled_embedding { (self.hidden_size as f64).sqrt() as f32 } else { 1.0 }
    }

    /// Whether a layer has the sliding window, and with it the local rotary base.
    pub fn is_sliding(&self, layer: usize) -> bool {
        self.extras.sliding.as_ref().is_some_and(|sliding| sliding.layers.get(layer) == Some(&true))
    }

    /// The first position that the token at `position` attends to in a layer.
    pub fn first_position(&self, layer: usize, position: usize) -> usize {
        match &self.extras.sliding {
            Some(sliding) if self.is_sliding(layer) => (position + 1).saturating_sub(sliding.window),
            _ => 0,
        }
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
        let extras = [
            (self.extras.head_norms, 2 * self.head_dim as u64),
            (self.extras.projection_norms, 5 * h),
            (self.extras.post_norms, 2 * h),
        ];
        let extra: u64 = extras.iter().filter(|(there, _)| *there).map(|(_, weights)| weights).sum();
        self.ternary_parameters() + tables + self.num_layers as u64 * (2 * h + sub + extra) + h
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
        self.validate_extras()
    }

    fn validate_extras(&self) -> Result<(), SpecError> {
        let refuse = |field, value: String, rule| Err(SpecError { field, value, rule });
        if let Some(scalar) = self.extras.query_pre_attn_scalar.filter(|s| !(s.is_finite() && *s > 0.0)) {
            return refuse("query_pre_attn_scalar", scalar.to_string(), "it must be greater than 0");
        }
        let scaling = &self.extras.rope_scaling;
        if !scaling.is_possible(self.head_dim) {
            let rule = "factors must be positive, and the high one greater than the low one";
            return refuse("rope_scaling", format!("{scaling:?}"), rule);
        }
        let Some(sliding) = &self.extras.sliding else { return Ok(()) };
        if sliding.window == 0 {
            return refuse("sliding_window", "0".to_owned(), "a token attends to itself at least");
        }
        if sliding.layers.len() != self.num_layers {
            let rule = "it must tell the kind of every layer";
            return refuse("layer_types", format!("a list of {}", sliding.layers.len()), rule);
        }
        if !(sliding.rope_theta.is_finite() && sliding.rope_theta > 1.0) {
            let value = sliding.rope_theta.to_string();
            return refuse("rope_local_base_freq", value, "it must be greater than 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `inv_freq` of transformers' `_compute_llama3_parameters` for base 5e5, heads of 128, factor 8, 1 and 4, 8192.
    #[test]
    fn llama3_scaling_is_that_of_transformers() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        };
        let frequency = |j: usize| 500_000f64.powf(-2.0 * j as f64 / 128.0);
        let ratio = |j: usize| scaling.apply(j, frequency(j)) / frequency(j);
        assert_eq!((ratio(0), ratio(28)), (1.0, 1.0), "short waves are left alone");
        assert!((ratio(40) - 0.125).abs() < 1e-12 && (ratio(63) - 0.125).abs() < 1e-12, "long ones are not");
        for j in 29..35 {
            let wave = std::f64::consts::TAU / frequency(j);
            assert!((2048.0..8192.0).contains(&wave), "{j}");
            let smooth = (8192.0 / wave - 1.0) / 3.0;
            assert!((ratio(j) - ((1.0 - smooth) / 8.0 + smooth)).abs() < 1e-12, "{j}");
        }
    }

    #[test]
    fn windows_of_every_sixth_layer() {
        let sliding = SlidingWindow::periodic(512, 18, 6, 1e4);
        let full: Vec<usize> = (0..18).filter(|&l| !sliding.layers[l]).collect();
        assert_eq!(full, [5, 11, 17]);
    }
}
