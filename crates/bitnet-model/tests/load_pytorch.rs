//! PyTorch checkpoints as models: Hugging Face folders, training checkpoints, and those of microsoft/BitNet's GPU programs.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use bitnet_core::DType;
use bitnet_formats::StoredType;
use bitnet_model::{Activation, LoadError, LoadedModel};
use bitnet_quant::TritCodec;
use bitnet_text::EncodeOptions;
use serde_json::json;
use support::checkpoints::{Scale, converted, first_bitnet, torch_scale};
use support::{Folder, Tensor, load_path, scales, testdata, torch, trits, vector, write_safetensors};

/// Writes a folder with its weights as this PyTorch file.
fn write(folder: &Folder, dir: &Path, name: &str) {
    std::fs::write(dir.join("config.json"), folder.config.to_string()).unwrap();
    std::fs::write(dir.join(name), torch::archive(folder.tensors.iter())).unwrap();
    for (name, content) in &folder.files {
        std::fs::write(dir.join(name), content).unwrap();
    }
}

fn same(found: &LoadedModel, wanted: &LoadedModel) {
    assert_eq!(trits(found), trits(wanted));
    assert_eq!(scales(found), scales(wanted));
    assert_eq!(found.spec.sub_norms, wanted.spec.sub_norms);
    assert_eq!(found.weights.final_norm, wanted.weights.final_norm);
    assert_eq!(found.weights.embedding.data().as_slice(), wanted.weights.embedding.data().as_slice());
    for (found, wanted) in found.weights.layers.iter().zip(&wanted.weights.layers) {
        assert_eq!((&found.attn_norm, &found.ffn_norm), (&wanted.attn_norm, &wanted.ffn_norm));
        assert_eq!(
            (&found.attn_sub_norm, &found.ffn_sub_norm),
            (&wanted.attn_sub_norm, &wanted.ffn_sub_norm)
        );
    }
}

#[test]
fn every_reference_vector_loads_from_a_pytorch_file() {
    for (name, format) in [
        ("tiny-bitnet-packed", "PyTorch, packed (autobitlinear)"),
        ("tiny-bitnet-bf16", "PyTorch, bf16 masters"),
        ("tiny-llama-bitlinear", "PyTorch, packed (bitlinear)"),
    ] {
        let (folder, dir) = (Folder::vector(name), tempfile::tempdir().unwrap());
        write(&folder, dir.path(), "pytorch_model.bin");
        let model = load_path(dir.path()).unwrap();
        assert_eq!(model.format, format);
        assert!(model.warnings.is_empty(), "{:?}", model.warnings);
        same(&model, &vector(name));
        // By the name of the file, with the configuration beside it.
        same(&load_path(&dir.path().join("pytorch_model.bin")).unwrap(), &model);
    }
}

#[test]
fn safetensors_go_first_where_both_are() {
    let (folder, dir) = (Folder::vector("tiny-bitnet-packed"), tempfile::tempdir().unwrap());
    folder.write(dir.path());
    std::fs::write(dir.path().join("pytorch_model.bin"), b"nothing that could be read").unwrap();
    assert!(load_path(dir.path()).unwrap().format.starts_with("safetensors"));
}

#[test]
fn training_checkpoints_load_with_a_word_about_what_is_left_out() {
    let (folder, dir) = (Folder::vector("tiny-bitnet-bf16"), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("config.json"), folder.config.to_string()).unwrap();
    let path = dir.path().join("step-1000.pt");
    std::fs::write(&path, torch::checkpoint(folder.tensors.iter())).unwrap();
    let model = load_path(&path).unwrap();
    same(&model, &vector("tiny-bitnet-bf16"));
    assert!(
        model.warnings[0].contains("step-1000.pt") && model.warnings[0].contains("not epoch"),
        "{:?}",
        model.warnings
    );
    // The only file of weights of a folder needs no special name.
    same(&load_path(dir.path()).unwrap(), &model);
}

#[test]
fn several_files_with_their_index() {
    let (folder, dir) = (Folder::vector("tiny-bitnet-packed"), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("config.json"), folder.config.to_string()).unwrap();
    let half = folder.tensors.len() / 2;
    let mut map = BTreeMap::new();
    for (name, part) in [("pytorch_model-00001-of-00002.bin", 0), ("pytorch_model-00002-of-00002.bin", 1)] {
        let part = folder
            .tensors
            .iter()
            .enumerate()
            .filter(|(i, _)| usize::from(*i >= half) == part)
            .map(|(_, t)| t);
        map.extend(part.clone().map(|(tensor, _)| (tensor.clone(), name)));
        std::fs::write(at(name), torch::archive(part)).unwrap();
    }
    let missing = load_path(dir.path()).unwrap_err();
    assert!(missing.to_string().contains("pytorch_model.bin.index.json is missing"), "{missing}");
    std::fs::write(at("pytorch_model.bin.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    let model = load_path(dir.path()).unwrap();
    assert!(model.format.starts_with("PyTorch"));
    same(&model, &vector("tiny-bitnet-packed"));
    same(&load_path(&at("pytorch_model-00002-of-00002.bin")).unwrap(), &model);
    std::fs::remove_file(at("pytorch_model-00002-of-00002.bin")).unwrap();
    assert!(matches!(load_path(dir.path()), Err(LoadError::MissingFile { .. })));
}

#[test]
fn a_file_that_would_run_something_is_refused() {
    let path = testdata("pytorch/module.pt");
    let message = load_path(&path).unwrap_err().to_string();
    assert!(
        message.contains("torch.nn.modules.container.Sequential") && message.contains("nothing was run"),
        "{message}"
    );
}

#[test]
fn models_of_the_first_reproductions_load_with_masters_of_any_type() {
    let folder = first_bitnet();
    let wanted = trits(&vector("tiny-bitnet-bf16"));
    for (stored, dtype) in [(StoredType::BF16, DType::BF16), (StoredType::F32, DType::F32)] {
        let (mut other, dir) = (folder.clone(), tempfile::tempdir().unwrap());
        for tensor in other.tensors.values_mut() {
            *tensor = converted(tensor, DType::BF16, dtype, stored);
        }
        write(&other, dir.path(), "pytorch_model.bin");
        let model = load_path(dir.path()).unwrap();
        assert_eq!(model.format, format!("PyTorch, {stored} masters"));
        assert_eq!((model.spec.activation, model.spec.sub_norms), (Activation::Silu, true));
        assert!(model.spec.tied_output && model.weights.output.is_none());
        assert_eq!(trits(&model), wanted, "{stored}");
        let tokenizer = model.require_tokenizer().unwrap();
        assert_eq!(tokenizer.vocab_size(), 1502);
        assert!(tokenizer.is_special(1500) && !tokenizer.is_special(1501));
        let ids = tokenizer.encode("Once upon a time", EncodeOptions::PROMPT).unwrap();
        assert_eq!((ids[0], tokenizer.decode(&ids, true).as_str()), (1, "Once upon a time"));
        assert_eq!((model.generation.bos, &model.generation.stop_tokens[..]), (Some(1), &[2][..]));
        assert!(model.chat_template.is_none() && model.warnings.is_empty(), "{:?}", model.warnings);
    }
}

#[test]
fn checkpoints_of_gpu_programs_load() {
    let model = vector("tiny-bitnet-packed");
    let config = Folder::vector("tiny-bitnet-packed").config.to_string();
    for (form, name, format) in [
        (Scale::Tiles, "model_state_int2.pt", "PyTorch, int2 tiles"),
        (Scale::TernaryBf16, "model_state_fp16.pt", "PyTorch, bf16 masters"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let tensors = torch_scale(&model, form);
        std::fs::write(dir.path().join(name), torch::archive(tensors.iter())).unwrap();
        let message = load_path(&dir.path().join(name)).unwrap_err().to_string();
        assert!(
            message.contains("hidden size 256") && message.contains("config.json beside it"),
            "{message}"
        );
        std::fs::write(dir.path().join("config.json"), &config).unwrap();
        let found = load_path(dir.path()).unwrap();
        assert_eq!(found.format, format);
        assert!(found.spec.tied_output && found.warnings.is_empty(), "{:?}", found.warnings);
        same(&found, &model);
        let codec = found.weights.layers[0].k.codec();
        assert_eq!(codec == TritCodec::Int2Tiles, form == Scale::Tiles);
    }
}

#[test]
fn damaged_checkpoints_of_gpu_programs_are_refused_by_tensor() {
    let model = vector("tiny-bitnet-packed");
    let mut folder = Folder::vector("tiny-bitnet-packed");
    folder.tensors = torch_scale(&model, Scale::Tiles);
    let error = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let (mut folder, dir) = (folder.clone(), tempfile::tempdir().unwrap());
        change(&mut folder.tensors);
        write_safetensors(&dir.path().join("model.safetensors"), folder.tensors.iter());
        std::fs::write(dir.path().join("config.json"), folder.config.to_string()).unwrap();
        load_path(dir.path()).unwrap_err().to_string()
    };
    let name = "layers.1.attention.wqkv.weight";
    let message = error(&|tensors| drop(tensors.remove("layers.1.attention.wqkv.weight_scale")));
    assert!(message.contains("layers.1.attention.wqkv.weight_scale is missing"), "{message}");
    let short = Tensor::zeros(StoredType::I8, &[496, 64]);
    let message = error(&|tensors| drop(tensors.insert(name.to_owned(), short.clone())));
    assert!(message.contains(name) && message.contains("[496, 64], expected [512, 64]"), "{message}");
    let other = Tensor::zeros(StoredType::U8, &[512, 64]);
    let message = error(&|tensors| drop(tensors.insert(name.to_owned(), other.clone())));
    assert!(message.contains(name) && message.contains("u8 is not supported"), "{message}");
}
