//! The architecture of a GGUF file, from its metadata.

use bitnet_formats::{GgufArray, GgufFile, GgufValue};
use bitnet_quant::RowOrder;

use super::LoadOptions;
use super::error::{LoadError, Result};
use super::projection::MasterRule;
use super::tensors::{Tensors, wrong_shape};
use crate::{Activation, Extras, ModelSpec, RopeScaling, SlidingWindow};

/// Architectures with ternary weights that GGUF files name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    /// `bitnet-b1.58`: bitnet-b1.58-2B-4T, official file.
    BitnetB158,
    /// `bitnet-25`: the same, first upload.
    Bitnet25,
    /// `bitnet`: the first reproductions, and by some converters bitnet-b1.58-2B-4T.
    Bitnet,
    /// `llama` with ternary weights.
    Llama,
    /// `qwen3` with ternary weights: BitNet-embedding 0.6B.
    Qwen3,
    /// `gemma3` with ternary weights: BitNet-embedding 270M.
    Gemma3,
}

/// A vocabulary above this size tells bitnet-b1.58-2B-4T (128256) from the first reproductions (32002).
const LARGE_VOCABULARY: usize = 100_000;

impl Arch {
    /// Reads `general.architecture`.
    ///
    /// # Errors
    /// If it is missing or another one.
    pub(super) fn read(file: &GgufFile, origin: &str) -> Result<Self> {
        match file.metadata.string("general.architecture")? {
            Some("bitnet-b1.58") => Ok(Arch::BitnetB158),
            Some("bitnet-25") => Ok(Arch::Bitnet25),
            Some("bitnet") => Ok(Arch::Bitnet),
            Some("llama") => Ok(Arch::Llama),
            Some("qwen3") => Ok(Arch::Qwen3),
            Some("gemma3") => Ok(Arch::Gemma3),
            Some(other) => Err(LoadError::Unsupported {
                file: origin.to_owned(),
                what: format!("the architecture {other:?}"),
                remedy: "bitnet-b1.58, bitnet-25, bitnet, llama, qwen3 and gemma3 with ternary weights are",
            }),
            None => Err(missing(origin, "general.architecture")),
        }
    }

    /// The name in the file, which is also the prefix of its keys.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Arch::BitnetB158 => "bitnet-b1.58",
            Arch::Bitnet25 => "bitnet-25",
            Arch::Bitnet => "bitnet",
            Arch::Llama => "llama",
            Arch::Qwen3 => "qwen3",
            Arch::Gemma3 => "gemma3",
        }
    }

    /// Order of the stored rows of query and key projections: converters permute those of llama.
    pub(super) fn qk_order(self, head_dim: usize) -> RowOrder {
        match self {
            Arch::Llama => RowOrder::RotaryInterleaved { head_dim },
            _ => RowOrder::Natural,
        }
    }

    /// What float weights of projections are taken for.
    pub(super) fn master_rule(self) -> MasterRule {
        match self {
            Arch::Llama | Arch::Qwen3 | Arch::Gemma3 => MasterRule::TernaryOnly,
            _ => MasterRule::Quantise,
        }
    }

    /// The activation: told by the architecture, except that `bitnet` stands for two different ones.
    fn activation(
        self,
        vocab_size: usize,
        origin: &str,
        options: &LoadOptions,
        warnings: &mut Vec<String>,
    ) -> Activation {
        let told = match self {
            Arch::BitnetB158 | Arch::Bitnet25 => Activation::Relu2,
            Arch::Llama | Arch::Qwen3 => Activation::Silu,
            Arch::Gemma3 => Activation::Gelu,
            Arch::Bitnet => {
                if let Some(activation) = options.activation {
                    return activation;
                }
                if vocab_size > LARGE_VOCABULARY {
                    warnings.push(format!(
                        "{origin}: architecture \"bitnet\" with {vocab_size} tokens is taken for a converted \
                         bitnet-b1.58-2B-4T and run with {} instead of {}; choose another with --activation",
                        Activation::Relu2,
                        Activation::Silu
                    ));
                    return Activation::Relu2;
                }
                return Activation::Silu;
            }
        };
        if options.activation.is_some_and(|wanted| wanted != told) {
            warnings.push(format!(
                "{origin}: the architecture \"{}\" means {told}; the activation asked for is ignored",
                self.name()
            ));
        }
        told
    }
}

/// Access to the keys of an architecture.
struct Keys<'a> {
    file: &'a GgufFile,
    arch: Arch,
    origin: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch.name())
    }

    fn count(&self, name: &str) -> Result<Option<usize>> {
        let key = self.key(name);
        let Some(value) = self.file.metadata.u64(&key)? else { return Ok(None) };
        usize::try_from(value).map(Some).map_err(|_| self.wrong(&key, &value, "smaller"))
    }

    fn required_count(&self, name: &str) -> Result<usize> {
        self.count(name)?.ok_or_else(|| missing(self.origin, &self.key(name)))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.file.metadata.f64(&self.key(name))?)
    }

    fn wrong(&self, key: &str, value: &dyn std::fmt::Display, expected: impl Into<String>) -> LoadError {
        LoadError::Field {
            file: self.origin.to_owned(),
            field: key.to_owned(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    fn unsupported(&self, what: String, remedy: &'static str) -> LoadError {
        LoadError::Unsupported { file: self.origin.to_owned(), what, remedy }
    }

    /// Width of a head: given, or that of the rotary positions, or what is left for each head.
    fn head_dim(&self, hidden_size: usize, num_heads: usize) -> Result<usize> {
        let rotary = self.count("rope.dimension_count")?;
        let head_dim = match (self.count("attention.key_length")?, rotary) {
            (Some(length), _) | (None, Some(length)) => length,
            (None, None) if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
            (None, None) => {
                let expected = format!("a divisor of the embedding length {hidden_size}");
                return Err(self.wrong(&self.key("attention.head_count"), &num_heads, expected));
            }
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.count(name)?.filter(|&other| other != head_dim) {
                let what = format!("{} = {other} with heads of {head_dim}", self.key(name));
                return Err(self.unsupported(what, "models where both are equal are"));
            }
        }
        Ok(head_dim)
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let key = self.key("rope.scaling.type");
        match self.file.metadata.string(&key)? {
            None | Some("none" | "linear") => {}
            Some(other) => {
                let remedy = "unscaled rotary positions and linear scaling are";
                return Err(self.unsupported(format!("{key} {other:?}"), remedy));
            }
        }
        for name in ["rope.scaling.factor", "rope.scale_linear"] {
            // Some converters write 0 for "none".
            if let Some(factor) = self.number(name)?.filter(|&f| f != 1.0 && f != 0.0) {
                return Ok(RopeScaling::Linear(factor));
            }
        }
        Ok(RopeScaling::None)
    }

    /// Layers with a sliding window. A file that does not tell the window has none: that of Microsoft's converter.
    fn sliding(&self, num_layers: usize) -> Result<Option<SlidingWindow>> {
        let Some(window) = self.count("attention.sliding_window")?.filter(|&window| window > 0) else {
            return Ok(None);
        };
        let theta = self.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
        // Refused by size later; a list must not be sized by it before.
        let num_layers = num_layers.min(1 << 16);
        let key = self.key("attention.sliding_window_pattern");
        match self.file.metadata.get(&key) {
            None => Ok(Some(SlidingWindow::periodic(window, num_layers, 6, theta))),
            Some(GgufValue::Array(GgufArray::Bool(layers))) => {
                Ok(Some(SlidingWindow { window, layers: layers.clone(), rope_theta: theta }))
            }
            Some(_) => {
                let period = self.count("attention.sliding_window_pattern")?.unwrap_or(6);
                Ok(Some(SlidingWindow::periodic(window, num_layers, period, theta)))
            }
        }
    }

    /// What the architecture has beside the plain shape. Norms before projections are found by their tensors.
    fn extras(&self, num_layers: usize) -> Result<Extras> {
        let plain = Extras { rope_scaling: self.rope_scaling()?, ..Extras::default() };
        for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = self.number(name)? {
                let what = format!("{} = {cap}", self.key(name));
                return Err(self.unsupported(what, "scores and logits without a cap are"));
            }
        }
        Ok(match self.arch {
            Arch::Qwen3 => Extras { head_norms: true, ..plain },
            // Its query scalar is not in such files; it is the width of a head in all sizes but the largest (27B).
            Arch::Gemma3 => Extras {
                head_norms: true,
                post_norms: true,
                scaled_embedding: true,
                sliding: self.sliding(num_layers)?,
                ..plain
            },
            _ => plain,
        })
    }
}

/// Reads the architecture. `sub_norms`, `projection_norms` and `tied_output` are set by the tensors that are there.
///
/// # Errors
/// If a key is missing, has the wrong type, or the sizes do not fit each other.
pub(super) fn read(
    file: &GgufFile,
    arch: Arch,
    tensors: &Tensors<'_>,
    options: &LoadOptions,
    warnings: &mut Vec<String>,
) -> Result<ModelSpec> {
    let origin = tensors.place();
    let keys = Keys { file, arch, origin };
    let hidden_size = keys.required_count("embedding_length")?;
    let num_heads = keys.required_count("attention.head_count")?;
    let embedding = tensors.require("token_embd.weight")?;
    let vocab_size = match embedding.shape[..] {
        [rows, _] => usize::try_from(rows).unwrap_or(usize::MAX),
        _ => return Err(wrong_shape(embedding, &[0, hidden_size])),
    };
    let eps_key = "attention.layer_norm_rms_epsilon";
    let eps = keys.number(eps_key)?.ok_or_else(|| missing(origin, &keys.key(eps_key)))?;
    let num_layers = keys.required_count("block_count")?;
    let spec = ModelSpec {
        architecture: format!("gguf {}", arch.name()),
        vocab_size,
        hidden_size,
        intermediate_size: keys.required_count("feed_forward_length")?,
        num_layers,
        num_heads,
        num_kv_heads: keys.count("attention.head_count_kv")?.unwrap_or(num_heads),
        head_dim: keys.head_dim(hidden_size, num_heads)?,
        activation: arch.activation(vocab_size, origin, options, warnings),
        sub_norms: false,
        rms_norm_eps: eps as f32,
        rope_theta: keys.number("rope.freq_base")?.unwrap_or(10_000.0),
        context_length: keys.required_count("context_length")?,
        tied_output: !tensors.contains("output.weight"),
        extras: keys.extras(num_layers)?,
    };
    spec.validate().map_err(|source| LoadError::Spec { file: origin.to_owned(), source })?;
    Ok(spec)
}

fn missing(origin: &str, key: &str) -> LoadError {
    let remedy = "convert the model again with a converter that writes it";
    LoadError::MissingField { file: origin.to_owned(), field: key.to_owned(), remedy }
}
