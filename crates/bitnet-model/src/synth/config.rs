//! The configuration files and metadata of a synthetic model.

use bitnet_formats::{GgufArray, GgufValue};
use serde_json::{Value, json};

use super::vocabulary::Vocab;
use super::{Result, SynthError, SynthFormat};
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

/// The GGUF architecture that stands for activation and sub-norms.
fn architecture(spec: &ModelSpec) -> Option<&'static str> {
    match (spec.activation, spec.sub_norms) {
        (Activation::Relu2, true) => Some("bitnet-b1.58"),
        (Activation::Silu, true) if spec.vocab_size <= 100_000 => Some("bitnet"),
        (Activation::Silu, false) => Some("llama"),
        _ => None,
    }
}

/// `config.json`.
pub(super) fn config(spec: &ModelSpec, format: SynthFormat, vocab: &Vocab) -> Value {
    let llama = !spec.sub_norms;
    let online = format == SynthFormat::SafetensorsBf16;
    json!({
        "architectures": [if llama { "LlamaForCausalLM" } else { "BitNetForCausalLM" }],
        "model_type": if llama { "llama" } else { "bitnet" },
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
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": if online { "online" } else { "offline" }
        }
    })
}

/// `generation_config.json`.
pub(super) fn generation_config(vocab: &Vocab) -> Value {
    json!({
        "bos_token_id": vocab.bos(), "eos_token_id": vocab.stops(),
        "do_sample": true, "temperature": 0.6, "top_p": 0.9
    })
}

/// `tokenizer_config.json`.
pub(super) fn tokenizer_config(vocab: &Vocab) -> Value {
    let spelling = |id: Option<u32>| id.and_then(|id| vocab.tokens[id as usize].clone());
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": spelling(vocab.bos()),
        "eos_token": spelling(vocab.stops().first().copied()),
        "chat_template": template(),
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
    let number = |n: usize| GgufValue::U32(n as u32);
    let mut all = vec![
        ("general.architecture".to_owned(), GgufValue::String(arch.to_owned())),
        ("general.name".to_owned(), GgufValue::String(format!("synthetic {arch}, seed {seed}"))),
        ("general.file_type".to_owned(), GgufValue::U32(40)),
    ];
    for (key, value) in [
        ("vocab_size", number(spec.vocab_size)),
        ("context_length", number(spec.context_length)),
        ("embedding_length", number(spec.hidden_size)),
        ("feed_forward_length", number(spec.intermediate_size)),
        ("block_count", number(spec.num_layers)),
        ("attention.head_count", number(spec.num_heads)),
        ("attention.head_count_kv", number(spec.num_kv_heads)),
        ("attention.key_length", number(spec.head_dim)),
        ("attention.value_length", number(spec.head_dim)),
        ("attention.layer_norm_rms_epsilon", GgufValue::F32(spec.rms_norm_eps)),
        ("rope.dimension_count", number(spec.head_dim)),
        ("rope.freq_base", GgufValue::F32(spec.rope_theta as f32)),
    ] {
        all.push((format!("{arch}.{key}"), value));
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
    ];
    tokenizer.extend(vocab.bos().map(|id| ("bos_token_id", GgufValue::U32(id))));
    tokenizer.extend(vocab.stops().first().map(|&id| ("eos_token_id", GgufValue::U32(id))));
    all.extend(tokenizer.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)));
    all.push(("tokenizer.chat_template".to_owned(), GgufValue::String(template())));
    Ok(all)
}

fn hidden_act(spec: &ModelSpec) -> &'static str {
    match spec.activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::Gelu => "gelu_pytorch_tanh",
    }
}
