//! SentencePiece models give the ids of the sentencepiece library.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use bitnet_text::{AddedTokenInfo, EncodeOptions, TextError, Tokenizer};
use common::{bytes, ids, json};

fn model(name: &str) -> Vec<u8> {
    bytes(&format!("testdata/sentencepiece/{name}.model"))
}

fn read(name: &str) -> Tokenizer {
    Tokenizer::from_sentencepiece(&model(name), &[], name).unwrap()
}

#[test]
fn ids_and_texts_are_those_of_the_library() {
    let vectors = json("testdata/sentencepiece/vectors.json");
    for (name, cases) in vectors["models"].as_object().unwrap() {
        let tokenizer = read(name);
        assert_eq!(tokenizer.kind(), "SentencePiece BPE");
        let mut checked = 0;
        for case in cases.as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            let found = tokenizer.encode(text, EncodeOptions::PLAIN).unwrap();
            assert_eq!(found, ids(&case[1]), "{name}: {text:?}");
            // Where every character has a token or bytes, what is decoded is what went in; the library writes " ⁇ " for
            // the unknown token, which has no text here.
            if name != "plain" {
                assert_eq!(tokenizer.decode(&found, true), case[2].as_str().unwrap(), "{name}: {text:?}");
                checked += 1;
            }
        }
        assert!(name == "plain" || checked > 200, "{checked}");
    }
}

#[test]
fn special_tokens_are_those_of_the_model() {
    let tokenizer = read("llama2");
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.adds_bos()), (1500, Some(1), true));
    for (id, name) in ["<unk>", "<s>", "</s>"].into_iter().enumerate() {
        assert!(tokenizer.is_special(id as u32) && tokenizer.token_id(name) == Some(id as u32), "{name}");
    }
    let prompt = tokenizer.encode("Once upon", EncodeOptions::PROMPT).unwrap();
    assert_eq!(prompt[0], 1);
    assert_eq!(tokenizer.encode("<s>", EncodeOptions::TEMPLATE).unwrap(), [1]);
    assert!(!tokenizer.encode("<s>", EncodeOptions::PLAIN).unwrap().contains(&1), "text stays text");
    assert_eq!(tokenizer.token_bytes(3 + 0x41), Some(&b"A"[..]));
}

fn added(id: u32, content: &str, special: bool) -> AddedTokenInfo {
    AddedTokenInfo {
        id,
        content: content.to_owned(),
        special,
        lstrip: false,
        rstrip: false,
        single_word: false,
    }
}

#[test]
fn added_tokens_extend_the_vocabulary() {
    let list = [added(1502, "<tool>", false), added(1500, "<pad>", true), added(2, "</s>", true)];
    let tokenizer = Tokenizer::from_sentencepiece(&model("llama2"), &list, "m").unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.token_id("<pad>")), (1503, Some(1500)));
    assert!(
        tokenizer.is_special(1500) && !tokenizer.is_special(1502) && tokenizer.token_bytes(1501).is_none()
    );
    let plain = read("llama2");
    let part = |text: &str| plain.encode(text, EncodeOptions::PLAIN).unwrap();
    let found = tokenizer.encode("Once<tool>upon<pad>", EncodeOptions::PLAIN).unwrap();
    assert_eq!(
        found,
        [part("Once"), vec![1502], part("upon<pad>")].concat(),
        "each part begins anew, as in transformers"
    );
    for (token, problem) in [
        (added(5, "<x>", true), "id 5 belongs to \"<0x02>\" already"),
        (added(1500, "</s>", true), "it has id 1500 here and 2 elsewhere"),
        (added(u32::MAX, "<y>", true), "far beyond"),
    ] {
        let error = Tokenizer::from_sentencepiece(&model("llama2"), &[token], "m").unwrap_err().to_string();
        assert!(error.starts_with("m: ") && error.contains(problem), "{error}");
    }
}

#[test]
fn other_kinds_are_refused_by_name() {
    // Later fields of a protobuf go before earlier ones, so that a few bytes at the end change the model.
    for (end, part) in [
        (&b"\x12\x02\x18\x01"[..], "trainer_spec.model_type UNIGRAM"),
        (b"\x12\x02\x18\x04", "CHAR"),
        (b"\x12\x03\xc0\x01\x01", "treat_whitespace_as_suffix"),
        (b"\x1a\x0d\x0a\x08nmt_nfkc\x12\x01x", "normalizer_spec.name nmt_nfkc"),
        (b"\x1a\x02\x28\x00", "escape_whitespaces"),
    ] {
        let error =
            Tokenizer::from_sentencepiece(&[&model("plain"), end].concat(), &[], "m.model").unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, TextError::Unsupported { .. }) && message.contains(part), "{message}");
    }
}

#[test]
fn damaged_models_are_errors_or_models() {
    let good = model("noprefix");
    assert!(Tokenizer::is_sentencepiece(&good) && !Tokenizer::is_sentencepiece(b"{\"model\":"));
    let mut refused = 0;
    let mut state = 1u64;
    let mut random = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    for case in 0..3000 {
        let mut damaged = good.clone();
        for _ in 0..=random(3) {
            let at = random(damaged.len());
            match random(4) {
                0 => damaged[at] ^= 1 << random(8),
                1 => damaged[at] = 0xff,
                2 => damaged.truncate(at.max(1)),
                _ => drop(damaged.drain(at..(at + 9).min(damaged.len()))),
            }
            if damaged.is_empty() {
                damaged.push(10);
            }
        }
        match Tokenizer::from_sentencepiece(&damaged, &[], "m.model") {
            Ok(tokenizer) => {
                // Damage may take tokens away, so that a text cannot be encoded.
                if let Ok(ids) = tokenizer.encode("Once upon a time, 日本 x1", EncodeOptions::PROMPT) {
                    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "case {case}");
                    tokenizer.decode(&ids, true);
                }
            }
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.starts_with("m.model: ") && !message.contains('\n'),
                    "case {case}: {message}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 500 && refused < 3000, "{refused} of 3000 were refused");
}
