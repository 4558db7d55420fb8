//! The bundled files agree with each other: header, sizes, shapes, vocabulary and special tokens.

#![allow(clippy::unwrap_used)] // clippy exempts test functions, not the helpers beside them

use bitnet_tiny::{
    CONFIG_JSON, GENERATION_CONFIG_JSON, MODEL_SAFETENSORS, TOKENIZER_CONFIG_JSON, TOKENIZER_JSON,
    WEIGHTS_ALIGNMENT, files,
};
use serde_json::{Map, Value};

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("bundled JSON parses")
}

/// The tensor entries of the safetensors header, and where the data section begins.
fn header() -> (Map<String, Value>, usize) {
    let length = u64::from_le_bytes(MODEL_SAFETENSORS[..8].try_into().unwrap());
    let data_start = 8 + usize::try_from(length).unwrap();
    let Value::Object(mut entries) = json(&MODEL_SAFETENSORS[8..data_start]) else {
        panic!("the header is not a JSON object");
    };
    entries.remove("__metadata__");
    (entries, data_start)
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|n| usize::try_from(n.as_u64().unwrap()).unwrap()).collect()
}

fn config_number(name: &str) -> usize {
    usize::try_from(json(CONFIG_JSON)[name].as_u64().unwrap()).unwrap()
}

fn shape(entries: &Map<String, Value>, name: &str) -> Vec<usize> {
    numbers(&entries.get(name).unwrap_or_else(|| panic!("tensor {name} is missing"))["shape"])
}

#[test]
fn tensors_fill_the_data_section_without_gap_or_overlap() {
    let (entries, data_start) = header();
    let mut ranges = Vec::new();
    for (name, entry) in &entries {
        let element_size = match entry["dtype"].as_str().unwrap() {
            "U8" => 1,
            "BF16" => 2,
            other => panic!("{name} has the unexpected type {other}"),
        };
        let size = shape(&entries, name).iter().product::<usize>() * element_size;
        let offsets = numbers(&entry["data_offsets"]);
        assert_eq!(offsets[1] - offsets[0], size, "{name}");
        ranges.push((offsets[0], offsets[1]));
    }
    ranges.sort_unstable();
    let mut end = 0;
    for (begin, next) in ranges {
        assert_eq!(begin, end);
        end = next;
    }
    assert_eq!(data_start + end, MODEL_SAFETENSORS.len());
}

#[test]
fn weights_can_be_read_in_place() {
    let (_, data_start) = header();
    assert_eq!(MODEL_SAFETENSORS.as_ptr().addr() % WEIGHTS_ALIGNMENT, 0);
    assert_eq!(data_start % 8, 0);
}

#[test]
fn tensor_shapes_follow_the_configuration() {
    let (entries, _) = header();
    let hidden = config_number("hidden_size");
    let ffn = config_number("intermediate_size");
    let head_dim = hidden / config_number("num_attention_heads");
    let kv = config_number("num_key_value_heads") * head_dim;
    let layers = config_number("num_hidden_layers");
    // (projection, output rows, input columns); four output rows share a byte row.
    let projections = [
        ("self_attn.q_proj", hidden, hidden),
        ("self_attn.k_proj", kv, hidden),
        ("self_attn.v_proj", kv, hidden),
        ("self_attn.o_proj", hidden, hidden),
        ("mlp.gate_proj", ffn, hidden),
        ("mlp.up_proj", ffn, hidden),
        ("mlp.down_proj", hidden, ffn),
    ];
    let norms = [
        ("input_layernorm", hidden),
        ("post_attention_layernorm", hidden),
        ("self_attn.attn_sub_norm", hidden),
        ("mlp.ffn_sub_norm", ffn),
    ];
    for layer in 0..layers {
        for (projection, rows, columns) in projections {
            let name = format!("model.layers.{layer}.{projection}");
            assert_eq!(shape(&entries, &format!("{name}.weight")), [rows / 4, columns], "{name}");
            assert_eq!(shape(&entries, &format!("{name}.weight_scale")), [1], "{name}");
        }
        for (norm, width) in norms {
            let name = format!("model.layers.{layer}.{norm}.weight");
            assert_eq!(shape(&entries, &name), [width], "{name}");
        }
    }
    assert_eq!(shape(&entries, "model.embed_tokens.weight"), [config_number("vocab_size"), hidden]);
    assert_eq!(shape(&entries, "model.norm.weight"), [hidden]);
    // The output layer is tied to the embeddings, so nothing else is stored.
    let per_layer = 2 * projections.len() + norms.len();
    assert_eq!(entries.len(), layers * per_layer + 2);
}

#[test]
fn tokenizer_covers_the_vocabulary_and_names_the_stop_tokens() {
    let tokenizer = json(TOKENIZER_JSON);
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let mut ids: Vec<u64> = vocabulary.values().map(|id| id.as_u64().unwrap()).collect();
    ids.extend(added.iter().map(|token| token["id"].as_u64().unwrap()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), config_number("vocab_size"));
    assert_eq!(ids.last(), Some(&(config_number("vocab_size") as u64 - 1)));

    let content_of = |id: usize| {
        added.iter().find(|token| token["id"].as_u64() == Some(id as u64)).unwrap()["content"].clone()
    };
    assert_eq!(content_of(config_number("bos_token_id")), "<|begin_of_text|>");
    let stops = numbers(&json(GENERATION_CONFIG_JSON)["eos_token_id"]);
    let stops: Vec<Value> = stops.into_iter().map(content_of).collect();
    assert_eq!(stops, ["<|end_of_text|>", "<|eot_id|>"]);
    assert!(json(TOKENIZER_CONFIG_JSON)["chat_template"].is_string());
}

#[test]
fn file_list_is_the_model_directory() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/model");
    let mut on_disk: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    on_disk.sort_unstable();
    assert_eq!(files().map(|(name, _)| name.to_owned()).to_vec(), on_disk);
    for (name, bytes) in files() {
        assert_eq!(bytes.len() as u64, std::fs::metadata(format!("{directory}/{name}")).unwrap().len());
    }
}
