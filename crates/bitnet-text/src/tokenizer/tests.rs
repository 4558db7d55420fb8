//! Vocabularies of kinds for which there is no reference file: SentencePiece in a GGUF and what goes to the library.

use serde_json::{Value, json};

use super::*;

fn spm(add_space_prefix: Option<bool>) -> Tokenizer {
    let mut tokens = vec![("<unk>".to_owned(), 0.0, 2), ("<s>".to_owned(), 0.0, 3)];
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    for (rank, piece) in ["ab", "bc", "▁a", "▁ab", "cd", "abcd", "▁▁"].into_iter().enumerate() {
        tokens.push((piece.to_owned(), -(rank as f32), 1));
    }
    tokens.extend("▁abcd<s>".chars().map(|piece| (piece.to_string(), -99.0, 1)));
    tokens.push(("<end>".to_owned(), 0.0, 4));
    let spec = VocabSpec {
        model: VocabModel::Llama,
        pre: None,
        tokens: tokens.iter().map(|token| token.0.clone()).collect(),
        scores: tokens.iter().map(|token| token.1).collect(),
        token_types: tokens.iter().map(|token| token.2).collect(),
        merges: Vec::new(),
        bos: Some(1),
        add_bos: None,
        add_space_prefix,
        unknown: Some(0),
    };
    Tokenizer::from_vocab(spec, "m.gguf").unwrap()
}

fn spelled(tokenizer: &Tokenizer, text: &str, options: EncodeOptions) -> Vec<String> {
    let ids = tokenizer.encode(text, options).unwrap();
    ids.iter().map(|&id| tokenizer.token_str(id).unwrap().to_owned()).collect()
}

#[test]
fn sentence_piece_merges_by_score() {
    let tokenizer = spm(None);
    assert_eq!(tokenizer.kind(), "gguf llama (SentencePiece BPE)");
    // "ab" and "bc" before "▁a"; then "cd", then what the two make.
    assert_eq!(spelled(&tokenizer, "abc", EncodeOptions::PLAIN), ["▁ab", "c"]);
    assert_eq!(spelled(&tokenizer, "a", EncodeOptions::PROMPT), ["<s>", "▁a"]);
    assert_eq!(spelled(&tokenizer, "babcd", EncodeOptions::PLAIN), ["▁", "b", "abcd"]);
    assert_eq!(spelled(&tokenizer, "  b", EncodeOptions::PLAIN), ["▁▁", "▁", "b"]);
    assert_eq!(spelled(&spm(Some(false)), "abc", EncodeOptions::PLAIN), ["ab", "c"]);
}

#[test]
fn sentence_piece_falls_back_to_bytes() {
    let tokenizer = spm(None);
    assert_eq!(spelled(&tokenizer, "é\n", EncodeOptions::PLAIN), ["▁", "<0xC3>", "<0xA9>", "<0x0A>"]);
    let ids = tokenizer.encode("é\n🚀 a", EncodeOptions::PROMPT).unwrap();
    assert_eq!(tokenizer.decode(&ids, true), "é\n🚀 a");
    assert_eq!(tokenizer.token_bytes(2 + 0xC3), Some(&[0xC3][..]));
}

#[test]
fn sentence_piece_controls_and_user_tokens() {
    let tokenizer = spm(None);
    assert_eq!(spelled(&tokenizer, "<s>", EncodeOptions::PLAIN), ["▁", "<", "s", ">"]);
    assert_eq!(spelled(&tokenizer, "<s>a<end>", EncodeOptions::TEMPLATE), ["<s>", "▁a", "<end>"]);
    assert_eq!(spelled(&tokenizer, "a<end>", EncodeOptions::PLAIN), ["▁a", "<end>"]);
    assert_eq!(spelled(&tokenizer, "<0x41>", EncodeOptions::PLAIN).concat(), "▁<<0x30><0x78><0x34><0x31>>");
    assert!(!tokenizer.is_special(tokenizer.token_id("<end>").unwrap()));
    assert_eq!(tokenizer.decode(&tokenizer.encode("<s>", EncodeOptions::PLAIN).unwrap(), true), "<s>");
}

#[test]
fn sentence_piece_takes_a_megabyte() {
    let tokenizer = spm(None);
    for text in [" ".repeat(1 << 20), "ab".repeat(1 << 19), "é".repeat(1 << 18)] {
        let ids = tokenizer.encode(&text, EncodeOptions::PLAIN).unwrap();
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
}

#[test]
fn control_tokens_typed_as_text_are_control_tokens_all_the_same() {
    for token_type in [1, 4] {
        let tokens = ["a", "<", "|", ">", "x", "<|x|>", "<|", "日"].map(str::to_owned).to_vec();
        let spec = VocabSpec {
            model: VocabModel::Gpt2,
            pre: Some("llama-bpe".to_owned()),
            token_types: vec![token_type; tokens.len()],
            tokens,
            scores: Vec::new(),
            merges: vec!["< |".to_owned()],
            bos: None,
            add_bos: None,
            add_space_prefix: None,
            unknown: None,
        };
        let tokenizer = Tokenizer::from_vocab(spec, "m.gguf").unwrap();
        assert!(tokenizer.is_special(5));
        assert_eq!(tokenizer.encode("<|x|>", EncodeOptions::TEMPLATE).unwrap(), [5]);
        let plain = tokenizer.encode("<|x|>", EncodeOptions::PLAIN).unwrap();
        assert!(!plain.contains(&5), "{plain:?}");
        assert_eq!(tokenizer.bos(), None);
        assert_eq!(tokenizer.encode("a", EncodeOptions::PROMPT).unwrap(), [0]);
    }
}

#[test]
fn bytes_without_a_token_are_told_or_unknown() {
    let spec = |unknown| VocabSpec {
        model: VocabModel::Gpt2,
        pre: None,
        tokens: ["a", "b", "ab", "?"].map(str::to_owned).to_vec(),
        scores: Vec::new(),
        token_types: Vec::new(),
        merges: vec!["a b".to_owned()],
        bos: None,
        add_bos: None,
        add_space_prefix: None,
        unknown,
    };
    let error =
        Tokenizer::from_vocab(spec(None), "m").unwrap().encode("abz", EncodeOptions::PLAIN).unwrap_err();
    assert!(error.to_string().contains("byte 0x7A"), "{error}");
    let tokenizer = Tokenizer::from_vocab(spec(Some(3)), "m").unwrap();
    assert_eq!(tokenizer.encode("abz", EncodeOptions::PLAIN).unwrap(), [2, 3]);
}

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special})
}

fn from_json(file: &Value) -> Tokenizer {
    Tokenizer::from_json(&serde_json::to_vec(file).unwrap(), "tokenizer.json").unwrap()
}

#[test]
fn library_llama_2() {
    let file = json!({"version": "1.0", "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0,
            "direction": "Right"}, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(6, "<end>", false)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": 1.0, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁": 3, "a": 4, "▁a": 5},
            "merges": ["▁ a"]}});
    let tokenizer = from_json(&file);
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.adds_bos()), (7, Some(1), true));
    // The file's limit of two tokens and its dropout are for training.
    let ids = tokenizer.encode("a a\na", EncodeOptions::PROMPT).unwrap();
    assert_eq!(ids, [1, 5, 5, 2, 4]);
    assert_eq!(tokenizer.decode(&ids, true), "a a\na");
    assert_eq!(tokenizer.encode("<s>a<end>a", EncodeOptions::TEMPLATE).unwrap(), [1, 5, 6, 5]);
    assert_eq!(tokenizer.encode("a<end>", EncodeOptions::PLAIN).unwrap(), [5, 6]);
    let plain = tokenizer.encode("<s>a", EncodeOptions::PLAIN).unwrap();
    assert!(!plain.contains(&1), "{plain:?}");
}

#[test]
fn library_unigram_does_not_make_specials_of_text() {
    let meta = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    let file = json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true)], "normalizer": null,
        "pre_tokenizer": meta, "post_processor": null, "decoder": meta,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
            "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["▁", -2.0], ["a", -3.0], ["▁a", -4.0], ["s", -5.0], ["<", -5.0],
                [">", -5.0]]}});
    let tokenizer = from_json(&file);
    assert_eq!(tokenizer.kind(), "tokenizer.json (Unigram)");
    assert_eq!(spelled(&tokenizer, "a<s>a a", EncodeOptions::TEMPLATE), ["▁a", "<s>", "a", "▁a"]);
    assert_eq!(spelled(&tokenizer, "a", EncodeOptions::PROMPT), ["<s>", "▁a"]);
    let plain = tokenizer.encode("a<s>a", EncodeOptions::PLAIN).unwrap();
    assert!(!plain.contains(&1), "{plain:?}");
    assert_eq!(tokenizer.decode(&plain, true), "a<s>a");
    assert_eq!(tokenizer.encode("é", EncodeOptions::PLAIN).unwrap(), [2, 0]);
}

#[test]
fn library_word_piece_and_no_decoder() {
    let file = json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "[UNK]", true)], "normalizer": null,
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "the": 1, "c": 2, "##at": 3}}});
    let tokenizer = from_json(&file);
    let ids = tokenizer.encode("the cat dog", EncodeOptions::PROMPT).unwrap();
    assert_eq!(ids, [1, 2, 3, 0]);
    assert_eq!(tokenizer.decode(&ids, true), "the cat");
    assert_eq!((tokenizer.bos(), tokenizer.adds_bos()), (None, false));
}

#[test]
fn gpt_2_shape_is_native_and_equals_the_library() {
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let file = json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(7, "<|endoftext|>", true), added(8, "ab b", false)], "normalizer": null,
        "pre_tokenizer": byte_level(true), "post_processor": null, "decoder": byte_level(true),
        "model": {"dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false,
            "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġa": 4, "Ġab": 5, "aba": 6}, "merges": ["a b", "Ġ ab"]}});
    let tokenizer = from_json(&file);
    assert!(matches!(tokenizer.engine, Engine::ByteBpe(_)));
    let library = tokenizers::Tokenizer::from_bytes(serde_json::to_vec(&file).unwrap()).unwrap();
    for text in ["ab ab  ab", "aba", "ab b<|endoftext|>ab", ""] {
        let expected = library.encode(text, false).unwrap();
        assert_eq!(tokenizer.encode(text, EncodeOptions::TEMPLATE).unwrap(), expected.get_ids(), "{text:?}");
    }
    // Without ignore_merges, "aba" is not taken whole although it is a token.
    assert_eq!(tokenizer.encode("aba", EncodeOptions::PLAIN).unwrap(), [3, 0]);
}

#[test]
fn types_cross_threads() {
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    shared::<Tokenizer>();
    shared::<crate::ChatTemplate>();
    shared::<Detokenizer>();
}

#[test]
fn tokens_know_their_place_in_the_text() {
    let places = |tokenizer: &Tokenizer, text: &str, options: EncodeOptions| {
        let ids = tokenizer.encode(text, options).unwrap();
        let spans = tokenizer.spans(text, &ids, options);
        assert_eq!(spans.len(), ids.len());
        spans
    };
    let tokenizer = spm(None);
    // The begin-of-text token is not in the text, nor is the space before the first word.
    assert_eq!(places(&tokenizer, "abc", EncodeOptions::PROMPT), [None, Some(0..2), Some(2..3)]);
    assert_eq!(places(&tokenizer, "<s>a", EncodeOptions::TEMPLATE), [Some(0..3), Some(3..4)]);
    // What spells a special token and is text takes its bytes, and the token that was added takes none.
    let spelled = places(&tokenizer, "<s>", EncodeOptions::PROMPT);
    assert_eq!(spelled, [None, Some(0..0), Some(0..1), Some(1..2), Some(2..3)]);
    // A character of several bytes has a token for each.
    let bytes = places(&tokenizer, "a\u{e9}b", EncodeOptions::PLAIN);
    assert_eq!(bytes, [Some(0..1), Some(1..2), Some(2..3), Some(3..4)]);
    // Tokens of another text.
    let ids = tokenizer.encode("abcd", EncodeOptions::PLAIN).unwrap();
    assert!(tokenizer.spans("xyz", &ids, EncodeOptions::PLAIN).iter().all(Option::is_none));
}
