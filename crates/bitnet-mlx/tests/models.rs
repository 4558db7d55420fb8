//! Models with weights from elsewhere: beside transformers' logits and hidden states, and the bundled model's text beside the
//! oracle's, which is the CPU's.
#![cfg(feature = "mlx")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bitnet_core::bytes::ByteView;
use bitnet_formats::{TensorSet, read_safetensors};
use bitnet_mlx::MlxOptions;
use bitnet_model::conformance::{Tolerance, compare, prefill, relative_error};
use bitnet_model::reference::{ReferenceExecutor, Site};
use bitnet_model::{
    Batch, Executor, KvType, LoadOptions, LoadedModel, LogitRows, ModelSource, Sequence, TopLogits, load,
};

/// Relative 2-norm within which the logits of each row must lie, as in the CPU's test, but for rounding ties.
const TOLERANCE: f32 = 2e-3;
/// Tokens of each of the bundled model's texts.
const TOKENS: usize = 50;

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(testdata(path)).unwrap()).unwrap()
}

fn numbers(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

fn reference(name: &str) -> TensorSet {
    let path = testdata("vectors").join(name).join("reference.safetensors");
    read_safetensors(ByteView::map_file(&path).unwrap(), "reference").unwrap().tensors
}

fn floats(set: &TensorSet, name: &str) -> Vec<f32> {
    let bytes = set.get(name).unwrap().data.as_slice();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn model(name: &str) -> LoadedModel {
    load(&ModelSource::Path(testdata("vectors").join(name)), &LoadOptions::default()).unwrap()
}

fn precise() -> MlxOptions {
    MlxOptions { kv_type: KvType::F32, ..common::options() }
}

fn first_bad_row(got: &[f32], want: &[f32], vocab: usize) -> Option<usize> {
    got.chunks_exact(vocab).zip(want.chunks_exact(vocab)).position(|(a, b)| relative_error(a, b) > 1e-5)
}

/// An activation that lies on a rounding border but for float noise.
#[derive(Debug, Clone, Copy)]
struct Tie {
    site: Site,
    element: usize,
    other: i8,
}

/// The oracle's logits with the given ties rounded the other way, and the ties it met.
fn with_ties_turned(model: &LoadedModel, tokens: &[u32], turned: &[Tie]) -> (Vec<f32>, Vec<Tie>) {
    const MARGIN: f32 = 2e-5;
    let (met, turned) = (Arc::new(Mutex::new(Vec::new())), turned.to_vec());
    let sink = Arc::clone(&met);
    let mut oracle = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::F32).unwrap();
    oracle.set_hook(Some(Box::new(move |site, h, scale, q| {
        for (element, (q, h)) in q.iter_mut().zip(h).enumerate() {
            let v = h * scale;
            if ((v - v.floor()) - 0.5).abs() < MARGIN {
                let other = if f32::from(*q) < v { *q + 1 } else { *q - 1 };
                sink.lock().unwrap().push(Tie { site, element, other });
            }
            if let Some(tie) = turned.iter().find(|t| t.site == site && t.element == element) {
                *q = tie.other;
            }
        }
    })));
    let logits = prefill(&mut oracle, tokens, &[tokens.len()]).unwrap();
    let ties = met.lock().unwrap().clone();
    (logits, ties)
}

/// The ties that must be turned in the oracle so that its logits are these to float noise.
///
/// # Panics
/// If a row differs that no tie explains.
fn ties_between(model: &LoadedModel, tokens: &[u32], got: &[f32]) -> Vec<Tie> {
    let vocab = model.spec.vocab_size;
    let mut turned = Vec::new();
    let (mut want, mut ties) = with_ties_turned(model, tokens, &turned);
    while let Some(row) = first_bad_row(got, &want, vocab) {
        let explained = ties.iter().filter(|tie| tie.site.position == row).find_map(|&tie| {
            let with: Vec<Tie> = turned.iter().copied().chain([tie]).collect();
            let (logits, ties) = with_ties_turned(model, tokens, &with);
            (first_bad_row(got, &logits, vocab).is_none_or(|r| r > row)).then_some((with, logits, ties))
        });
        (turned, want, ties) =
            explained.unwrap_or_else(|| panic!("row {row} differs, and no rounding tie explains it"));
    }
    turned
}

#[test]
fn the_four_small_models_agree_with_transformers() {
    let tokens = numbers(&json("vectors/reference.json")["tokens"]);
    for name in ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"]
    {
        let (want, model) = (floats(&reference(name), "logits_f32"), model(name));
        let mut executor = common::executor(&model.spec, &model.weights, &precise()).unwrap();
        let got = prefill(&mut executor, &tokens, &[7, 64]).unwrap();
        // Either transformers' logits, or the oracle's with a tie or two rounded the other way.
        let close = compare(name, Tolerance::Relative(TOLERANCE), &got, &want, model.spec.vocab_size);
        let ties = ties_between(&model, &tokens, &got);
        assert!(ties.len() <= 2 && (close.is_ok() || !ties.is_empty()), "{close:?}, {ties:?}");
    }
}

#[test]
fn the_embedding_models_agree_with_transformers() {
    for name in ["tiny-qwen3-embedding", "tiny-gemma3-embedding"] {
        let (reference, model) = (reference(name), model(name));
        let tokens: Vec<u32> = reference
            .get("tokens")
            .unwrap()
            .data
            .as_slice()
            .as_chunks()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b) as u32)
            .collect();
        let mut executor = common::executor(&model.spec, &model.weights, &precise()).unwrap();
        let logits = prefill(&mut executor, &tokens, &[tokens.len()]).unwrap();
        let blocks: Vec<u32> = (0..tokens.len().div_ceil(executor.info().block_size) as u32).collect();
        let s = Sequence { tokens: &tokens, position: 0, blocks: &blocks, logits: LogitRows::All };
        let mut hidden = vec![0.0; tokens.len() * model.spec.hidden_size];
        executor.forward_hidden(&Batch { sequences: &[s] }, &mut hidden).unwrap();
        let tolerance = Tolerance::Relative(TOLERANCE);
        compare(name, tolerance, &hidden, &floats(&reference, "hidden_f32"), model.spec.hidden_size).unwrap();
        compare(name, tolerance, &logits, &floats(&reference, "logits_f32"), model.spec.vocab_size).unwrap();
    }
}

fn bundled() -> LoadedModel {
    let files =
        bitnet_tiny::files().into_iter().map(|(n, b)| (n.to_owned(), ByteView::from_static(b))).collect();
    let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
    load(&source, &LoadOptions::default()).unwrap()
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

/// At least 99 of 100 tokens of greedy texts are the oracle's. Where a text goes another way, it is a rounding tie: from there
/// on MLX is asked to go on from the oracle's text. The logits of the texts agree but for such ties.
#[test]
fn the_bundled_model_writes_the_oracles_text() {
    let model = bundled();
    let mut oracle = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::default()).unwrap();
    let mut mlx = common::executor(&model.spec, &model.weights, &common::options()).unwrap();
    let index = json("bitnet-tiny/reference.json");
    let (mut same, mut all) = (0, 0);
    for prompt in index["cases"].as_array().unwrap().iter().take(2) {
        let prompt = numbers(&prompt["prompt_ids"]);
        let want = greedy(&mut oracle, &prompt, TOKENS);
        let mut done = 0;
        while done < want.len() {
            let text: Vec<u32> = prompt.iter().chain(&want[..done]).copied().collect();
            let got = greedy(&mut mlx, &text, want.len() - done);
            let agreed = got.iter().zip(&want[done..]).take_while(|(a, b)| a == b).count();
            same += agreed;
            done += agreed + 1;
        }
        all += want.len();
        let text: Vec<u32> = prompt.iter().chain(&want).copied().collect();
        let logits = [&mut oracle as &mut dyn Executor, &mut mlx].map(|e| prefill(e, &text, &[64]).unwrap());
        let error = relative_error(&logits[1], &logits[0]);
        assert!(error < 2e-2, "logits differ by {error:e}");
    }
    assert!(same * 100 >= all * 99, "{same} of {all} tokens");
}
