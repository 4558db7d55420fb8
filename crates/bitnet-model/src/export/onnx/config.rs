//! The configuration of a model in the form of `config.json`.

use serde_json::{Value, json};

use crate::{Activation, LoadedModel};

/// A `config.json` from which the same [`ModelSpec`](crate::ModelSpec) is read again. Weight scales are multipliers.
pub(super) fn config(model: &LoadedModel) -> Value {
    let spec = &model.spec;
    let (class, model_type) = match spec.architecture.as_str() {
        known @ ("BitNetForCausalLM" | "BitnetForCausalLM") => (known, "bitnet"),
        "LlamaForCausalLM" => ("LlamaForCausalLM", "llama"),
        _ if spec.sub_norms => ("BitNetForCausalLM", "bitnet"),
        _ => ("LlamaForCausalLM", "llama"),
    };
    let activation = match spec.activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::Gelu => "gelu_pytorch_tanh",
    };
    json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "hidden_act": activation,
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied_output,
        "bos_token_id": model.generation.bos,
        "eos_token_id": model.generation.stop_tokens,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
        },
    })
}
