//! The shape of a model as GGUF metadata.

use bitnet_formats::GgufValue;

use crate::ModelSpec;

/// Key and value of what every GGUF file tells of a model's shape, under the name of the architecture `arch`.
pub fn gguf_shape(spec: &ModelSpec, arch: &str) -> impl Iterator<Item = (String, GgufValue)> {
    let number = |n: usize| GgufValue::U32(n as u32);
    let shape = [
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
    ];
    shape.into_iter().map(move |(key, value)| (format!("{arch}.{key}"), value))
}
