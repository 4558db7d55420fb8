//! The Llama 3 vocabulary from a tiktoken file and as a GGUF embeds it, against ids computed by tiktoken.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use bitnet_text::{ChatMessage, ChatTemplate, EncodeOptions, Segment, Tokenizer};
use common::{ids, json, llama3, llama3_spec};
use proptest::prelude::*;

/// Both readers' tokenizers of the same vocabulary.
fn both() -> [Tokenizer; 2] {
    let tiktoken = llama3();
    let spec = llama3_spec(&tiktoken);
    // As many as the official GGUF lists.
    assert_eq!(spec.merges.len(), 280_147);
    let gguf = Tokenizer::from_vocab(spec, "model.gguf").unwrap();
    [tiktoken, gguf]
}

#[test]
fn vectors_of_whole_strings() {
    let vectors = json("testdata/vectors/tokens_llama3.json");
    let entries = vectors["whole_string"].as_array().unwrap();
    assert_eq!(entries.len(), 20);
    for tokenizer in both() {
        assert_eq!(tokenizer.vocab_size(), 128_256);
        for entry in entries {
            let text = entry["text"].as_str().unwrap();
            let encoded = tokenizer.encode(text, EncodeOptions::TEMPLATE).unwrap();
            assert_eq!(encoded, ids(&entry["ids"]), "{}: {text:?}", tokenizer.kind());
            assert_eq!(tokenizer.decode(&encoded, false), text);
        }
    }
}

#[test]
fn vectors_of_chats() {
    let vectors = json("testdata/vectors/tokens_llama3.json");
    let chat = [ChatMessage::user("hi")];
    for tokenizer in both() {
        let encoded = ChatTemplate::bitnet_2b().encode(&tokenizer, &chat, true).unwrap();
        assert_eq!(encoded, ids(&vectors["hf_template_user_hi"]));
        let parts = [
            Segment::Text("User: "),
            Segment::Text("hi"),
            Segment::Special("<|eot_id|>"),
            Segment::Text("Assistant: "),
        ];
        let encoded = tokenizer.encode_segments(&parts, true).unwrap();
        assert_eq!(encoded, ids(&vectors["gpu_chatformat_user_hi"]));
    }
}

#[test]
fn names_and_ids_of_special_tokens() {
    for tokenizer in both() {
        assert_eq!(tokenizer.bos(), Some(128_000));
        assert!(tokenizer.adds_bos());
        assert_eq!(tokenizer.token_id("<|end_of_text|>"), Some(128_001));
        assert_eq!(tokenizer.token_id("<|eot_id|>"), Some(128_009));
        assert_eq!(tokenizer.token_str(128_255), Some("<|reserved_special_token_250|>"));
        assert!(tokenizer.is_special(128_009) && !tokenizer.is_special(127_999));
        assert_eq!(tokenizer.token_bytes(128_256), None);
        assert_eq!(tokenizer.token_str(15_960), Some("Ġhi"));
        assert_eq!(tokenizer.token_bytes(15_960), Some(&b" hi"[..]));
    }
    let [tiktoken, gguf] = both();
    assert_eq!(tiktoken.kind(), "tiktoken");
    assert_eq!(gguf.kind(), "gguf gpt2/llama-bpe");
}

#[test]
fn specials_in_plain_text_are_text() {
    for tokenizer in both() {
        let text = "a<|eot_id|><|begin_of_text|>";
        let encoded = tokenizer.encode(text, EncodeOptions::PROMPT).unwrap();
        assert_eq!(encoded[0], 128_000);
        assert!(encoded[1..].iter().all(|&id| !tokenizer.is_special(id)), "{encoded:?}");
        assert_eq!(tokenizer.decode(&encoded, true), text);
        // Begin-of-text is not doubled.
        let spelled = EncodeOptions { add_bos: true, parse_special: true };
        assert_eq!(tokenizer.encode("<|begin_of_text|>", spelled).unwrap(), [128_000]);
        assert_eq!(tokenizer.encode("", EncodeOptions::PROMPT).unwrap(), [128_000]);
        assert!(tokenizer.encode("", EncodeOptions::PLAIN).unwrap().is_empty());
    }
}

#[test]
fn long_runs_of_one_character() {
    for tokenizer in both() {
        for text in [" ".repeat(1 << 20), "a".repeat(1 << 20), "\n".repeat(1 << 18), "é".repeat(1 << 18)] {
            let encoded = tokenizer.encode(&text, EncodeOptions::PLAIN).unwrap();
            assert_eq!(tokenizer.decode(&encoded, false), text);
        }
    }
}

#[test]
fn both_readers_agree_on_any_text() {
    let [tiktoken, gguf] = both();
    let config = ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() };
    proptest!(config, |(text in "\\PC{0,40}|[a-zA-Z' \n\t0-9é日🚀.,]{0,60}", parse_special: bool)| {
        let options = EncodeOptions { add_bos: true, parse_special };
        let encoded = tiktoken.encode(&text, options).unwrap();
        prop_assert_eq!(&encoded, &gguf.encode(&text, options).unwrap());
        prop_assert_eq!(tiktoken.decode(&encoded[1..], false), text);
    });
}
