//! Checkpoints of others as sources: PyTorch folders, 1bitLLM's and Microsoft's, with the small files beside them.

use std::path::Path;

use bitnet_convert::Target;
use serde_json::json;

use crate::made::checkpoints::{Scale, first_bitnet, torch_scale};
use crate::made::{Folder, torch};
use crate::support::{at, logits, open, ternary, to, vector};

/// Writes a folder with its weights as this PyTorch file.
fn write(folder: &Folder, dir: &Path, name: &str) {
    std::fs::create_dir(dir).unwrap();
    if !folder.config.is_null() {
        std::fs::write(dir.join("config.json"), folder.config.to_string()).unwrap();
    }
    std::fs::write(dir.join(name), torch::archive(folder.tensors.iter())).unwrap();
    for (name, content) in &folder.files {
        std::fs::write(dir.join(name), content).unwrap();
    }
}

/// Converts to every form that fits and compares what the models compute; scales of packed folders are bf16 already.
fn all_forms(source: &Path, out: &Path) {
    let original = open(source);
    let expected = logits(&original, &original.weights);
    for target in [Target::SafetensorsPacked, Target::SafetensorsBf16, Target::GgufI2s, Target::Onnx] {
        let place = out.join(target.name());
        let report = to(&at(source), &place, target).unwrap();
        let model = open(&place);
        assert!(ternary(&model).0 == ternary(&original).0, "{target}");
        // A GGUF file without a vocabulary names no tokens.
        if !target.is_gguf() || original.tokenizer.is_some() {
            assert_eq!(model.generation.stop_tokens, original.generation.stop_tokens, "{target}");
        }
        assert_eq!(model.tokenizer.is_some(), original.tokenizer.is_some(), "{target}");
        assert_eq!(report.verification.texts.is_some(), original.tokenizer.is_some(), "{target}");
        if report.verification.lossless {
            assert!(logits(&model, &model.weights) == expected, "{target}: bits of the logits");
        } else {
            assert!(!matches!(target, Target::GgufI2s | Target::Onnx), "{target}: {report:?}");
        }
    }
}

#[test]
fn folders_of_pytorch_files() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-llama-bitlinear"] {
        let (source, out) = (dir.path().join(name), dir.path().join(format!("{name} out")));
        let folder = Folder::vector(name);
        write(&folder, &source, "pytorch_model.bin");
        std::fs::write(source.join("generation_config.json"), json!({"eos_token_id": [7, 9]}).to_string())
            .unwrap();
        std::fs::write(source.join("LICENSE"), "as you like").unwrap();
        all_forms(&source, &out);
        let model = open(&source);
        assert!(ternary(&model) == ternary(&open(&vector(name))), "{name}");
        for target in [Target::SafetensorsPacked, Target::Onnx] {
            let license = std::fs::read_to_string(out.join(target.name()).join("LICENSE")).unwrap();
            assert_eq!(license, "as you like");
            assert!(
                open(&out.join(target.name())).generation.stop_tokens.ends_with(&[7, 9]),
                "{name} {target}"
            );
        }
    }
}

#[test]
fn the_first_reproductions_with_their_sentencepiece_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    write(&first_bitnet(), &source, "pytorch_model.bin");
    all_forms(&source, &out);
    let model = open(&out.join("onnx"));
    assert_eq!(model.tokenizer.unwrap().vocab_size(), 1502);
    assert!(out.join("safetensors-packed/tokenizer.json").is_file());
}

#[test]
fn checkpoints_of_gpu_programs() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(&vector("tiny-bitnet-packed"));
    for (form, name) in [(Scale::Tiles, "model_state_int2.pt"), (Scale::TernaryBf16, "model_state_fp16.pt")] {
        let (source, out) = (dir.path().join(name), dir.path().join(format!("{name} out")));
        let mut folder = Folder::vector("tiny-bitnet-packed");
        folder.tensors = torch_scale(&model, form);
        write(&folder, &source, name);
        all_forms(&source, &out);
        // The rows of query and key are back in their natural order.
        for target in [Target::GgufI2s, Target::Onnx] {
            assert!(ternary(&open(&out.join(target.name()))) == ternary(&model), "{name} {target}");
        }
    }
}
