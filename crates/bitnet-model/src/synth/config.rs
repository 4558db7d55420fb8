//! The configuration files and metadata of a synthetic model.

use bitnet_formats::{GgufArray, GgufValue};
use serde_json::{Value, json};

use super::preset::FIRST_BITNET;
use super::vocabulary::Vocab;
use super::{Result, SynthError, SynthFormat};
use crate::export::gguf_shape;
use crate::{Activation, ModelSpec};

/// Whether the shape can be written in the format at all.
pub(super) fn check(spec: &ModelSpec, format: SynthFormat) -> Result<()> {
    let refuse = |format, problem| Err(SynthError::Shape { format, problem });
    let widths = [
        ("hidden_size", spec.hidden_size),
        ("num_heads * head_dim", spec.q_size()),
        ("num_kv_heads * head_dim", spec.kv_size()),
        ("intermediate_size", spec.intermediate_size),
    ];
    let unfit = |unit: usize| widths.iter().find(|(_, width)| !width.is_multiple_of(unit));
    match format {
        SynthFormat::SafetensorsPacked => {
            if let Some((name, width)) = unfit(4) {
                return refuse("packed safetensors", format!("{name} = {width} is not a multiple of 4"));
            }
        }
        SynthFormat::SafetensorsBf16 => {}
        SynthFormat::GgufI2s => {
            let rows_only = |name: &&(&str, usize)| name.0 != "num_kv_heads * head_dim";
            if let Some((name, width)) = widths.iter().filter(rows_only).find(|(_, w)| !w.is_multiple_of(128))
            {
                return refuse("GGUF with I2_S", format!("{name} = {width} is not a multiple of 128"));
            }
            if architecture(spec).is_none() {
                let norms = if spec.sub_norms { "with" } else { "without" };
                let problem =
                    format!("no architecture name stands for {} {norms} sub-norms", spec.activation);
                return refuse("GGUF with I2_S", problem);
            }
        }
    }
    Ok(())
}

/// The families of models, which differ in what their files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// BitNet's own classes, with scales that multiply.
    BitNet,
    /// Llama shapes, with scales that divide.
    Llama,
    /// Embedding models, published as masters.
    Embedding,
}

impl Kind {
    /// The family of a shape.
    pub(super) fn of(spec: &ModelSpec) -> Self {
        match (spec.extras.projection_norms, spec.sub_norms) {
            (true, _) => Kind::Embedding,
            (false, true) => Kind::BitNet,
            (false, false) => Kind::Llama,
        }
    }
}

/// The GGUF architecture that stands for activation and norms.
fn architecture(spec: &ModelSpec) -> Option<&'static str> {
    let extras = &spec.extras;
    if extras.projection_norms && extras.head_norms {
        return match (spec.activation, extras.post_norms, extras.scaled_embedding) {
            (Activation::Silu, false, false) => Some("qwen3"),
            (Activation::Gelu, true, true) => Some("gemma3"),
            _ => None,
        };
    }
    match (spec.activation, spec.sub_norms) {
        (Activation::Relu2, true) => Some("bitnet-b1.58"),
        (Activation::Silu, true) if spec.vocab_size <= 100_000 => Some("bitnet"),
        (Activation::Silu, false) => Some("llama"),
        _ => None,
    }
}

/// `config.json`.
pub(super) fn config(spec: &ModelSpec, format: SynthFormat, vocab: &Vocab) -> Value {
    let kind = Kind::of(spec);
    let online = format == SynthFormat::SafetensorsBf16;
    let (class, model_type) = match kind {
        Kind::BitNet => ("BitNetForCausalLM", "bitnet"),
        Kind::Llama => ("LlamaForCausalLM", "llama"),
        Kind::Embedding if spec.extras.post_norms => ("Gemma3TextModel", "gemma3_text"),
        Kind::Embedding => ("Qwen3Model", "qwen3"),
    };
    let mut config = json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "hidden_act": hidden_act(spec),
        "max_position_embeddings": spec.context_length,
        // Through the shortest decimal form, so that 1e-5 does not become 9.99999974e-6.
        "rms_norm_eps": spec.rms_norm_eps.to_string().parse::<f64>().unwrap_or(1e-5),
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied_output,
        "bos_token_id": vocab.bos(),
        "eos_token_id": vocab.stops().first(),
        "torch_dtype": "bfloat16",
    });
    let mode = if online { "online" } else { "offline" };
    match kind {
        Kind::Llama if !online => config["quantization_config"] = json!({"quant_method": "bitnet"}),
        Kind::Embedding if online => {}
        _ => {
            config["quantization_config"] = json!({
                "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": mode
            });
        }
    }
    if spec.architecture == FIRST_BITNET {
        as_first_bitnet(&mut config, online);
    }
    if spec.extras.post_norms {
        add_gemma(&mut config, spec);
    }
    config
}

/// What the first reproductions say instead: the class is told by its name alone, and masters by nothing.
fn as_first_bitnet(config: &mut Value, online: bool) {
    config["architectures"] = json!([FIRST_BITNET]);
    config["model_type"] = json!("llama");
    config["weight_bits"] = json!(1);
    config["input_bits"] = json!(8);
    if online {
        config["quantization_config"] = Value::Null;
    }
}

/// What only Gemma 3 has.
fn add_gemma(config: &mut Value, spec: &ModelSpec) {
    config["hidden_activation"] = config["hidden_act"].take();
    config["query_pre_attn_scalar"] =
        json!(spec.extras.query_pre_attn_scalar.unwrap_or(spec.head_dim as f64));
    config["sliding_window"] = Value::Null;
    if let Some(sliding) = &spec.extras.sliding {
        let kind = |sliding: &bool| if *sliding { "sliding_attention" } else { "full_attention" };
        config["sliding_window"] = sliding.window.into();
        config["layer_types"] = sliding.layers.iter().map(kind).collect();
        config["rope_local_base_freq"] = sliding.rope_theta.into();
    }
}

/// Files of sentence-transformers that say how embeddings are made.
pub(super) fn embedding_files() -> [(&'static str, Value); 2] {
    let module = |index: usize, name: &str, path: &str| {
        json!({"idx": index, "name": index.to_string(), "path": path,
               "type": format!("sentence_transformers.models.{name}")})
    };
    let modules = json!([
        module(0, "Transformer", ""),
        module(1, "Pooling", "1_Pooling"),
        module(2, "Normalize", "2_Normalize")
    ]);
    let pooling = json!({"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false,
                         "pooling_mode_cls_token": false});
    [("modules.json", modules), ("1_Pooling/config.json", pooling)]
}

/// `generation_config.json`.
pub(super) fn generation_config(vocab: &Vocab) -> Value {
    json!({
        "bos_token_id": vocab.bos(), "eos_token_id": vocab.stops(),
        "do_sample": true, "temperature": 0.6, "top_p": 0.9
    })
}

/// `tokenizer_config.json`.
pub(super) fn tokenizer_config(spec: &ModelSpec, vocab: &Vocab) -> Value {
    let spelling = |id: Option<u32>| id.and_then(|id| vocab.tokens[id as usize].clone());
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": spelling(vocab.bos()),
        "eos_token": spelling(vocab.stops().first().copied()),
        "add_eos_token": Kind::of(spec) == Kind::Embedding,
        "chat_template": if Kind::of(spec) == Kind::Embedding { Value::Null } else { template().into() },
    })
}

fn template() -> String {
    bitnet_text::ChatTemplate::bitnet_2b().source().to_owned()
}

/// The metadata of a GGUF file.
///
/// # Errors
/// If GGUF cannot hold the vocabulary.
pub(super) fn metadata(spec: &ModelSpec, seed: u64, vocab: &Vocab) -> Result<Vec<(String, GgufValue)>> {
    let arch = architecture(spec).unwrap_or("bitnet-b1.58");
    let mut all = vec![
        ("general.architecture".to_owned(), GgufValue::String(arch.to_owned())),
        ("general.name".to_owned(), GgufValue::String(format!("synthetic {arch}, seed {seed}"))),
        ("general.file_type".to_owned(), GgufValue::U32(40)),
    ];
    all.extend(gguf_shape(spec, arch));
    if Kind::of(spec) == Kind::Embedding {
        // 3 is the state of the last token.
        all.push((format!("{arch}.pooling_type"), GgufValue::U32(3)));
    }
    if let Some(sliding) = &spec.extras.sliding {
        for (key, value) in [
            ("attention.sliding_window", GgufValue::U32(sliding.window as u32)),
            ("attention.sliding_window_pattern", GgufValue::Array(GgufArray::Bool(sliding.layers.clone()))),
            ("rope.freq_base_swa", GgufValue::F32(sliding.rope_theta as f32)),
        ] {
            all.push((format!("{arch}.{key}"), value));
        }
    }
    let count = spec.vocab_size;
    let token = |id: usize| vocab.tokens.get(id).cloned().flatten().unwrap_or_else(|| format!("[PAD{id}]"));
    let kind = |id: usize| match vocab.tokens.get(id) {
        _ if vocab.specials.binary_search(&(id as u32)).is_ok() => 3,
        Some(Some(_)) => 1,
        _ => 5,
    };
    let mut tokenizer = vec![
        ("model", GgufValue::String("gpt2".to_owned())),
        ("pre", GgufValue::String("llama-bpe".to_owned())),
        ("tokens", GgufValue::Array(GgufArray::Strings((0..count).map(token).collect()))),
        ("token_type", GgufValue::Array(GgufArray::I32((0..count).map(kind).collect()))),
        ("merges", GgufValue::Array(GgufArray::Strings(vocab.gguf_merges()?))),
        ("add_bos_token", GgufValue::Bool(vocab.bos().is_some())),
        ("add_eos_token", GgufValue::Bool(Kind::of(spec) == Kind::Embedding)),
    ];
    tokenizer.extend(vocab.bos().map(|id| ("bos_token_id", GgufValue::U32(id))));
    tokenizer.extend(vocab.stops().first().map(|&id| ("eos_token_id", GgufValue::U32(id))));
    all.extend(tokenizer.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)));
    if Kind::of(spec) != Kind::Embedding {
        all.push(("tokenizer.chat_template".to_owned(), GgufValue::String(template())));
    }
    Ok(all)
}

fn hidden_act(spec: &ModelSpec) -> &'static str {
    match spec.activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::Gelu => "gelu_pytorch_tanh",
    }
}
