//! The embedding architectures beside Hugging Face transformers in float32 (`interop/embedding_reference.py`).
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_cpu::{CpuExecutor, CpuOptions};
use bitnet_formats::{TensorSet, read_safetensors};
use bitnet_model::conformance::{Tolerance, compare, prefill, relative_error};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{
    Batch, Executor, KvType, LoadOptions, LoadedModel, LogitRows, ModelSource, Sequence, load,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/vectors").join(name)
}

fn tensors(path: &Path) -> TensorSet {
    read_safetensors(ByteView::map_file(path).unwrap(), "reference").unwrap().tensors
}

fn floats(set: &TensorSet, name: &str) -> Vec<f32> {
    let bytes = set.get(name).unwrap().data.as_slice();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn hidden(executor: &mut dyn Executor, tokens: &[u32]) -> Vec<f32> {
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(executor.info().block_size) as u32).collect();
    executor.reserve_blocks(blocks.len()).unwrap();
    let sequence = Sequence { tokens, position: 0, blocks: &blocks, logits: LogitRows::All };
    let mut out = vec![0.0; tokens.len() * executor.spec().hidden_size];
    executor.forward_hidden(&Batch { sequences: &[sequence] }, &mut out).unwrap();
    out
}

fn check(name: &str) -> LoadedModel {
    let reference = tensors(&folder(name).join("reference.safetensors"));
    let tokens: Vec<u32> = reference
        .get("tokens")
        .unwrap()
        .data
        .as_slice()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
        .collect();
    let model = load(&ModelSource::Path(folder(name)), &LoadOptions::default()).unwrap();
    let mut oracle = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::F32).unwrap();
    let options = CpuOptions { threads: Some(2), kv_type: KvType::F32, ..CpuOptions::default() };
    let mut cpu = CpuExecutor::new(model.spec.clone(), &model.weights, &options, &mut |_, _| {}).unwrap();
    let states = hidden(&mut oracle, &tokens);
    compare(name, Tolerance::Bits, &hidden(&mut cpu, &tokens), &states, model.spec.hidden_size).unwrap();
    let logits = prefill(&mut oracle, &tokens, &[tokens.len()]).unwrap();
    for (got, want, width) in [
        (&states, floats(&reference, "hidden_f32"), model.spec.hidden_size),
        (&logits, floats(&reference, "logits_f32"), model.spec.vocab_size),
    ] {
        for (row, (got, want)) in got.chunks_exact(width).zip(want.chunks_exact(width)).enumerate() {
            let error = relative_error(got, want);
            assert!(error < 1e-5, "{name}: row {row} of {width} differs by {error:e}");
        }
    }
    model
}

#[test]
fn qwen3() {
    let model = check("tiny-qwen3-embedding");
    assert!(model.spec.extras.projection_norms && model.spec.extras.head_norms && model.spec.tied_output);
    assert_eq!(model.format, "safetensors, bf16 masters");
    assert_eq!(model.warnings, Vec::<String>::new());
}

#[test]
fn gemma3() {
    let model = check("tiny-gemma3-embedding");
    let sliding = model.spec.extras.sliding.as_ref().unwrap();
    assert_eq!((sliding.window, sliding.layers.as_slice()), (5, &[true, true, false][..]));
    assert_eq!(model.spec.extras.query_pre_attn_scalar, Some(40.0));
}
