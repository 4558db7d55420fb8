//! The tokenizer and the template of the bundled model against the reference that `transformers` wrote.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::sync::Arc;

use bitnet_text::{ChatMessage, ChatTemplate, EncodeOptions, Tokenizer, TokenizerConfig};
use common::{bundled, bytes, ids, json};
use proptest::prelude::*;

/// The same file read by the `tokenizers` library alone.
fn library() -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(bytes("crates/bitnet-tiny/model/tokenizer.json")).unwrap()
}

fn template() -> ChatTemplate {
    let file = bytes("crates/bitnet-tiny/model/tokenizer_config.json");
    let config = TokenizerConfig::from_json(&file, "tokenizer_config.json").unwrap();
    let (bos, eos) = (config.bos_token.unwrap(), config.eos_token.unwrap());
    ChatTemplate::new(&config.chat_template.unwrap(), &bos, &eos, "tokenizer_config.json").unwrap()
}

#[test]
fn prompts_and_completions_of_the_reference() {
    let (tokenizer, template) = (Arc::new(bundled()), template());
    let reference = json("testdata/bitnet-tiny/reference.json");
    let mut kinds = Vec::new();
    for case in reference["cases"].as_array().unwrap() {
        let (kind, text) = (case["kind"].as_str().unwrap(), case["text"].as_str().unwrap());
        let encoded = match kind {
            "raw" => tokenizer.encode(text, EncodeOptions::PROMPT).unwrap(),
            _ => template.encode(&tokenizer, &[ChatMessage::user(text)], true).unwrap(),
        };
        assert_eq!(encoded, ids(&case["prompt_ids"]), "{text}");

        let greedy = ids(&case["greedy_ids"]);
        let completion = case["completion"].as_str().unwrap();
        assert_eq!(tokenizer.decode(&greedy, true), completion);
        let mut detokenizer = tokenizer.detokenizer(true);
        let mut streamed = String::new();
        for id in greedy {
            streamed.push_str(detokenizer.push(id));
        }
        streamed.push_str(&detokenizer.finish());
        assert_eq!(streamed, completion);
        kinds.push(kind);
    }
    assert!(kinds.contains(&"raw") && kinds.iter().any(|kind| *kind != "raw"), "{kinds:?}");
}

#[test]
fn what_the_file_says() {
    let tokenizer = bundled();
    assert_eq!(tokenizer.kind(), "tokenizer.json (BPE)");
    assert_eq!(tokenizer.vocab_size(), 8192);
    assert_eq!(tokenizer.bos(), Some(8184));
    assert!(tokenizer.adds_bos());
    assert_eq!(
        format!("{tokenizer:?}"),
        "Tokenizer { kind: \"tokenizer.json (BPE)\", vocab_size: 8192, .. }"
    );
}

#[test]
fn set_bos_takes_tokens_only() {
    let mut tokenizer = bundled();
    tokenizer.set_bos(Some(8192));
    assert_eq!(tokenizer.bos(), None);
    tokenizer.set_bos(Some(8185));
    assert_eq!(tokenizer.encode("", EncodeOptions::default()).unwrap(), [8185]);
    tokenizer.set_adds_bos(false);
    assert!(tokenizer.encode("", EncodeOptions::default()).unwrap().is_empty());
}

#[test]
fn equals_the_library_on_any_text() {
    let (ours, theirs): (Tokenizer, _) = (bundled(), library());
    let config = ProptestConfig { failure_persistence: None, cases: 3000, ..ProptestConfig::default() };
    proptest!(config, |(text in "\\PC{0,40}|[a-zA-Z' \r\n\t0-9é日🚀.,]{0,80}|([a-z ]{0,9}(<\\|eot_id\\|>|<\\|)?){0,4}")| {
        let expected = theirs.encode(text.as_str(), false).unwrap();
        let encoded = ours.encode(&text, EncodeOptions::TEMPLATE).unwrap();
        prop_assert_eq!(&encoded, expected.get_ids());
        prop_assert_eq!(ours.decode(&encoded, true), theirs.decode(&encoded, true).unwrap());
        let plain = ours.encode(&text, EncodeOptions::PLAIN).unwrap();
        prop_assert!(plain.iter().all(|&id| !ours.is_special(id)));
        prop_assert_eq!(ours.decode(&plain, true), text);
    });
}
