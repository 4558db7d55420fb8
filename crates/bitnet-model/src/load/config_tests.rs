//! Configurations of published models: what each becomes, in the spellings of transformers 4 and 5.

use serde_json::{Value, json};

use super::config::{HfConfig, ScaleRule};
use super::error::Result;
use super::json::JsonFile;
use crate::{Activation, RopeScaling};

fn read(config: &Value) -> Result<HfConfig> {
    HfConfig::read(&JsonFile::parse(config.to_string().as_bytes(), "config.json")?.root())
}

/// HF1BitLLM/Llama3-8B-1.58-100B-tokens.
fn llama3_8b() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096,
        "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_act": "silu", "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
        "rope_scaling": null, "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false,
        "is_bitnet_config": true, "torch_dtype": "bfloat16", "bos_token_id": 128_000, "eos_token_id": 128_001,
        "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": null}
    })
}

/// tiiuae/Falcon3-7B-Base-1.58bit, as transformers 5 would write it.
fn falcon3_7b() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 131_080, "hidden_size": 3072,
        "intermediate_size": 23_040, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 4,
        "head_dim": 256, "hidden_act": "silu", "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_042}, "tie_word_embeddings": false,
        "dtype": "bfloat16", "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": null}
    })
}

/// Falcon-E of some size: its trainer names the head and what it leaves alone.
fn falcon_e() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32_768, "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 128, "rope_theta": 10_000.0, "tie_word_embeddings": true,
        "quantization_config": {
            "quant_method": "bitnet",
            "modules_to_not_convert": ["lm_head", "model.embed_tokens", "model.layers.0.input_layernorm", "model.norm"]
        }
    })
}

/// BitNet-embedding 0.6B.
fn embedding_600m() -> Value {
    json!({
        "architectures": ["BitNetQwen3Model"], "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 1024,
        "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "rope_scaling": null, "sliding_window": null, "use_sliding_window": false,
        "max_window_layers": 28, "tie_word_embeddings": true, "eos_token_id": 151_645
    })
}

/// BitNet-embedding 270M, with the window of the model that it was made from.
fn embedding_270m() -> Value {
    json!({
        "architectures": ["Gemma3TextModel"], "model_type": "gemma3_text", "vocab_size": 262_144, "hidden_size": 640,
        "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window": 512,
        "_sliding_window_pattern": 6, "query_pre_attn_scalar": 256, "attn_logit_softcapping": null,
        "final_logit_softcapping": null, "use_bidirectional_attention": false, "bos_token_id": 2, "eos_token_id": 1
    })
}

#[test]
fn published_llama_shapes() {
    let llama = read(&llama3_8b()).unwrap();
    let spec = &llama.spec;
    assert_eq!((spec.head_dim, spec.q_size(), spec.kv_size(), spec.rope_theta), (128, 4096, 1024, 5e5));
    assert_eq!(
        (llama.scale_rule, llama.says_bitnet, llama.tied),
        (Some(ScaleRule::Divide), true, Some(false))
    );
    let falcon = read(&falcon3_7b()).unwrap();
    assert_eq!(
        (falcon.spec.head_dim, falcon.spec.q_size(), falcon.spec.rope_theta),
        (256, 3072, 1_000_042.0)
    );
    assert_eq!((falcon.spec.rms_norm_eps, falcon.spec.activation), (1e-6, Activation::Silu));
    let edge = read(&falcon_e()).unwrap();
    assert_eq!((edge.scale_rule, edge.tied), (Some(ScaleRule::Divide), Some(true)));
    for config in [&llama, &falcon, &edge] {
        assert_eq!(config.spec.extras, crate::Extras::default());
    }
    let mut partly = falcon_e();
    partly["quantization_config"]["modules_to_not_convert"] =
        json!(["lm_head", "model.layers.0.mlp.down_proj"]);
    assert!(read(&partly).unwrap_err().to_string().contains("down_proj"));
}

#[test]
fn rotary_scaling_of_every_spelling() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 8192});
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192.0,
    };
    let mut old = llama3_8b();
    old["rope_scaling"] = llama3.clone();
    assert_eq!(read(&old).unwrap().spec.extras.rope_scaling, expected);
    let mut new = falcon3_7b();
    new["rope_parameters"] = llama3;
    new["rope_parameters"]["rope_theta"] = json!(5e5);
    let spec = read(&new).unwrap().spec;
    assert_eq!((spec.rope_theta, spec.extras.rope_scaling), (5e5, expected));
    let mut linear = llama3_8b();
    linear["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    assert_eq!(read(&linear).unwrap().spec.extras.rope_scaling, RopeScaling::Linear(2.0));
    for (key, value, part) in [
        ("factor", json!(null), "rope_scaling.factor"),
        ("low_freq_factor", json!(9.0), "high one greater"),
        ("factor", json!(-1.0), "factors must be positive"),
        ("rope_type", json!("longrope"), "longrope"),
    ] {
        let mut bad = old.clone();
        bad["rope_scaling"][key] = value;
        let text = read(&bad).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn embedding_models() {
    let qwen = read(&embedding_600m()).unwrap();
    assert!(
        qwen.spec.extras.head_norms && !qwen.spec.extras.post_norms && qwen.spec.extras.sliding.is_none()
    );
    assert!(!qwen.says_bitnet, "the norms before projections tell");
    assert_eq!(qwen.spec.q_size(), 2048);
    let gemma = read(&embedding_270m()).unwrap().spec;
    assert_eq!((gemma.activation, gemma.head_dim, gemma.rope_theta), (Activation::Gelu, 256, 1e6));
    let extras = &gemma.extras;
    assert!(extras.head_norms && extras.post_norms && extras.scaled_embedding);
    assert_eq!((extras.query_pre_attn_scalar, gemma.attention_scale()), (None, 1.0 / 16.0));
    assert_eq!(gemma.embedding_scale(), 640f32.sqrt());
    let sliding = extras.sliding.as_ref().unwrap();
    assert_eq!((sliding.window, sliding.rope_theta), (512, 1e4));
    assert!(sliding.layers.iter().enumerate().all(|(i, &s)| s == ((i + 1) % 6 != 0)));
    assert_eq!((gemma.first_position(0, 600), gemma.first_position(5, 600)), (89, 0));
}

#[test]
fn sliding_windows_of_every_spelling() {
    let mut new = embedding_270m();
    let map = new.as_object_mut().unwrap();
    for name in ["rope_theta", "rope_local_base_freq", "_sliding_window_pattern"] {
        map.remove(name);
    }
    let kinds: Vec<&str> =
        (1..=18).map(|i| if i % 6 == 0 { "full_attention" } else { "sliding_attention" }).collect();
    new["layer_types"] = json!(kinds);
    new["rope_parameters"] = json!({
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}
    });
    let (old, new_spec) = (read(&embedding_270m()).unwrap().spec, read(&new).unwrap().spec);
    assert_eq!(new_spec.extras.sliding, old.extras.sliding);
    assert_eq!(new_spec.extras.rope_scaling, RopeScaling::Linear(8.0));
    let mut none = embedding_270m();
    none["sliding_window"] = json!(null);
    assert_eq!(read(&none).unwrap().spec.extras.sliding, None);
    let mut late = embedding_600m();
    (late["use_sliding_window"], late["sliding_window"], late["max_window_layers"]) =
        (json!(true), json!(1000), json!(20));
    let sliding = read(&late).unwrap().spec.extras.sliding.unwrap();
    assert_eq!((sliding.layers.iter().filter(|s| **s).count(), sliding.rope_theta), (8, 1e6));
    for (key, value, part) in [
        ("layer_types", json!(["full_attention"]), "layer_types"),
        ("layer_types", json!(vec!["chunked_attention"; 18]), "chunked_attention"),
        ("sliding_window", json!(0), "sliding_window"),
        ("query_pre_attn_scalar", json!(0), "query_pre_attn_scalar"),
        ("rope_local_base_freq", json!(0.5), "rope_local_base_freq"),
    ] {
        let mut bad = embedding_270m();
        bad[key] = value;
        let text = read(&bad).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}
