//! What is loaded is the model: logits against transformers, the same from every form of a model.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_formats::read_safetensors;
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::synth::{self, ShapePreset, SynthFormat, SynthOptions, Vocabulary};
use bitnet_model::{Batch, Executor, KvType, LoadedModel, LogitRows, Sequence};
use bitnet_quant::I2sLayout;
use support::{Gguf, load_path, testdata, vector};

fn logits(model: &LoadedModel, tokens: &[u32]) -> Vec<f32> {
    let mut executor = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::F32).unwrap();
    let count = tokens.len().div_ceil(executor.info().block_size);
    executor.reserve_blocks(count).unwrap();
    let blocks: Vec<u32> = (0..count as u32).collect();
    let sequence = Sequence { tokens, position: 0, blocks: &blocks, logits: LogitRows::All };
    let mut out = vec![0.0; tokens.len() * model.spec.vocab_size];
    executor.forward(&Batch { sequences: &[sequence] }, &mut out).unwrap();
    out
}

fn tokens() -> Vec<u32> {
    let text = std::fs::read(testdata("vectors/reference.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    json["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

/// Logits of transformers in f32.
fn expected(name: &str) -> Vec<f32> {
    let view = ByteView::map_file(&testdata("vectors").join(name).join("reference.safetensors")).unwrap();
    let set = read_safetensors(view, name).unwrap().tensors;
    let bytes = set.get("logits_f32").unwrap().data.clone();
    let mut values = vec![0.0; bytes.len() / 4];
    DType::F32.decode(bytes.as_slice(), &mut values);
    values
}

fn relative_error(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut theirs.iter().map(|&v| f64::from(v)))
}

#[test]
fn reference_vectors_give_the_logits_of_transformers() {
    let tokens = tokens();
    for name in ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"]
    {
        let error = relative_error(&logits(&vector(name), &tokens), &expected(name));
        assert!(error < 2e-3, "{name}: {error}");
    }
}

#[test]
fn gguf_gives_the_logits_of_the_folder() {
    let tokens = tokens();
    for (name, arch) in [("tiny-bitnet-packed", "bitnet-b1.58"), ("tiny-llama-bitlinear", "llama")] {
        let folder = vector(name);
        let gguf = Gguf::of(&folder, arch, I2sLayout::Group128).load().unwrap();
        assert_eq!(logits(&gguf, &tokens), logits(&folder, &tokens), "{name}");
    }
}

#[test]
fn synthetic_models_keep_their_activations_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let deep = bitnet_model::ModelSpec { num_layers: 30, ..ShapePreset::Tiny.spec() };
    let llama = bitnet_model::ModelSpec {
        sub_norms: false,
        activation: bitnet_model::Activation::Silu,
        ..deep.clone()
    };
    for (i, spec) in [deep, llama].into_iter().enumerate() {
        let out = dir.path().join(i.to_string());
        let options = SynthOptions {
            format: SynthFormat::SafetensorsPacked,
            vocabulary: Vocabulary::Dummy,
            seed: 5,
            overwrite: false,
        };
        synth::write(&out, &spec, &options, &mut |_, _| ()).unwrap();
        let values = logits(&load_path(&out).unwrap(), &[768, 3, 300, 301, 17, 500]);
        let deviation = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
        assert!((0.05..5.0).contains(&deviation), "standard deviation {deviation}");
    }
}
