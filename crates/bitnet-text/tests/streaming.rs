//! Text that arrives in pieces: the detokenizer against whole decoding, stop strings against their definition.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::sync::Arc;

use bitnet_text::{EncodeOptions, StopOutcome, StopStrings, Tokenizer};
use common::{bundled, sentence_piece_spec};
use proptest::prelude::*;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}

/// Streams tokens; every piece is whole characters by its type, so none may be a replacement for a part of one.
fn stream(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip_special: bool) -> (String, Vec<String>) {
    let mut detokenizer = tokenizer.detokenizer(skip_special);
    let pieces: Vec<String> = ids.iter().map(|&id| detokenizer.push(id).to_owned()).collect();
    (pieces.concat() + &detokenizer.finish(), pieces)
}

/// The tokens that stand for one byte each, by byte.
fn byte_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    (0..=255_u8)
        .map(|byte| {
            let is_byte =
                |&id: &u32| tokenizer.token_bytes(id) == Some(&[byte][..]) && !tokenizer.is_special(id);
            (0..tokenizer.vocab_size() as u32).find(is_byte).unwrap()
        })
        .collect()
}

#[test]
fn characters_come_out_whole() {
    let tokenizer = Arc::new(bundled());
    let bytes = byte_ids(&tokenizer);
    for text in ["é", "日本", "🚀😶‍🌫️", "a\u{10FFFF}b"] {
        let ids: Vec<u32> = text.bytes().map(|byte| bytes[usize::from(byte)]).collect();
        let (all, pieces) = stream(&tokenizer, &ids, true);
        assert_eq!(all, text);
        let characters: Vec<String> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        assert_eq!(characters, text.chars().map(String::from).collect::<Vec<_>>());
    }
}

#[test]
fn a_text_that_breaks_off_inside_a_character_ends_in_a_replacement() {
    let tokenizer = Arc::new(bundled());
    let bytes = byte_ids(&tokenizer);
    let mut detokenizer = tokenizer.detokenizer(true);
    assert_eq!(detokenizer.push(bytes[0xF0]), "");
    assert_eq!(detokenizer.push(bytes[0x9F]), "");
    assert_eq!(detokenizer.push(bytes[usize::from(b'a')]), "\u{FFFD}a");
    assert_eq!(detokenizer.push(bytes[0xE2]), "");
    assert_eq!(detokenizer.finish(), "\u{FFFD}");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn sentence_piece_drops_the_space_it_put_first() {
    let tokenizer = Arc::new(Tokenizer::from_vocab(sentence_piece_spec(), "m.gguf").unwrap());
    let ids = tokenizer.encode("the cat", EncodeOptions::PROMPT).unwrap();
    assert_eq!(
        ids.iter().map(|&id| tokenizer.token_str(id).unwrap()).collect::<Vec<_>>(),
        ["<s>", "▁the", "▁cat"]
    );
    assert_eq!(stream(&tokenizer, &ids, true).0, "the cat");
    assert_eq!(tokenizer.decode(&ids, true), "the cat");
    let mut continuing = tokenizer.continuing_detokenizer(true);
    assert_eq!(continuing.push(ids[2]), " cat");
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn streaming_equals_decoding(ids in prop::collection::vec(0..8200_u32, 0..40), skip_special: bool) {
        thread_local!(static TOKENIZER: Arc<Tokenizer> = Arc::new(bundled()));
        let tokenizer = TOKENIZER.with(Arc::clone);
        prop_assert_eq!(stream(&tokenizer, &ids, skip_special).0, tokenizer.decode(&ids, skip_special));
    }

    #[test]
    fn streaming_equals_decoding_of_any_bytes(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80..=0xBF_u8, 0xE0..=0xF8_u8, Just(b' ')], 0..24),
    ) {
        thread_local!(static TOKENIZER: Arc<Tokenizer> =
            Arc::new(Tokenizer::from_vocab(sentence_piece_spec(), "m.gguf").unwrap()));
        let tokenizer = TOKENIZER.with(Arc::clone);
        let ids: Vec<u32> = bytes.iter().map(|&byte| 3 + u32::from(byte)).collect();
        let (all, pieces) = stream(&tokenizer, &ids, true);
        prop_assert_eq!(&all, &tokenizer.decode(&ids, true));
        // Nothing is held back longer than needed: what is pending is the beginning of one character.
        let given: usize = pieces.concat().chars().count();
        prop_assert!(all.chars().count() - given <= 1);
    }
}

/// The definition: the first place where a stop string ends decides, the longest that ends there counts.
fn cut<'t>(text: &'t str, stops: &[String]) -> (&'t str, Option<String>) {
    for (end, _) in text.char_indices().chain([(text.len(), ' ')]) {
        let ended = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
        if let Some(stop) = ended.max_by_key(|stop| stop.len()) {
            return (&text[..end - stop.len()], Some(stop.clone()));
        }
    }
    (text, None)
}

/// Length of the longest end of `text` that a stop string begins with.
fn open_end(text: &str, stops: &[String]) -> usize {
    let opens = |from: &usize| stops.iter().any(|stop| stop.starts_with(&text[*from..]));
    let starts = text.char_indices().map(|(at, _)| at);
    starts.clone().find(opens).map_or(0, |from| text.len() - from)
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn stop_strings_equal_their_definition(
        chunks in prop::collection::vec("[abé]{0,5}", 0..8),
        stops in prop::collection::vec("[abé]{0,5}", 0..4),
    ) {
        let mut watch = StopStrings::new(stops.clone());
        let (mut emitted, mut seen, mut matched) = (String::new(), String::new(), None);
        for chunk in &chunks {
            let outcome = watch.push(chunk);
            emitted.push_str(&outcome.emit);
            if matched.is_some() {
                prop_assert_eq!(&outcome.emit, "");
            }
            matched = outcome.matched;
            seen.push_str(chunk);
            if matched.is_none() {
                // All is out but what may still become a stop string.
                prop_assert_eq!(emitted.len(), seen.len() - open_end(&seen, &stops));
            }
        }
        emitted.push_str(&watch.finish());
        let (expected, stop) = cut(&seen, &stops);
        prop_assert_eq!(emitted, expected);
        prop_assert_eq!(matched, stop);
    }
}

#[test]
fn stop_strings_by_example() {
    let none = |emit: &str| StopOutcome { emit: emit.to_owned(), matched: None };
    let mut stops = StopStrings::new(vec!["\nUser:".to_owned(), String::new()]);
    assert_eq!(stops.push("Hello\n"), none("Hello"));
    assert_eq!(stops.push("Us"), none(""));
    assert_eq!(stops.push("eful\nUser"), none("\nUseful"));
    let outcome = stops.push(": next");
    assert_eq!((outcome.emit.as_str(), outcome.matched.as_deref()), ("", Some("\nUser:")));
    assert_eq!(stops.push("more").emit, "");
    assert_eq!(stops.finish(), "");

    let mut stops = StopStrings::new(vec!["end".to_owned()]);
    assert_eq!(stops.push("the e"), none("the "));
    assert_eq!(stops.finish(), "e");

    // A long string of one character over a long text of it.
    let mut stops = StopStrings::new(vec!["a".repeat(1 << 20) + "b"]);
    for _ in 0..4 {
        stops.push(&"a".repeat(1 << 19));
    }
    assert_eq!(stops.push("b").matched.map(|stop| stop.len()), Some((1 << 20) + 1));
}
