//! Models with weights from elsewhere: beside transformers' logits, and the bundled model's text beside the CPU's.

use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_cpu::{CpuExecutor, CpuOptions};
use bitnet_formats::read_safetensors;
use bitnet_model::conformance::{Tolerance, compare, prefill};
use bitnet_model::{
    Batch, Executor, KvType, LoadOptions, LoadedModel, LogitRows, ModelSource, Sequence, TopLogits, load,
};
use bitnet_wgpu::WgpuOptions;

use crate::common;

/// Relative 2-norm within which the logits of each row must lie, as in the CPU's test.
const TOLERANCE: f32 = 2e-3;
/// Texts of the bundled model, and their tokens together. Few: software takes a twentieth of a second for each.
const TEXTS: usize = 3;
const TOKENS: usize = 180;

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

/// The most likely token of each row.
fn best(top: &[TopLogits]) -> Vec<u32> {
    let best = |top: &TopLogits| {
        let most = top.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        top.ids[top.logits.iter().position(|&l| l == most).unwrap()]
    };
    top.iter().map(best).collect()
}

/// Runs tokens behind a position; gives the most likely one behind each of them.
fn run(executor: &mut dyn Executor, tokens: &[u32], position: usize) -> Vec<u32> {
    let end = position + tokens.len();
    let blocks: Vec<u32> = (0..end.div_ceil(executor.info().block_size) as u32).collect();
    executor.reserve_blocks(blocks.len()).unwrap();
    let s = Sequence { tokens, position, blocks: &blocks, logits: LogitRows::All };
    let mut top = vec![TopLogits::default(); tokens.len()];
    executor.forward_top(&Batch { sequences: &[s] }, 1, &mut top).unwrap();
    best(&top)
}

/// Prompt and the most likely text behind it, token by token.
fn greedy(executor: &mut dyn Executor, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut text = prompt.to_vec();
    let mut next = *run(executor, prompt, 0).last().unwrap();
    for _ in 0..count {
        text.push(next);
        next = run(executor, &[next], text.len() - 1)[0];
    }
    text
}

fn bundled() -> LoadedModel {
    let files =
        bitnet_tiny::files().into_iter().map(|(n, b)| (n.to_owned(), ByteView::from_static(b))).collect();
    let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
    load(&source, &LoadOptions::default()).unwrap()
}

/// Behind each token of the CPU's greedy texts the same one is the most likely, 99 times of 100 (the rest are rounding ties);
/// and a short text made token by token is the CPU's.
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
    let prompts: Vec<Vec<u32>> =
        index["cases"].as_array().unwrap().iter().map(|case| numbers(&case["prompt_ids"])).collect();
    let (mut same, mut all) = (0, 0);
    for prompt in &prompts[..TEXTS] {
        let text = greedy(&mut cpu, prompt, TOKENS / TEXTS);
        let (want, got) = (run(&mut cpu, &text, 0), run(&mut gpu, &text, 0));
        same += want.iter().zip(&got).filter(|(a, b)| a == b).count();
        all += want.len();
    }
    assert!(same * 100 >= all * 99, "{same} of {all} tokens");
    assert_eq!(greedy(&mut gpu, &prompts[0], 16), greedy(&mut cpu, &prompts[0], 16));
}
