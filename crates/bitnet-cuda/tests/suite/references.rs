//! Logits of the model files in `testdata/` beside the float32 reference of Hugging Face transformers, and those of the
//! bundled model beside the oracle's.

use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_formats::read_safetensors;
use bitnet_model::conformance::{Tolerance, compare, prefill};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{KvType, LoadOptions, ModelSource, load};

use crate::executor;

/// Relative 2-norm within which logits must be those of transformers.
const TOLERANCE: f32 = 2e-3;

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

#[test]
fn the_four_small_models() {
    if !testdata("vectors").exists() {
        // The test program was carried to a machine without the repository.
        println!("skipped: there is no {}", testdata("vectors").display());
        return;
    }
    let text = std::fs::read_to_string(testdata("vectors/reference.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tokens: Vec<u32> =
        index["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    for name in ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"]
    {
        let folder = testdata("vectors").join(name);
        let file = ByteView::map_file(&folder.join("reference.safetensors")).unwrap();
        let set = read_safetensors(file, "reference").unwrap().tensors;
        let bytes = set.get("logits_f32").unwrap().data.as_slice();
        let reference: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let model = load(&ModelSource::Path(folder), &LoadOptions::default()).unwrap();
        let mut cuda = executor(&model.spec, &model.weights, KvType::F32, "sm_80").unwrap();
        let got = prefill(&mut cuda, &tokens, &[7, 64]).unwrap();
        compare(name, Tolerance::Relative(TOLERANCE), &got, &reference, model.spec.vocab_size).unwrap();
    }
}

#[test]
fn the_bundled_model_has_the_bits_of_the_oracle() {
    let files =
        bitnet_tiny::files().into_iter().map(|(n, b)| (n.to_owned(), ByteView::from_static(b))).collect();
    let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
    let model = load(&source, &LoadOptions::default()).unwrap();
    let tokens: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % model.spec.vocab_size as u32).collect();
    let mut cuda = executor(&model.spec, &model.weights, KvType::F16, "sm_80").unwrap();
    let mut oracle = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::F16).unwrap();
    let got = prefill(&mut cuda, &tokens, &[1, 20]).unwrap();
    let want = prefill(&mut oracle, &tokens, &[24]).unwrap();
    compare("bitnet-tiny", Tolerance::Bits, &got, &want, model.spec.vocab_size).unwrap();
}
