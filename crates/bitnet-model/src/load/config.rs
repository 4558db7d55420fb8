//! `config.json` of a Hugging Face model: the architecture, and how its weights are quantised.
//!
//! Fields that are absent take the value that the model's class in transformers gives them; sizes have no default.

use super::error::{LoadError, Result};
use super::json::Section;
use super::rope::{self, Rope, WindowRule};
use crate::{Activation, Extras, ModelSpec, RopeScaling};

/// What `weight_scale` beside packed weights means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScaleRule {
    /// The product is multiplied by it (`linear_class: autobitlinear`).
    Multiply,
    /// The product is divided by it (`linear_class: bitlinear`, also if none is given).
    Divide,
}

/// A `config.json` as far as it matters here.
#[derive(Debug)]
pub(super) struct HfConfig {
    /// The architecture. `sub_norms`, `projection_norms` and `tied_output` are decided later, by the tensors.
    pub(super) spec: ModelSpec,
    /// `tie_word_embeddings`.
    pub(super) tied: Option<bool>,
    /// Meaning of `weight_scale`; none if the file has no quantisation at all.
    pub(super) scale_rule: Option<ScaleRule>,
    /// Whether the file says that this is a BitNet model, so that float weights are masters to be quantised.
    pub(super) says_bitnet: bool,
    /// The class of the model.
    pub(super) class: Class,
    /// `bos_token_id`.
    pub(super) bos: Option<u32>,
    /// `eos_token_id`, one or several.
    pub(super) eos: Vec<u32>,
}

/// The classes of models that this engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `BitNetForCausalLM` of transformers: bitnet-b1.58-2B-4T.
    BitNet,
    /// `BitnetForCausalLM`, the first reproductions (1bitLLM).
    FirstBitnet,
    /// `LlamaForCausalLM` with ternary weights.
    Llama,
    /// Qwen3 with ternary weights: BitNet-embedding 0.6B.
    Qwen3,
    /// Gemma 3, text only, with ternary weights: BitNet-embedding 270M.
    Gemma3,
}

impl Class {
    fn read(root: &Section<'_>) -> Result<(Self, String)> {
        let names = root.texts("architectures")?.unwrap_or_default();
        let model_type = root.text("model_type")?;
        let name = match (names.first(), model_type) {
            (Some(name), _) => *name,
            (None, Some(model_type)) => model_type,
            (None, None) => return Err(root.missing("architectures")),
        };
        let class = match (name, model_type) {
            ("BitNetForCausalLM" | "bitnet", _) => Class::BitNet,
            ("BitnetForCausalLM", _) => Class::FirstBitnet,
            ("LlamaForCausalLM" | "llama", _) => Class::Llama,
            ("Qwen3ForCausalLM" | "Qwen3Model", _) => Class::Qwen3,
            ("Gemma3ForCausalLM" | "Gemma3TextModel", _) => Class::Gemma3,
            // The embedding models come with classes of their own.
            (_, Some("qwen3")) => Class::Qwen3,
            (_, Some("gemma3_text")) => Class::Gemma3,
            (other, _) => {
                let remedy = "BitNetForCausalLM, BitnetForCausalLM, LlamaForCausalLM, Qwen3 and Gemma 3 (text) with \
                              ternary weights are";
                let what = format!("the architecture {other:?}");
                return Err(LoadError::Unsupported { file: root.origin().to_owned(), what, remedy });
            }
        };
        Ok((class, name.to_owned()))
    }

    fn activation(self) -> &'static str {
        match self {
            Class::BitNet => "relu2",
            Class::Gemma3 => "gelu_pytorch_tanh",
            _ => "silu",
        }
    }

    fn rms_norm_eps(self) -> f64 {
        if self == Class::BitNet { 1e-5 } else { 1e-6 }
    }

    fn rope_theta(self) -> f64 {
        match self {
            Class::BitNet => 500_000.0,
            Class::Gemma3 => 1_000_000.0,
            _ => 10_000.0,
        }
    }

    /// Width of a head where the file does not tell: transformers divides only for these classes.
    fn head_dim(self) -> Option<usize> {
        match self {
            Class::Qwen3 => Some(128),
            Class::Gemma3 => Some(256),
            _ => None,
        }
    }

    /// Whether float weights are masters to be quantised, whatever else the file says.
    fn is_bitnet(self) -> bool {
        matches!(self, Class::BitNet | Class::FirstBitnet)
    }
}

impl HfConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If a field is missing, has the wrong type, or asks for something that the engine does not do. Sizes are checked
    /// against each other, so that nothing after this allocates by a lying file.
    pub(super) fn read(root: &Section<'_>) -> Result<Self> {
        let (class, architecture) = Class::read(root)?;
        let quantization = root.section("quantization_config")?;
        if let Some(q) = &quantization {
            check_quantization(q)?;
        }
        check_unsupported(root)?;
        let hidden_size = root.required_count("hidden_size")?;
        let num_heads = root.required_count("num_attention_heads")?;
        let num_layers = root.required_count("num_hidden_layers")?;
        let eps = root.number("rms_norm_eps")?.unwrap_or(class.rms_norm_eps());
        let rope = Rope::read(root)?;
        let rope_theta = rope.theta.unwrap_or(class.rope_theta());
        let mut spec = ModelSpec {
            architecture,
            vocab_size: root.required_count("vocab_size")?,
            hidden_size,
            intermediate_size: root.required_count("intermediate_size")?,
            num_layers,
            num_heads,
            num_kv_heads: root.count("num_key_value_heads")?.unwrap_or(num_heads),
            head_dim: head_dim(root, class, hidden_size, num_heads)?,
            activation: activation(root, class)?,
            sub_norms: false,
            rms_norm_eps: eps as f32,
            rope_theta,
            context_length: root.count("max_position_embeddings")?.unwrap_or(2048),
            tied_output: false,
            extras: extras(root, class, num_layers, rope, rope_theta)?,
        };
        // What makes no difference is left out, so that a model is the same in every file format.
        spec.extras.query_pre_attn_scalar =
            spec.extras.query_pre_attn_scalar.filter(|&scalar| scalar != spec.head_dim as f64);
        spec.validate().map_err(|source| LoadError::Spec { file: root.origin().to_owned(), source })?;
        let flagged = root.flag("is_bitnet_config")?.unwrap_or(false) || root.get("weight_bits").is_some();
        Ok(Self {
            spec,
            tied: root.flag("tie_word_embeddings")?,
            scale_rule: scale_rule(quantization.as_ref())?,
            says_bitnet: quantization.is_some() || class.is_bitnet() || flagged,
            class,
            bos: root.token_ids("bos_token_id")?.first().copied(),
            eos: root.token_ids("eos_token_id")?,
        })
    }

    /// Whether the class is the one of bitnet-b1.58-2B-4T.
    pub(super) fn is_2b_class(&self) -> bool {
        self.class == Class::BitNet
    }
}

/// What the class has beside the plain shape. Norms before projections are found by their tensors.
fn extras(root: &Section<'_>, class: Class, num_layers: usize, rope: Rope, theta: f64) -> Result<Extras> {
    let plain = Extras { rope_scaling: rope.scaling, ..Extras::default() };
    match class {
        Class::BitNet | Class::FirstBitnet | Class::Llama => Ok(plain),
        Class::Qwen3 => {
            let sliding = rope::sliding_window(root, WindowRule::Late, num_layers, theta)?;
            if sliding.is_some() && plain.rope_scaling != RopeScaling::None {
                return Err(LoadError::Unsupported {
                    file: root.origin().to_owned(),
                    what: "rope_scaling together with use_sliding_window".to_owned(),
                    remedy: "either of them alone is",
                });
            }
            Ok(Extras { head_norms: true, sliding, ..plain })
        }
        Class::Gemma3 => {
            let local = rope.local_theta.unwrap_or(10_000.0);
            Ok(Extras {
                head_norms: true,
                post_norms: true,
                scaled_embedding: true,
                query_pre_attn_scalar: Some(root.number("query_pre_attn_scalar")?.unwrap_or(256.0)),
                sliding: rope::sliding_window(root, WindowRule::Periodic, num_layers, local)?,
                ..plain
            })
        }
    }
}

/// Refuses by name what the classes may ask for and no BitNet model does.
fn check_unsupported(root: &Section<'_>) -> Result<()> {
    let refuse =
        |what: String, remedy| Err(LoadError::Unsupported { file: root.origin().to_owned(), what, remedy });
    for name in ["attention_bias", "mlp_bias"] {
        if root.flag(name)? == Some(true) {
            return refuse(format!("{name} = true"), "projections without a bias are");
        }
    }
    if root.flag("use_bidirectional_attention")? == Some(true) {
        return refuse("use_bidirectional_attention = true".to_owned(), "attention to earlier positions is");
    }
    for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = root.number(name)? {
            return refuse(format!("{name} = {cap}"), "scores and logits without a cap are");
        }
    }
    Ok(())
}

fn head_dim(root: &Section<'_>, class: Class, hidden_size: usize, num_heads: usize) -> Result<usize> {
    match root.count("head_dim")?.or(class.head_dim()) {
        Some(head_dim) => Ok(head_dim),
        None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => Ok(hidden_size / num_heads),
        None => {
            let expected = format!("a divisor of hidden_size ({hidden_size}) where head_dim is not given");
            Err(root.wrong("num_attention_heads", expected))
        }
    }
}

fn activation(root: &Section<'_>, class: Class) -> Result<Activation> {
    let told = match (class, root.text("hidden_activation")?) {
        (Class::Gemma3, Some(name)) => Some(name),
        _ => root.text("hidden_act")?,
    };
    match told.unwrap_or(class.activation()) {
        "relu2" => Ok(Activation::Relu2),
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::Gelu),
        other => Err(LoadError::Unsupported {
            file: root.origin().to_owned(),
            what: format!("hidden_act {other:?}"),
            remedy: "relu2, silu and gelu_pytorch_tanh are",
        }),
    }
}

fn scale_rule(quantization: Option<&Section<'_>>) -> Result<Option<ScaleRule>> {
    let Some(q) = quantization else { return Ok(None) };
    match q.text("linear_class")? {
        Some("autobitlinear") => Ok(Some(ScaleRule::Multiply)),
        Some("bitlinear") | None => Ok(Some(ScaleRule::Divide)),
        Some(_) => Err(q.wrong("linear_class", "\"autobitlinear\" or \"bitlinear\"")),
    }
}

fn check_quantization(q: &Section<'_>) -> Result<()> {
    let unsupported = |what, remedy| LoadError::Unsupported { file: q.origin().to_owned(), what, remedy };
    match q.text("quant_method")? {
        Some("bitnet") => {}
        Some(other) => {
            return Err(unsupported(format!("quant_method {other:?}"), "\"bitnet\" is"));
        }
        None => return Err(q.missing("quant_method")),
    }
    if q.flag("use_rms_norm")? == Some(true) {
        let what = format!("{} (a norm inside every linear layer)", q.field("use_rms_norm"));
        return Err(unsupported(what, "models with norms before attention and feed-forward are"));
    }
    // Anything but the output layer and the embedding would leave a projection with float weights.
    const TERNARY: [&str; 5] = ["_proj", "self_attn", "mlp", "layers", "*"];
    let kept = q.texts("modules_to_not_convert")?.unwrap_or_default();
    let is_norm = |name: &str| name.ends_with("norm");
    let matches = |name: &&&str| !is_norm(name) && TERNARY.iter().any(|part| name.contains(part));
    if let Some(name) = kept.iter().find(matches) {
        let what =
            format!("{} with {name:?} (a projection with float weights)", q.field("modules_to_not_convert"));
        return Err(unsupported(what, "models whose projections are all ternary are"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::json::JsonFile;
    use serde_json::{Value, json};

    fn config(change: impl FnOnce(&mut Value)) -> Result<HfConfig> {
        let text = include_str!("../../../../testdata/vectors/tiny-bitnet-packed/config.json");
        let mut value: Value = serde_json::from_str(text).unwrap();
        change(&mut value);
        let file = JsonFile::parse(value.to_string().as_bytes(), "config.json")?;
        HfConfig::read(&file.root())
    }

    fn message(change: impl FnOnce(&mut Value)) -> String {
        config(change).unwrap_err().to_string()
    }

    #[test]
    fn rope_theta_in_both_spellings() {
        let old = config(|c| c["rope_theta"] = json!(12345.0)).unwrap();
        let new = config(|c| {
            c.as_object_mut().unwrap().remove("rope_theta");
            c["rope_parameters"] = json!({"rope_theta": 12345.0, "rope_type": "default"});
        });
        assert_eq!(old.spec.rope_theta, 12345.0);
        assert_eq!(new.unwrap().spec.rope_theta, 12345.0);
    }

    #[test]
    fn unknown_rotary_positions_are_refused() {
        for (key, value) in [
            ("rope_scaling", json!({"rope_type": "dynamic", "factor": 8.0})),
            ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4})),
            ("partial_rotary_factor", json!(0.5)),
        ] {
            assert!(message(|c| c[key] = value).contains("not supported"), "{key}");
        }
        for value in [json!(null), json!({"rope_type": "default"}), json!({"type": "linear", "factor": 1.0})]
        {
            config(|c| c["rope_scaling"] = value).unwrap();
        }
    }

    #[test]
    fn scale_direction_follows_the_linear_class() {
        assert_eq!(config(|_| ()).unwrap().scale_rule, Some(ScaleRule::Multiply));
        for q in [
            json!({"quant_method": "bitnet"}),
            json!({"quant_method": "bitnet", "linear_class": "bitlinear"}),
        ] {
            assert_eq!(config(|c| c["quantization_config"] = q).unwrap().scale_rule, Some(ScaleRule::Divide));
        }
        assert!(
            message(|c| c["quantization_config"]["linear_class"] = json!("other")).contains("linear_class")
        );
        assert_eq!(config(|c| c["quantization_config"] = json!(null)).unwrap().scale_rule, None);
    }

    #[test]
    fn what_the_engine_does_not_do_is_named() {
        for (key, value, part) in [
            ("architectures", json!(["Qwen2ForCausalLM"]), "Qwen2ForCausalLM"),
            ("attention_bias", json!(true), "attention_bias"),
            ("mlp_bias", json!(true), "mlp_bias"),
            ("use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
            ("final_logit_softcapping", json!(30.0), "final_logit_softcapping"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("quantization_config", json!({"quant_method": "gptq"}), "gptq"),
            ("quantization_config", json!({"quant_method": "bitnet", "use_rms_norm": true}), "use_rms_norm"),
            (
                "quantization_config",
                json!({"quant_method": "bitnet", "modules_to_not_convert": ["lm_head", "q_proj"]}),
                "q_proj",
            ),
        ] {
            let text = message(|c| c[key] = value);
            assert!(text.contains("not supported") && text.contains(part), "{text}");
        }
        config(|c| c["quantization_config"]["modules_to_not_convert"] = json!(["lm_head"])).unwrap();
    }

    #[test]
    fn lying_sizes_are_refused() {
        for (key, value) in [
            ("num_hidden_layers", json!(0)),
            ("num_hidden_layers", json!(1_000_000_000_000u64)),
            ("num_attention_heads", json!(3)),
            ("num_attention_heads", json!(0)),
            ("num_key_value_heads", json!(3)),
            ("hidden_size", json!(-256)),
            ("hidden_size", json!("256")),
            ("vocab_size", json!(1u64 << 62)),
            ("head_dim", json!(7)),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!(0.0)),
            ("max_position_embeddings", json!(0)),
        ] {
            let text = message(|c| c[key] = value.clone());
            let field = if key == "max_position_embeddings" { "context_length" } else { key };
            let field = if key == "num_hidden_layers" { "num_layers" } else { field };
            let field = if key == "num_key_value_heads" { "num_kv_heads" } else { field };
            assert!(text.starts_with("config.json: ") && text.contains(field), "{key} {value}: {text}");
        }
        for key in
            ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
        {
            let text = message(|c| drop(c.as_object_mut().unwrap().remove(key)));
            assert!(text.contains("is missing") && text.contains(key), "{text}");
        }
    }

    #[test]
    fn explicit_head_dim_wins() {
        let spec = config(|c| c["head_dim"] = json!(32)).unwrap().spec;
        assert_eq!((spec.head_dim, spec.q_size(), spec.hidden_size), (32, 128, 256));
    }

    #[test]
    fn only_bitnet_says_bitnet() {
        let llama = |q: Value| {
            config(move |c| {
                c["architectures"] = json!(["LlamaForCausalLM"]);
                c["model_type"] = json!("llama");
                c["quantization_config"] = q;
            })
            .unwrap()
        };
        assert!(!llama(json!(null)).says_bitnet);
        assert!(llama(json!({"quant_method": "bitnet"})).says_bitnet);
        let first = config(|c| {
            c["architectures"] = json!(["BitnetForCausalLM"]);
            c["model_type"] = json!("llama");
            c["quantization_config"] = json!(null);
            c["hidden_act"] = json!(null);
        })
        .unwrap();
        assert!(first.says_bitnet && first.spec.activation == Activation::Silu && !first.is_2b_class());
    }
}
