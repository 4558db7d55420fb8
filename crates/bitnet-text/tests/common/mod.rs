//! The files that several tests read.
#![allow(dead_code, reason = "each test file uses some of these")]
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::PathBuf;

use bitnet_text::{Tokenizer, VocabModel, VocabSpec};
use serde_json::Value;

pub(crate) fn path(relative: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", relative].iter().collect()
}

pub(crate) fn bytes(relative: &str) -> Vec<u8> {
    std::fs::read(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

pub(crate) fn json(relative: &str) -> Value {
    serde_json::from_slice(&bytes(relative)).unwrap()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The tokenizer of the bundled model.
pub(crate) fn bundled() -> Tokenizer {
    Tokenizer::from_json(&bytes("crates/bitnet-tiny/model/tokenizer.json"), "tokenizer.json").unwrap()
}

/// The Llama 3 vocabulary.
pub(crate) fn llama3() -> Tokenizer {
    Tokenizer::from_tiktoken(&bytes("testdata/llama3-tokenizer.model"), "tokenizer.model").unwrap()
}

/// The Llama 3 vocabulary as a GGUF embeds it: merges made from the ranks, every way to cut a token into two tokens in
/// the order of the token it makes.
pub(crate) fn llama3_spec(tokenizer: &Tokenizer) -> VocabSpec {
    let spelling = |id: u32| tokenizer.token_str(id).unwrap();
    let base = (0..tokenizer.vocab_size() as u32).filter(|&id| !tokenizer.is_special(id));
    let mut merges = Vec::new();
    for id in base.clone() {
        let token = spelling(id);
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if tokenizer.token_id(left).is_some() && tokenizer.token_id(right).is_some() {
                merges.push(format!("{left} {right}"));
            }
        }
    }
    let all = 0..tokenizer.vocab_size() as u32;
    VocabSpec {
        model: VocabModel::Gpt2,
        pre: None,
        tokens: all.clone().map(|id| spelling(id).to_owned()).collect(),
        scores: Vec::new(),
        token_types: all.map(|id| if tokenizer.is_special(id) { 3 } else { 1 }).collect(),
        merges,
        bos: Some(128_000),
        add_bos: Some(true),
        add_space_prefix: None,
        unknown: None,
    }
}

/// A SentencePiece vocabulary of a few words, with bytes.
pub(crate) fn sentence_piece_spec() -> VocabSpec {
    let mut tokens: Vec<(String, f32, i32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    let words = ["▁t", "he", "▁the", "in", "▁a", "er", "▁▁", "▁▁▁▁", "th", "▁then", "re", "▁c", "at", "▁cat"];
    tokens.extend(words.iter().zip(0..).map(|(word, rank)| ((*word).to_owned(), -(rank as f32), 1)));
    tokens.extend("▁etaoinshrdlcu.,!<>s/".chars().map(|letter| (letter.to_string(), -1000.0, 1)));
    tokens.push(("[PAD]".into(), 0.0, 4));
    VocabSpec {
        model: VocabModel::Llama,
        pre: Some("default".to_owned()),
        tokens: tokens.iter().map(|token| token.0.clone()).collect(),
        scores: tokens.iter().map(|token| token.1).collect(),
        token_types: tokens.iter().map(|token| token.2).collect(),
        merges: Vec::new(),
        bos: Some(1),
        add_bos: None,
        add_space_prefix: None,
        unknown: Some(0),
    }
}
