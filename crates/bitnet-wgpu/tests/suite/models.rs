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
/// Texts of the bundled model, tokens of each prompt, and tokens behind all prompts together.
const TEXTS: usize = 40;
const PROMPT: usize = 3;
const TOKENS: usize = 2000;

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

/// The most likely token.
fn best(top: &TopLogits) -> u32 {
    let most = top.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    top.ids[top.logits.iter().position(|&l| l == most).unwrap()]
}

/// Block tables of texts of so many positions.
fn tables(executor: &mut dyn Executor, texts: usize, positions: usize) -> Vec<Vec<u32>> {
    let each = positions.div_ceil(executor.info().block_size) as u32;
    executor.reserve_blocks(texts * each as usize).unwrap();
    (0..texts as u32).map(|text| (text * each..(text + 1) * each).collect()).collect()
}

/// The most likely texts behind some prompts, token by token and all together: prompts, then so many tokens each.
fn greedy(executor: &mut dyn Executor, prompts: &[Vec<u32>], count: usize) -> Vec<Vec<u32>> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + count;
    let tables = tables(executor, prompts.len(), longest);
    let (mut texts, mut done) = (prompts.to_vec(), vec![0; prompts.len()]);
    let mut top = vec![TopLogits::default(); prompts.len()];
    for _ in 0..count {
        let all = texts.iter().zip(&done).zip(&tables);
        let sequences: Vec<Sequence<'_>> = all
            .map(|((text, &position), blocks)| Sequence {
                tokens: &text[position..],
                position,
                blocks,
                logits: LogitRows::Last,
            })
            .collect();
        executor.forward_top(&Batch { sequences: &sequences }, 1, &mut top).unwrap();
        for ((text, done), top) in texts.iter_mut().zip(&mut done).zip(&top) {
            *done = text.len();
            text.push(best(top));
        }
    }
    texts
}

/// Behind each token of the texts the one that is most likely.
fn next_tokens(executor: &mut dyn Executor, texts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let tables = tables(executor, texts.len(), longest);
    let sequences: Vec<Sequence<'_>> = texts
        .iter()
        .zip(&tables)
        .map(|(tokens, blocks)| Sequence { tokens, position: 0, blocks, logits: LogitRows::All })
        .collect();
    let mut top = vec![TopLogits::default(); texts.iter().map(Vec::len).sum()];
    executor.forward_top(&Batch { sequences: &sequences }, 1, &mut top).unwrap();
    let mut next = top.iter().map(best);
    texts.iter().map(|text| next.by_ref().take(text.len()).collect()).collect()
}

fn bundled() -> LoadedModel {
    let files =
        bitnet_tiny::files().into_iter().map(|(n, b)| (n.to_owned(), ByteView::from_static(b))).collect();
    let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
    load(&source, &LoadOptions::default()).unwrap()
}

/// Along the CPU's greedy texts, 2,000 tokens behind several prompts, each next token is the adapter's as well, 99 times of
/// 100 (the rest are rounding ties); and a short text made token by token is what the adapter tells of it as a whole.
#[test]
fn greedy_text_of_the_bundled_model_is_the_cpus() {
    if !common::is_there() {
        return;
    }
    let model = bundled();
    let options = CpuOptions { threads: Some(2), ..CpuOptions::default() };
    let mut cpu = CpuExecutor::new(model.spec.clone(), &model.weights, &options, &mut |_, _| {}).unwrap();
    // Software is fastest with as many rows as one pass over a matrix takes.
    let options = WgpuOptions { max_batch_tokens: Some(8), ..common::options() };
    let mut gpu = common::executor(&model.spec, &model.weights, &options).unwrap();
    let index = json("bitnet-tiny/reference.json");
    // Many short texts, since long ones repeat themselves; and short prompts, whose rows nothing is compared of.
    let cases = index["cases"].as_array().unwrap();
    let tokens: Vec<u32> = cases.iter().flat_map(|case| numbers(&case["prompt_ids"])).collect();
    let prompts: Vec<Vec<u32>> = tokens.chunks_exact(PROMPT).map(<[u32]>::to_vec).take(TEXTS).collect();
    assert_eq!(prompts.len(), TEXTS);
    let texts = greedy(&mut cpu, &prompts, TOKENS / TEXTS);
    // What follows the last token is nobody's.
    let given: Vec<Vec<u32>> = texts.iter().map(|text| text[..text.len() - 1].to_vec()).collect();
    let next = next_tokens(&mut gpu, &given);
    let (mut same, mut all) = (0, 0);
    for ((prompt, text), next) in prompts.iter().zip(&texts).zip(&next) {
        let pairs = text[prompt.len()..].iter().zip(&next[prompt.len() - 1..]);
        same += pairs.clone().filter(|(a, b)| a == b).count();
        all += pairs.count();
    }
    assert!(all == TOKENS && same * 100 >= all * 99, "{same} of {all} tokens");
    // Token by token the adapter goes the way that it tells of a text as a whole.
    let made = greedy(&mut gpu, &prompts[..1], 16);
    let next = next_tokens(&mut gpu, &made);
    let start = prompts[0].len();
    assert_eq!(made[0][start..], next[0][start - 1..made[0].len() - 1]);
}
