//! `config.json` of a Hugging Face model: the architecture, and how its weights are quantised.
//!
//! Fields that are absent take the value that the model's class in transformers gives them; sizes have no default.

use super::error::{LoadError, Result};
use super::json::Section;
use crate::{Activation, ModelSpec};

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
    /// The architecture. `sub_norms` and `tied_output` are decided later, by the tensors.
    pub(super) spec: ModelSpec,
    /// `tie_word_embeddings`.
    pub(super) tied: Option<bool>,
    /// Meaning of `weight_scale`; none if the file has no quantisation at all.
    pub(super) scale_rule: Option<ScaleRule>,
    /// Whether the file says that this is a BitNet model, so that float weights are masters to be quantised.
    pub(super) says_bitnet: bool,
    /// Whether the class is the one of bitnet-b1.58-2B-4T.
    pub(super) is_2b_class: bool,
    /// `bos_token_id`.
    pub(super) bos: Option<u32>,
    /// `eos_token_id`, one or several.
    pub(super) eos: Vec<u32>,
}

/// The classes of models that this engine runs; they differ in defaults only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `BitNetForCausalLM` of transformers: bitnet-b1.58-2B-4T.
    BitNet,
    /// `BitnetForCausalLM`, the first reproductions (1bitLLM).
    FirstBitnet,
    /// `LlamaForCausalLM` with ternary weights.
    Llama,
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
        let class = match name {
            "BitNetForCausalLM" | "bitnet" => Class::BitNet,
            "BitnetForCausalLM" => Class::FirstBitnet,
            "LlamaForCausalLM" | "llama" => Class::Llama,
            other => {
                let remedy =
                    "BitNetForCausalLM, BitnetForCausalLM and LlamaForCausalLM with ternary weights are";
                let what = format!("the architecture {other:?}");
                return Err(LoadError::Unsupported { file: root.origin().to_owned(), what, remedy });
            }
        };
        Ok((class, name.to_owned()))
    }

    fn activation(self) -> &'static str {
        if self == Class::BitNet { "relu2" } else { "silu" }
    }

    fn rms_norm_eps(self) -> f64 {
        if self == Class::BitNet { 1e-5 } else { 1e-6 }
    }

    fn rope_theta(self) -> f64 {
        if self == Class::BitNet { 500_000.0 } else { 10_000.0 }
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
        let hidden_size = root.required_count("hidden_size")?;
        let num_heads = root.required_count("num_attention_heads")?;
        let eps = root.number("rms_norm_eps")?.unwrap_or(class.rms_norm_eps());
        let spec = ModelSpec {
            architecture,
            vocab_size: root.required_count("vocab_size")?,
            hidden_size,
            intermediate_size: root.required_count("intermediate_size")?,
            num_layers: root.required_count("num_hidden_layers")?,
            num_heads,
            num_kv_heads: root.count("num_key_value_heads")?.unwrap_or(num_heads),
            head_dim: head_dim(root, hidden_size, num_heads)?,
            activation: activation(root, class)?,
            sub_norms: false,
            rms_norm_eps: eps as f32,
            rope_theta: rope_theta(root)?.unwrap_or(class.rope_theta()),
            context_length: root.count("max_position_embeddings")?.unwrap_or(2048),
            tied_output: false,
        };
        spec.validate().map_err(|source| LoadError::Spec { file: root.origin().to_owned(), source })?;
        let flagged = root.flag("is_bitnet_config")?.unwrap_or(false) || root.get("weight_bits").is_some();
        Ok(Self {
            spec,
            tied: root.flag("tie_word_embeddings")?,
            scale_rule: scale_rule(quantization.as_ref())?,
            says_bitnet: quantization.is_some() || class != Class::Llama || flagged,
            is_2b_class: class == Class::BitNet,
            bos: root.token_ids("bos_token_id")?.first().copied(),
            eos: root.token_ids("eos_token_id")?,
        })
    }
}

fn head_dim(root: &Section<'_>, hidden_size: usize, num_heads: usize) -> Result<usize> {
    match root.count("head_dim")? {
        Some(head_dim) => Ok(head_dim),
        None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => Ok(hidden_size / num_heads),
        None => {
            let expected = format!("a divisor of hidden_size ({hidden_size}) where head_dim is not given");
            Err(root.wrong("num_attention_heads", expected))
        }
    }
}

fn activation(root: &Section<'_>, class: Class) -> Result<Activation> {
    match root.text("hidden_act")?.unwrap_or(class.activation()) {
        "relu2" => Ok(Activation::Relu2),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(LoadError::Unsupported {
            file: root.origin().to_owned(),
            what: format!("hidden_act {other:?}"),
            remedy: "relu2 and silu are",
        }),
    }
}

/// The rotary base in its old (`rope_theta`) or new spelling (`rope_parameters.rope_theta`).
fn rope_theta(root: &Section<'_>) -> Result<Option<f64>> {
    check_partial_rotary(root)?;
    if let Some(scaling) = root.section("rope_scaling")? {
        check_rope_type(&scaling)?;
    }
    if let Some(parameters) = root.section("rope_parameters")? {
        check_rope_type(&parameters)?;
        check_partial_rotary(&parameters)?;
        if let Some(theta) = parameters.number("rope_theta")? {
            return Ok(Some(theta));
        }
    }
    root.number("rope_theta")
}

fn check_partial_rotary(section: &Section<'_>) -> Result<()> {
    match section.number("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(LoadError::Unsupported {
            file: section.origin().to_owned(),
            what: format!("{} = {factor}", section.field("partial_rotary_factor")),
            remedy: "rotary positions over whole heads are",
        }),
        _ => Ok(()),
    }
}

fn check_rope_type(section: &Section<'_>) -> Result<()> {
    let kind = match section.text("rope_type")? {
        Some(kind) => Some(kind),
        None => section.text("type")?,
    };
    let plain = match kind {
        None | Some("default") => true,
        Some("linear") => section.number("factor")?.is_none_or(|factor| factor == 1.0),
        Some(_) => false,
    };
    if plain {
        return Ok(());
    }
    Err(LoadError::Unsupported {
        file: section.origin().to_owned(),
        what: format!("{} = {:?}", section.field("rope_type"), kind.unwrap_or_default()),
        remedy: "unscaled rotary positions are",
    })
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
    if let Some(name) = kept.iter().find(|name| TERNARY.iter().any(|part| name.contains(part))) {
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
    fn scaled_rotary_positions_are_refused() {
        for (key, value) in [
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
            ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
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
            ("architectures", json!(["Qwen3ForCausalLM"]), "Qwen3ForCausalLM"),
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
        assert!(first.says_bitnet && first.spec.activation == Activation::Silu && !first.is_2b_class);
    }
}
