//! Hugging Face folders: every published form, and the traps of each.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use std::collections::BTreeMap;

use bitnet_core::bytes::ByteView;
use bitnet_core::{DType, DenseType};
use bitnet_formats::StoredType;
use bitnet_model::{Activation, LoadError, LoadOptions, ModelSource, load};
use bitnet_quant::TritCodec;
use serde_json::json;
use support::{
    Folder, LAYER_PROJECTIONS, Tensor, bundled, load_path, scales, testdata, trits, vector, write_safetensors,
};

fn first_scale(folder: &Folder) -> f32 {
    let bytes = &folder.tensors["model.layers.0.self_attn.q_proj.weight_scale"].bytes;
    let mut value = [0.0];
    DType::BF16.decode(bytes, &mut value);
    value[0]
}

#[test]
fn bundled_model_loads_from_disk_and_from_memory() {
    let disk = load_path(&bundled("")).unwrap();
    let files = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let files = files.map(|name| (name.to_owned(), ByteView::map_file(&bundled(name)).unwrap()));
    let source = ModelSource::Memory { name: "bitnet-tiny".to_owned(), files: files.into() };
    let memory = load(&source, &LoadOptions::default()).unwrap();
    for model in [&disk, &memory] {
        assert_eq!(model.format, "safetensors, packed (autobitlinear)");
        assert_eq!((model.spec.num_layers, model.spec.head_dim, model.spec.vocab_size), (10, 64, 8192));
        assert!(model.spec.sub_norms && model.spec.tied_output && model.weights.output.is_none());
        assert_eq!(model.generation.stop_tokens, [8185, 8186]);
        assert_eq!(model.generation.bos, Some(8184));
        assert_eq!(model.generation.temperature, Some(0.7));
        assert_eq!(model.require_tokenizer().unwrap().vocab_size(), 8192);
        assert!(model.chat_template.is_some());
        assert_eq!(model.warnings, Vec::<String>::new());
        assert_eq!(model.tensors.len(), 182);
        assert_eq!(model.file_bytes, 16_335_100);
    }
    assert_eq!((disk.name.as_str(), memory.name.as_str()), ("model", "bitnet-tiny"));
    assert_eq!(trits(&disk), trits(&memory));
}

#[test]
fn all_reference_vectors_load() {
    let packed = vector("tiny-bitnet-packed");
    assert_eq!(packed.spec.activation, Activation::Relu2);
    assert!(packed.spec.sub_norms && packed.spec.tied_output);
    let masters = vector("tiny-bitnet-bf16");
    assert_eq!(masters.format, "safetensors, bf16 masters");
    let llama = vector("tiny-llama-bitlinear");
    assert_eq!(llama.format, "safetensors, packed (bitlinear)");
    assert_eq!(llama.spec.activation, Activation::Silu);
    assert!(!llama.spec.sub_norms && !llama.spec.tied_output && llama.weights.output.is_some());
    assert_eq!(llama.weights.layers[0].attn_sub_norm, None);
    assert_eq!((llama.spec.num_heads, llama.spec.num_kv_heads), (2, 1));
}

#[test]
fn scale_multiplies_for_autobitlinear_and_divides_for_bitlinear() {
    let multiply = Folder::vector("tiny-bitnet-packed");
    assert_eq!(scales(&multiply.load().unwrap())[0], first_scale(&multiply));
    let divide = Folder::vector("tiny-llama-bitlinear");
    assert_eq!(scales(&divide.load().unwrap())[0], 1.0 / first_scale(&divide));
    // The class of the model does not matter, only the class of its linear layers; missing means bitlinear.
    let mut other = multiply.clone();
    other.config["quantization_config"] = json!({"quant_method": "bitnet"});
    assert_eq!(scales(&other.load().unwrap())[0], 1.0 / first_scale(&multiply));
    other.config["quantization_config"] = json!(null);
    assert!(other.error().contains("linear_class tells whether weight_scale multiplies"));
}

#[test]
fn a_byte_holds_four_row_blocks_and_not_four_neighbours() {
    let mut folder = Folder::vector("tiny-bitnet-packed");
    let q = folder.tensors.get_mut("model.layers.0.self_attn.q_proj.weight").unwrap();
    q.bytes[3] = 0b10_00_01_00; // column 3 of rows 0, 64, 128, 192: -1, 0, -1, +1
    let model = folder.load().unwrap();
    let all = trits(&model);
    let column: Vec<i8> = [0, 64, 128, 192].map(|row| all[0].1[row * 256 + 3]).into();
    assert_eq!((all[0].0.as_str(), column), ("0.q", vec![-1, 0, -1, 1]));
}

#[test]
fn masters_and_packed_weights_give_the_same_trits() {
    let (masters, packed) = (vector("tiny-bitnet-bf16"), vector("tiny-bitnet-bf16-packed"));
    assert_eq!(trits(&masters), trits(&packed));
    for (a, b) in scales(&masters).into_iter().zip(scales(&packed)) {
        assert!((a / b - 1.0).abs() < 0.004, "bf16 keeps eight bits of the scale: {a} {b}");
    }
}

#[test]
fn masters_are_told_by_the_tensors_and_not_by_the_mode() {
    let mut folder = Folder::vector("tiny-bitnet-bf16");
    folder.config["quantization_config"]["quantization_mode"] = json!("offline");
    assert_eq!(trits(&folder.load().unwrap()), trits(&vector("tiny-bitnet-bf16")));
    let mut folder = Folder::vector("tiny-bitnet-packed");
    folder.config["quantization_config"]["quantization_mode"] = json!("online");
    assert_eq!(trits(&folder.load().unwrap()), trits(&vector("tiny-bitnet-packed")));
}

/// Float weights `{-0.75, 0, 0.75}` in place of the packed ones.
fn unpacked(name: &str, dtype: DType, stored: StoredType, value: f32) -> Folder {
    let mut folder = Folder::vector(name);
    let model = folder.load().unwrap();
    for (layer, weights) in model.weights.layers.iter().enumerate() {
        for (part, (_, matrix)) in LAYER_PROJECTIONS.iter().zip(weights.projections()) {
            let floats: Vec<f32> = matrix.to_trits().unwrap().iter().map(|&t| f32::from(t) * value).collect();
            let name = format!("model.layers.{layer}.{part}.weight");
            let shape = [matrix.rows() as u64, matrix.cols() as u64];
            folder.tensors.insert(name.clone(), Tensor::new(stored, &shape, dtype.encode(&floats)));
            folder.tensors.remove(&format!("{name}_scale"));
        }
    }
    folder
}

#[test]
fn masters_that_are_ternary_already_keep_their_scale() {
    for (dtype, stored) in
        [(DType::BF16, StoredType::BF16), (DType::F16, StoredType::F16), (DType::F32, StoredType::F32)]
    {
        let model = unpacked("tiny-bitnet-packed", dtype, stored, 0.75).load().unwrap();
        assert!(scales(&model).iter().all(|&s| s == 0.75));
        assert_eq!(trits(&model), trits(&vector("tiny-bitnet-packed")));
        assert_eq!(model.format, format!("safetensors, {dtype} masters"));
    }
}

#[test]
fn ternary_floats_with_a_scale_of_their_own() {
    let mut folder = unpacked("tiny-bitnet-packed", DType::BF16, StoredType::BF16, 1.0);
    let name = "model.layers.0.self_attn.q_proj.weight_scale".to_owned();
    folder.tensors.insert(name.clone(), Tensor::new(StoredType::F32, &[1], 0.5f32.to_le_bytes().to_vec()));
    assert_eq!(scales(&folder.load().unwrap())[0], 0.5);
    folder.config["quantization_config"]["linear_class"] = json!("bitlinear");
    assert_eq!(scales(&folder.load().unwrap())[0], 2.0);
    let mut folder = Folder::vector("tiny-bitnet-bf16");
    folder.tensors.insert(name, Tensor::new(StoredType::F32, &[], 0.5f32.to_le_bytes().to_vec()));
    assert!(folder.error().contains("q_proj.weight with both float masters and a scale"));
}

#[test]
fn float_llama_without_bitnet_is_not_a_bitnet_model() {
    let mut folder = unpacked("tiny-llama-bitlinear", DType::BF16, StoredType::BF16, 0.25);
    folder.config["quantization_config"] = json!(null);
    assert_eq!(scales(&folder.load().unwrap())[0], 0.25);
    let down = folder.tensors.get_mut("model.layers.1.mlp.down_proj.weight").unwrap();
    down.bytes[..2].copy_from_slice(&DType::BF16.encode(&[0.1]));
    assert!(matches!(folder.load(), Err(LoadError::NotBitNet { .. })));
    assert!(folder.error().contains("model.layers.1.mlp.down_proj.weight"));
    folder.config["quantization_config"] = json!({"quant_method": "bitnet"});
    folder.load().unwrap();
}

#[test]
fn first_reproductions_with_their_names() {
    let mut folder = Folder::vector("tiny-bitnet-bf16");
    folder.rename("self_attn.attn_sub_norm", "self_attn.inner_attn_ln");
    folder.rename("mlp.ffn_sub_norm", "mlp.ffn_layernorm");
    folder.config["architectures"] = json!(["BitnetForCausalLM"]);
    folder.config["model_type"] = json!("llama");
    folder.config["hidden_act"] = json!("silu");
    folder.config["quantization_config"] = json!(null);
    let model = folder.load().unwrap();
    assert!(model.spec.sub_norms && model.spec.activation == Activation::Silu);
    assert_eq!(trits(&model), trits(&vector("tiny-bitnet-bf16")));
    assert_eq!(
        model.weights.layers[1].attn_sub_norm,
        vector("tiny-bitnet-bf16").weights.layers[1].attn_sub_norm
    );
}

#[test]
fn names_without_prefix() {
    let mut folder = Folder::vector("tiny-llama-bitlinear");
    folder.rename("model.", "");
    assert_eq!(trits(&folder.load().unwrap()), trits(&vector("tiny-llama-bitlinear")));
}

#[test]
fn output_is_tied_by_configuration_or_for_want_of_a_tensor() {
    let mut folder = Folder::vector("tiny-llama-bitlinear");
    folder.config["tie_word_embeddings"] = json!(true);
    let tied = folder.load().unwrap();
    assert!(tied.spec.tied_output && tied.weights.output.is_none());
    folder.config["tie_word_embeddings"] = json!(null);
    assert!(!folder.load().unwrap().spec.tied_output);
    folder.tensors.remove("lm_head.weight");
    let model = folder.load().unwrap();
    assert!(model.spec.tied_output && model.warnings.is_empty());
    folder.config["tie_word_embeddings"] = json!(false);
    let model = folder.load().unwrap();
    assert!(model.spec.tied_output && model.warnings[0].contains("tie_word_embeddings"));
}

#[test]
fn sharded_equals_single() {
    let folder = Folder::vector("tiny-bitnet-packed");
    let dir = tempfile::tempdir().unwrap();
    folder.write(dir.path());
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut map = BTreeMap::new();
    for (i, file) in names.iter().enumerate() {
        // Weight and scale of one projection may well be in different files.
        let part = folder.tensors.iter().enumerate().filter(|(n, _)| n % 2 == i).map(|(_, pair)| pair);
        map.extend(part.clone().map(|(name, _)| (name.clone(), file.to_string())));
        write_safetensors(&dir.path().join(file), part);
    }
    let missing = load_path(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("model.safetensors.index.json is missing"), "{missing}");
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let single = vector("tiny-bitnet-packed");
    for path in [dir.path().to_owned(), dir.path().join(names[1])] {
        let sharded = load_path(&path).unwrap();
        assert_eq!(trits(&sharded), trits(&single));
        assert_eq!(scales(&sharded), scales(&single));
        assert_eq!(sharded.weights.embedding.data().as_slice(), single.weights.embedding.data().as_slice());
    }
    std::fs::remove_file(dir.path().join(names[0])).unwrap();
    let missing = load_path(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("model-00001-of-00002.safetensors is missing"), "{missing}");
}

#[test]
fn a_safetensors_file_stands_for_its_folder() {
    let model = load_path(&testdata("vectors/tiny-bitnet-packed/model.safetensors")).unwrap();
    assert_eq!(trits(&model), trits(&vector("tiny-bitnet-packed")));
    assert_eq!(model.name, "tiny-bitnet-packed");
}

#[test]
fn explicit_head_dim() {
    let mut folder = Folder::vector("tiny-llama-bitlinear");
    folder.config["head_dim"] = json!(32);
    folder.config["num_attention_heads"] = json!(4);
    folder.config["num_key_value_heads"] = json!(2);
    let spec = folder.load().unwrap().spec;
    assert_eq!((spec.head_dim, spec.q_size(), spec.kv_size()), (32, 128, 64));
    folder.config["head_dim"] = json!(64);
    assert!(folder.error().contains("expected [64, 128]"), "{}", folder.error());
}

#[test]
fn tokenizer_config_decides_about_the_begin_token() {
    let mut folder = Folder::vector("tiny-bitnet-packed");
    folder.resize_vocabulary(8192);
    folder.config["eos_token_id"] = json!([3, 9000]);
    folder.file("tokenizer.json", std::fs::read(bundled("tokenizer.json")).unwrap());
    let model = folder.load().unwrap();
    // Named by the vocabulary: <|end_of_text|> and <|eot_id|>; 9000 does not exist.
    assert_eq!(model.generation.stop_tokens, [3, 8186, 8185]);
    assert!(model.warnings[0].contains("9000"));
    assert!(model.require_tokenizer().unwrap().adds_bos());
    assert!(model.chat_template.is_none());
    folder.file(
        "tokenizer_config.json",
        r#"{"add_bos_token": false, "eos_token": {"content": "<|reserved_special_token_1|>"}}"#,
    );
    let model = folder.load().unwrap();
    assert!(!model.require_tokenizer().unwrap().adds_bos());
    assert_eq!(model.generation.stop_tokens, [3, 8191, 8186, 8185]);
}

#[test]
fn templates_in_order_of_precedence() {
    let mut folder = Folder::vector("tiny-bitnet-packed");
    folder.file("tokenizer_config.json", r#"{"chat_template": "from tokenizer_config"}"#);
    let source = |folder: &Folder, options: &LoadOptions| {
        folder.load_with(options).unwrap().chat_template.unwrap().source().to_owned()
    };
    assert_eq!(source(&folder, &LoadOptions::default()), "from tokenizer_config");
    folder.file("chat_template.jinja", "from jinja");
    assert_eq!(source(&folder, &LoadOptions::default()), "from jinja");
    let options = LoadOptions { chat_template: Some("given".to_owned()), ..LoadOptions::default() };
    assert_eq!(source(&folder, &options), "given");
    folder.file("chat_template.jinja", "{% for x in %}");
    let model = folder.load().unwrap();
    assert!(model.chat_template.is_none() && model.warnings[0].contains("chat template cannot be used"));
    let options = LoadOptions { chat_template: Some("{% if".to_owned()), ..LoadOptions::default() };
    assert!(folder.load_with(&options).is_err());
}

#[test]
fn llama3_vocabulary_as_tiktoken_file_with_both_stop_tokens() {
    let mut folder = Folder::vector("tiny-bitnet-bf16");
    folder.resize_vocabulary(128_256);
    folder.config["bos_token_id"] = json!(128_000);
    folder.config["eos_token_id"] = json!(128_001);
    folder.file("tokenizer.model", std::fs::read(testdata("llama3-tokenizer.model")).unwrap());
    let model = folder.load().unwrap();
    assert_eq!(model.generation.stop_tokens, [128_001, 128_009]);
    assert_eq!(model.require_tokenizer().unwrap().token_id("<|eot_id|>"), Some(128_009));
    let template = model.chat_template.as_ref().unwrap().source();
    assert!(template.contains("Assistant: "), "the 2B-4T template is the default of its vocabulary");
    // The known-wrong template is replaced here as well.
    folder.file("chat_template.jinja", "Human: x\n\nBITNETAssistant: ");
    let model = folder.load().unwrap();
    assert!(!model.chat_template.unwrap().source().contains("BITNET"));
    assert!(model.warnings.iter().any(|w| w.contains("none is trained on")));
}

#[test]
fn sentencepiece_models_are_noted_and_a_tokenizer_can_be_given() {
    let mut folder = Folder::vector("tiny-bitnet-packed");
    folder.file("tokenizer.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02".to_vec());
    let model = folder.load().unwrap();
    assert!(model.tokenizer_note.as_deref().unwrap().contains("SentencePiece"));
    let message = model.require_tokenizer().unwrap_err().to_string();
    assert!(
        message.contains("SentencePiece")
            && message.contains("--tokenizer")
            && message.contains(&model.place)
    );
    let options = LoadOptions { tokenizer: Some(bundled("tokenizer.json")), ..LoadOptions::default() };
    let model = folder.load_with(&options).unwrap();
    assert!(model.tokenizer.is_some() && model.warnings[0].contains("8192"));
    let options = LoadOptions { tokenizer: Some("/no/such/tokenizer.json".into()), ..LoadOptions::default() };
    assert!(folder.load_with(&options).unwrap_err().to_string().contains("/no/such/tokenizer.json"));
}

#[test]
fn codecs_stay_those_of_the_file() {
    let codec = |name: &str| vector(name).weights.layers[0].q.codec();
    assert_eq!(codec("tiny-bitnet-packed"), TritCodec::HfPacked);
    assert!(matches!(
        codec("tiny-bitnet-bf16"),
        TritCodec::Dense { dtype: DenseType::Plain(DType::BF16), .. }
    ));
}
