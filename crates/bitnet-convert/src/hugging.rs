//! `config.json` of the folders that are written.

use bitnet_model::{Activation, ModelSpec};
use serde_json::{Map, Value, json};

use crate::Target;
use crate::error::{ConvertError, Result};
use crate::source::Source;

/// Keys that would lead a reader to other code or another reading.
const DROPPED: [&str; 4] = ["auto_map", "weight_bits", "input_bits", "is_bitnet_config"];

/// The configuration: that of the source where it is a folder, with what the new form changes.
///
/// # Errors
/// [`ConvertError::Unsupported`] if no class of transformers computes the model.
pub(crate) fn config(source: &Source, target: Target) -> Result<Value> {
    let spec = &source.model.spec;
    let mut config = match source.files.get("config.json").map(|view| serde_json::from_slice(view.as_slice()))
    {
        Some(Ok(Value::Object(map))) => map,
        _ => of_spec(source, target)?,
    };
    for key in DROPPED {
        config.remove(key);
    }
    if is_first_bitnet(&config) {
        rename_first_bitnet(&mut config, spec);
    }
    config.insert("tie_word_embeddings".to_owned(), spec.tied_output.into());
    let dtype_key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    let dtype = if target == Target::Onnx { "float32" } else { "bfloat16" };
    config.insert(dtype_key.to_owned(), dtype.into());
    config.insert("quantization_config".to_owned(), quantization(target));
    Ok(Value::Object(config))
}

fn quantization(target: Target) -> Value {
    let online = target == Target::SafetensorsBf16;
    json!({
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": if online { "online" } else { "offline" },
        "modules_to_not_convert": null
    })
}

/// Whether this is the class of the first reproductions, which transformers does not have.
fn is_first_bitnet(config: &Map<String, Value>) -> bool {
    config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str)
        == Some("BitnetForCausalLM")
}

/// The class that transformers has computes the same if its defaults are overruled.
fn rename_first_bitnet(config: &mut Map<String, Value>, spec: &ModelSpec) {
    for (key, value) in [
        ("architectures", json!(["BitNetForCausalLM"])),
        ("model_type", json!("bitnet")),
        ("hidden_act", json!(activation(spec))),
        ("rms_norm_eps", json!(shortest(spec.rms_norm_eps))),
        ("rope_theta", json!(spec.rope_theta)),
        ("max_position_embeddings", json!(spec.context_length)),
    ] {
        config.insert(key.to_owned(), value);
    }
}

fn activation(spec: &ModelSpec) -> &'static str {
    match spec.activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::Gelu => "gelu_pytorch_tanh",
    }
}

/// A float by its shortest decimal form, so that 1e-5 does not become 9.99999974e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn of_spec(source: &Source, target: Target) -> Result<Map<String, Value>> {
    let model = &source.model;
    let spec = &model.spec;
    // The graph of an ONNX model says itself how large they are.
    if target != Target::Onnx && spec.sub_norms && spec.q_size() != spec.hidden_size {
        return Err(ConvertError::Unsupported {
            target: target.name(),
            what: format!("sub-norms of {} in a model of width {}", spec.q_size(), spec.hidden_size),
            remedy: "write a GGUF file",
        });
    }
    let (class, kind) =
        if spec.sub_norms { ("BitNetForCausalLM", "bitnet") } else { ("LlamaForCausalLM", "llama") };
    let value = json!({
        "architectures": [class],
        "model_type": kind,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "hidden_act": activation(spec),
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": shortest(spec.rms_norm_eps),
        "rope_theta": spec.rope_theta,
        "attention_bias": false,
        "bos_token_id": model.generation.bos,
        "eos_token_id": model.generation.stop_tokens.first(),
        "use_cache": true
    });
    Ok(value.as_object().cloned().unwrap_or_default())
}
