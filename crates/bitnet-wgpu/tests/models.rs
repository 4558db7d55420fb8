//! Models with weights from elsewhere: beside transformers' logits, and the bundled model's text beside the CPU's.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_cpu::{CpuExecutor, CpuOptions};
use bitnet_formats::read_safetensors;
use bitnet_model::conformance::{Tolerance, compare, prefill};
use bitnet_model::{
    Batch, Executor, KvType, LoadOptions, LoadedModel, LogitRows, ModelSource, Sequence, TopLogits, load,
};
use bitnet_wgpu::WgpuOptions;

/// Relative 2-norm within which the logits of each row must lie, as in the CPU's test.
const TOLERANCE: f32 = 2e-3;
/// Tokens of the bundled model's texts.
const TOKENS: usize = 300;

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(testdata(path)).unwrap()).unwrap()
}

fn numbers(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

#[test]
fn the_four_small_models_agree_with_transformers() {
    if !common::is_there() {
        return;
    }
    let tokens = numbers(&json("vectors/reference.json")["tokens"]);
    for name in ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"]
    {
        let folder = testdata("vectors").join(name);
        let file = ByteView::map_file(&folder.join("reference.safetensors")).unwrap();
        let set = read_safetensors(file, "reference").unwrap().tensors;
        let bytes = set.get("logits_f32").unwrap().data.as_slice();
        let want: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let model = load(&ModelSource::Path(folder), &LoadOptions::default()).unwrap();
        let options = WgpuOptions { kv_type: KvType::F32, ..common::options() };
        let mut executor = common::executor(&model.spec, &model.weights, &options).unwrap();
        let got = prefill(&mut executor, &tokens, &[7, 64]).unwrap();
        compare(name, Tolerance::Relative(TOLERANCE), &got, &want, model.spec.vocab_size).unwrap();
    }
}

/// Token by token the most likely one; ties go to the first.
fn greedy(executor: &mut dyn Executor, prompt: &[u32], count: usize) -> Vec<u32> {
    let blocks: Vec<u32> = (0..(prompt.len() + count).div_ceil(executor.info().block_size) as u32).collect();
    executor.reserve_blocks(blocks.len()).unwrap();
    let (mut tokens, mut new, mut top) = (Vec::new(), prompt.to_vec(), [TopLogits::default()]);
    let mut position = 0;
    while tokens.len() < count {
        let s = Sequence { tokens: &new, position, blocks: &blocks, logits: LogitRows::Last };
        executor.forward_top(&Batch { sequences: &[s] }, 1, &mut top).unwrap();
        let best = top[0].logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let place = top[0].logits.iter().position(|&l| l == best).unwrap();
        position += new.len();
        new = vec![top[0].ids[place]];
        tokens.push(new[0]);
    }
    tokens
}

fn bundled() -> LoadedModel {
    let files =
        bitnet_tiny::files().into_iter().map(|(n, b)| (n.to_owned(), ByteView::from_static(b))).collect();
    let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
    load(&source, &LoadOptions::default()).unwrap()
}

/// At least 99 of 100 tokens of greedy texts are the CPU's. Where a text goes another way, it is a rounding tie: from there
/// on the GPU is asked to go on from the CPU's text.
#[test]
fn greedy_text_of_the_bundled_model_is_the_cpus() {
    if !common::is_there() {
        return;
    }
    let model = bundled();
    let options = CpuOptions { threads: Some(2), ..CpuOptions::default() };
    let mut cpu = CpuExecutor::new(model.spec.clone(), &model.weights, &options, &mut |_, _| {}).unwrap();
    let mut gpu = common::executor(&model.spec, &model.weights, &common::options()).unwrap();
    let index = json("bitnet-tiny/reference.json");
    let prompts = index["cases"].as_array().unwrap();
    let per_prompt = TOKENS / prompts.len().min(3);
    let (mut same, mut all) = (0, 0);
    for prompt in prompts.iter().take(3) {
        let prompt = numbers(&prompt["prompt_ids"]);
        let want = greedy(&mut cpu, &prompt, per_prompt);
        let mut done = 0;
        while done < want.len() {
            let text: Vec<u32> = prompt.iter().chain(&want[..done]).copied().collect();
            let got = greedy(&mut gpu, &text, want.len() - done);
            let agreed = got.iter().zip(&want[done..]).take_while(|(a, b)| a == b).count();
            same += agreed;
            done += agreed + 1;
        }
        all += want.len();
    }
    assert!(same * 100 >= all * 99, "{same} of {all} tokens");
}
