//! Folders and files that hold no usable model: each gives one clear line.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use std::path::Path;

use bitnet_core::DType;
use bitnet_formats::StoredType;
use bitnet_model::LoadError;
use serde_json::json;
use support::{Folder, Tensor, load_path, vector};

fn error(path: &Path) -> String {
    let message = load_path(path).unwrap_err().to_string();
    assert!(!message.contains('\n') && message.len() < 600, "one readable line: {message}");
    message
}

fn folder_with(files: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for name in files {
        std::fs::write(dir.path().join(name), b"PK\x03\x04 whatever").unwrap();
    }
    let message = error(dir.path());
    assert!(message.starts_with(&dir.path().display().to_string()), "{message}");
    message
}

#[test]
fn paths_without_a_model() {
    let missing = Path::new("/no/such/model");
    assert!(matches!(load_path(missing), Err(LoadError::NotFound { .. })));
    assert!(error(missing).contains("/no/such/model: no such file or folder"));
    assert!(folder_with(&[]).contains("holds no files; expected config.json with *.safetensors"));
    assert!(folder_with(&["config.json", "pytorch_model.bin"]).contains("not a PyTorch file"));
    assert!(folder_with(&["model.pt"]).contains("not a PyTorch file"));
    assert!(folder_with(&["a.pt", "b.bin"]).contains("several models (a.pt, b.bin)"));
    assert!(folder_with(&["training_args.bin", "optimizer.pt"]).contains("2 files"));
    assert!(
        folder_with(&["pytorch_model-00001-of-00002.bin", "x.bin"]).contains("pytorch_model.bin.index.json")
    );
    assert!(folder_with(&["model.onnx"]).contains("ONNX"));
    assert!(folder_with(&["README.md"]).contains("only README.md"));
    assert!(folder_with(&["README.md", "config.json"]).contains("2 files"));
    assert!(folder_with(&["a.gguf", "b.gguf"]).contains("several models (a.gguf, b.gguf)"));
    assert!(folder_with(&["a.safetensors", "b.safetensors"]).contains("several models"));
}

#[test]
fn files_that_are_something_else() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, part) in [
        ("a.gguf", &b""[..], "empty"),
        ("b.safetensors", b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "Git LFS pointer"),
        ("c.safetensors", b"<!DOCTYPE html><html>", "web page"),
        ("d.gguf", b"hello, this is no model", "GGUF"),
        ("e.txt", b"hello, this is no model", "safetensors"),
        ("f.bin", b"PK\x03\x04........archive/data.pkl", "incomplete"),
        ("h.pt", b"hello, this is no model", "not a PyTorch file"),
        ("g.gguf", b"GGUF\x03\0\0\0", "g.gguf"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let message = error(&path);
        assert!(message.contains(name) && message.contains(part), "{message}");
    }
}

#[test]
fn missing_and_damaged_configuration() {
    let folder = Folder::vector("tiny-bitnet-packed");
    let dir = tempfile::tempdir().unwrap();
    folder.write(dir.path());
    let config = dir.path().join("config.json");
    std::fs::remove_file(&config).unwrap();
    assert!(error(dir.path()).contains("config.json is missing"));
    std::fs::write(&config, "{\"architectures\": [").unwrap();
    assert!(error(dir.path()).contains("config.json is not valid JSON"));
    std::fs::write(&config, "[".repeat(200_000)).unwrap();
    assert!(error(dir.path()).contains("config.json is not valid JSON"));
    std::fs::write(&config, "{}").unwrap();
    assert!(error(dir.path()).contains("architectures is missing"));
    std::fs::write(&config, folder.config.to_string()).unwrap();
    std::fs::write(dir.path().join("generation_config.json"), "{\"top_p\": 7}").unwrap();
    assert!(error(dir.path()).contains("generation_config.json: top_p is 7"));
    std::fs::write(dir.path().join("generation_config.json"), "{}").unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), "{\"bos_token\": 1}").unwrap();
    assert!(error(dir.path()).contains("tokenizer_config.json: bos_token"));
    std::fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    assert!(error(dir.path()).contains("tokenizer.json"));
}

#[test]
fn tensors_that_do_not_fit_are_named_with_both_shapes() {
    let base = Folder::vector("tiny-bitnet-packed");
    let with = |name: &str, tensor: Tensor| {
        let mut folder = base.clone();
        folder.tensors.insert(name.to_owned(), tensor);
        folder.error()
    };
    let message = with("model.layers.1.mlp.up_proj.weight", Tensor::zeros(StoredType::U8, &[128, 255]));
    assert!(
        message.contains("model.layers.1.mlp.up_proj.weight has the shape [128, 255], expected [128, 256]"),
        "{message}"
    );
    let message = with("model.norm.weight", Tensor::zeros(StoredType::BF16, &[128]));
    assert!(message.contains("model.norm.weight has the shape [128], expected [256]"), "{message}");
    let message = with("model.embed_tokens.weight", Tensor::zeros(StoredType::I8, &[512, 256]));
    assert!(message.contains("model.embed_tokens.weight of type i8 is not supported"), "{message}");
    let message = with("model.layers.0.mlp.up_proj.weight", Tensor::zeros(StoredType::I8, &[128, 256]));
    assert!(message.contains("up_proj.weight of type i8 is not supported"), "{message}");
    let message = with("model.layers.0.self_attn.q_proj.bias", Tensor::zeros(StoredType::BF16, &[256]));
    assert!(message.contains("tensor model.layers.0.self_attn.q_proj.bias is not supported"), "{message}");
    let message = with("model.layers.0.self_attn.q_norm.weight", Tensor::zeros(StoredType::BF16, &[64]));
    assert!(message.contains("q_norm.weight is not supported"), "{message}");
    let message = with("model.layers.2.input_layernorm.weight", Tensor::zeros(StoredType::BF16, &[256]));
    assert!(message.contains("model.layers.2.input_layernorm.weight"), "{message}");
    for (value, name) in [(f32::NAN, "weight_scale holds NaN"), (f32::INFINITY, "weight_scale holds inf")] {
        let scale = Tensor::new(StoredType::F32, &[1], value.to_le_bytes().to_vec());
        let message = with("model.layers.0.mlp.up_proj.weight_scale", scale);
        assert!(message.contains(name), "{message}");
    }
    let zero = Tensor::zeros(StoredType::F32, &[1]);
    assert!(with("model.layers.0.mlp.up_proj.weight_scale", zero).contains("not a positive number"));
    let two = Tensor::zeros(StoredType::F32, &[2]);
    assert!(with("model.layers.0.mlp.up_proj.weight_scale", two).contains("[2], expected [1]"));
    let nan = Tensor::new(StoredType::F32, &[256], DType::F32.encode(&[f32::NAN; 256]));
    assert!(with("model.layers.0.input_layernorm.weight", nan).contains("holds NaN"));
}

#[test]
fn missing_tensors_are_named() {
    let base = Folder::vector("tiny-bitnet-packed");
    for name in [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.1.self_attn.k_proj.weight_scale",
        "model.layers.0.self_attn.attn_sub_norm.weight",
        "model.layers.1.mlp.ffn_sub_norm.weight",
    ] {
        let mut folder = base.clone();
        folder.tensors.remove(name).unwrap();
        let message = folder.error();
        assert!(message.contains(&format!("{name} is missing")), "{message}");
    }
}

#[test]
fn masters_that_are_not_numbers() {
    let mut folder = Folder::vector("tiny-bitnet-bf16");
    let down = folder.tensors.get_mut("model.layers.1.mlp.down_proj.weight").unwrap();
    down.bytes[20..22].copy_from_slice(&DType::BF16.encode(&[f32::INFINITY]));
    let message = folder.error();
    assert!(message.contains("down_proj.weight: master weight 10 is inf"), "{message}");
}

#[test]
fn rows_that_cannot_be_packed() {
    let mut folder = Folder::vector("tiny-bitnet-packed");
    folder.config["intermediate_size"] = json!(510);
    let norm = Tensor::zeros(StoredType::BF16, &[510]);
    folder.tensors.insert("model.layers.0.mlp.ffn_sub_norm.weight".to_owned(), norm);
    let message = folder.error();
    assert!(
        message.contains("gate_proj.weight") && message.contains("[510, 256]: the number of rows"),
        "{message}"
    );
}

#[test]
fn dead_units_are_no_damage() {
    // Layers of the real model have norms of about 1e-32.
    let mut folder = Folder::vector("tiny-bitnet-packed");
    let tiny = Tensor::new(StoredType::BF16, &[512], DType::BF16.encode(&[1e-32; 512]));
    folder.tensors.insert("model.layers.0.mlp.ffn_sub_norm.weight".to_owned(), tiny);
    let norm = folder.load().unwrap().weights.layers[0].ffn_sub_norm.clone().unwrap();
    assert!(norm.iter().all(|&v| v > 0.0));
    assert_ne!(Some(norm), vector("tiny-bitnet-packed").weights.layers[0].ffn_sub_norm);
}
