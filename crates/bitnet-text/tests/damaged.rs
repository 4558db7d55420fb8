//! Damaged files: every reader answers with a tokenizer or an error, and what it accepts encodes without a panic.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use bitnet_text::{ChatMessage, ChatTemplate, EncodeOptions, Tokenizer, TokenizerConfig, VocabSpec};
use common::{bytes, sentence_piece_spec};
use proptest::prelude::*;

/// One change to a file.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(prop::sample::Index),
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    let word = prop::sample::select(vec![
        "null",
        "-1",
        "4294967295",
        "1e99",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "\\ud800",
        "\\u0000",
        "true",
        "[[[[",
        "\"\"",
        "<0xFF>",
        "\u{2581}",
        " ",
        "99999999999999999999",
        "\"type\":\"BPE\"",
        "\\",
    ]);
    prop_oneof![
        1 => index().prop_map(Damage::Truncate),
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        4 => (index(), word).prop_map(|(at, word)| Damage::Insert(at, word.as_bytes().to_vec())),
        3 => (index(), 1..20_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        3 => (index(), index(), 1..40_usize).prop_map(|(from, to, count)| Damage::Copy(from, to, count)),
    ]
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        let place =
            |index: &prop::sample::Index, length: usize| if length == 0 { 0 } else { index.index(length) };
        let length = file.len();
        match self {
            Self::Truncate(at) => file.truncate(place(at, length)),
            Self::Replace(at, byte) => {
                if let Some(old) = file.get_mut(place(at, length)) {
                    *old = *byte;
                }
            }
            Self::Insert(at, word) => {
                let at = place(at, length);
                file.splice(at..at, word.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = place(at, length);
                file.drain(at..(at + count).min(length));
            }
            Self::Copy(from, to, count) => {
                let (from, to) = (place(from, length), place(to, length));
                let copied = file[from..(from + count).min(length)].to_vec();
                file.splice(to..to, copied);
            }
        }
    }
}

fn damaged(file: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut file = file.to_vec();
    damages.iter().for_each(|damage| damage.apply(&mut file));
    file
}

/// Uses whatever was accepted.
fn exercise(tokenizer: &Tokenizer) {
    for options in [EncodeOptions::PROMPT, EncodeOptions::TEMPLATE] {
        if let Ok(ids) = tokenizer.encode("The cat, <s>and\n\n  <|eot_id|> é🚀 12345", options) {
            tokenizer.decode(&ids, true);
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
    }
    for id in 0..tokenizer.vocab_size() as u32 + 1 {
        assert_eq!(tokenizer.token_bytes(id).is_some(), tokenizer.token_str(id).is_some());
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}

/// A small file of each shape of `tokenizer.json`.
fn small_json() -> Vec<Vec<u8>> {
    let split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let added = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let template = serde_json::json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [9], "tokens": ["<s>"]}}});
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": false});
    let files = [
        serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(9, "<s>"), added(10, "<|eot_id|>")], "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": split},
                "behavior": "Isolated", "invert": false}, byte_level]},
            "post_processor": template, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "ignore_merges": true,
                "vocab": {"a": 0, "b": 1, "Ġ": 2, "t": 3, "h": 4, "e": 5, "th": 6, "the": 7, "Ġthe": 8},
                "merges": ["t h", ["th", "e"], "Ġ the"]}}),
        serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(0, "<unk>"), added(1, "<s>")],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"},
                "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
                "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁": 3, "c": 4, "a": 5, "t": 6, "at": 7, "▁c": 8,
                    "▁cat": 9},
                "merges": ["a t", "▁ c", "▁c at"]}}),
        serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(0, "<unk>"), added(1, "<s>")], "normalizer": {"type": "NFKC"},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
            "post_processor": null,
            "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
                "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["▁", -2.0], ["a", -3.0], ["▁cat", -4.0], ["é", -5.5]]}}),
        serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(0, "[UNK]")], "normalizer": {"type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "the": 1, "c": 2, "##at": 3, ",": 4}}}),
    ];
    files.iter().map(|file| serde_json::to_vec(file).unwrap()).collect()
}

/// `!`, `"`, `#`, `$`, `!"`, `#$` and ` a`.
const SMALL_TIKTOKEN: &[u8] = b"IQ== 0\nIg== 1\nIw== 2\nJA== 3\nISI= 4\nIyQ= 5\nIGE= 6\n";

#[test]
fn the_small_files_are_sound() {
    exercise(&Tokenizer::from_tiktoken(SMALL_TIKTOKEN, "tokenizer.model").unwrap());
    exercise(&Tokenizer::from_vocab(byte_level_spec(), "model.gguf").unwrap());
    exercise(&Tokenizer::from_vocab(sentence_piece_spec(), "model.gguf").unwrap());
    for file in small_json() {
        let tokenizer = Tokenizer::from_json(&file, "tokenizer.json").unwrap();
        exercise(&tokenizer);
    }
}

proptest! {
    #![proptest_config(config(8000))]

    #[test]
    fn tokenizer_json(which in 0..4_usize, damages in prop::collection::vec(damage(), 1..4)) {
        let file = damaged(&small_json()[which], &damages);
        if let Ok(tokenizer) = Tokenizer::from_json(&file, "tokenizer.json") {
            exercise(&tokenizer);
        }
    }

    #[test]
    fn tiktoken(damages in prop::collection::vec(damage(), 1..4)) {
        if let Ok(tokenizer) = Tokenizer::from_tiktoken(&damaged(SMALL_TIKTOKEN, &damages), "tokenizer.model") {
            exercise(&tokenizer);
        }
    }

    #[test]
    fn tokenizer_config(damages in prop::collection::vec(damage(), 1..4)) {
        let file = bytes("crates/bitnet-tiny/model/tokenizer_config.json");
        if let Ok(read) = TokenizerConfig::from_json(&damaged(&file, &damages), "tokenizer_config.json") {
            let source = read.chat_template.unwrap_or_default();
            if let Ok(template) = ChatTemplate::new(&source, "<s>", "</s>", "tokenizer_config.json") {
                let _ = template.render(&[ChatMessage::user("x")], true);
            }
        }
    }
}

/// One change to an embedded vocabulary.
#[derive(Clone, Debug)]
enum SpecDamage {
    Token(prop::sample::Index, String),
    Score(prop::sample::Index, f32),
    Kind(prop::sample::Index, i32),
    Merge(prop::sample::Index, String),
    Shorten(u8, prop::sample::Index),
    Ids(Option<u32>, Option<u32>),
    Pre(Option<String>),
}

fn spec_damage() -> impl Strategy<Value = SpecDamage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), ".{0,4}|<0x..>|<\\|[a-z]{0,3}\\|>").prop_map(|(at, token)| SpecDamage::Token(at, token)),
        (index(), any::<f32>()).prop_map(|(at, score)| SpecDamage::Score(at, score)),
        (index(), -1..9).prop_map(|(at, kind)| SpecDamage::Kind(at, kind)),
        (index(), "[a-eĠ]{0,3} ?[a-eĠ]{0,3}").prop_map(|(at, merge)| SpecDamage::Merge(at, merge)),
        (0..4_u8, index()).prop_map(|(list, at)| SpecDamage::Shorten(list, at)),
        (any::<Option<u32>>(), prop::option::of(0..400_u32))
            .prop_map(|(bos, unknown)| SpecDamage::Ids(bos, unknown)),
        prop::option::of("[a-z3-]{0,9}|llama-bpe").prop_map(SpecDamage::Pre),
    ]
}

impl SpecDamage {
    fn apply(self, spec: &mut VocabSpec) {
        fn set<T>(list: &mut [T], at: prop::sample::Index, value: T) {
            if !list.is_empty() {
                list[at.index(list.len())] = value;
            }
        }
        fn cut<T>(list: &mut Vec<T>, at: prop::sample::Index) {
            list.truncate(at.index(list.len() + 1));
        }
        match self {
            Self::Token(at, token) => set(&mut spec.tokens, at, token),
            Self::Score(at, score) => set(&mut spec.scores, at, score),
            Self::Kind(at, kind) => set(&mut spec.token_types, at, kind),
            Self::Merge(at, merge) => set(&mut spec.merges, at, merge),
            Self::Shorten(0, at) => cut(&mut spec.tokens, at),
            Self::Shorten(1, at) => cut(&mut spec.scores, at),
            Self::Shorten(2, at) => cut(&mut spec.token_types, at),
            Self::Shorten(_, at) => cut(&mut spec.merges, at),
            Self::Ids(bos, unknown) => (spec.bos, spec.unknown) = (bos, unknown),
            Self::Pre(pre) => spec.pre = pre,
        }
    }
}

fn byte_level_spec() -> VocabSpec {
    let tokens = ["a", "b", "c", "Ġ", "d", "ab", "Ġa", "Ġab", "cd", "<|s|>", "[PAD 1]"];
    VocabSpec {
        model: bitnet_text::VocabModel::Gpt2,
        pre: Some("default".to_owned()),
        tokens: tokens.map(str::to_owned).to_vec(),
        scores: Vec::new(),
        token_types: vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 5],
        merges: ["a b", "Ġ a", "Ġ ab", "c d"].map(str::to_owned).to_vec(),
        bos: Some(9),
        add_bos: None,
        add_space_prefix: None,
        unknown: None,
    }
}

proptest! {
    #![proptest_config(config(6000))]

    #[test]
    fn embedded_vocabulary(byte_level: bool, damages in prop::collection::vec(spec_damage(), 1..4)) {
        let mut spec = if byte_level { byte_level_spec() } else { sentence_piece_spec() };
        damages.into_iter().for_each(|damage| damage.apply(&mut spec));
        if let Ok(tokenizer) = Tokenizer::from_vocab(spec, "model.gguf") {
            exercise(&tokenizer);
        }
    }

    #[test]
    fn templates(source in "(\\{[%{]-? ?(for x in messages|if x|endif|endfor|x|x\\.content|'a'\\*9|messages\\[0\\]|set x = 1|macro m\\(\\)|endmacro|raise_exception\\('no'\\)|x\\|tojson|generation|endgeneration) ?-?[%}]\\}|[a-z \\n]{0,3}){0,8}") {
        if let Ok(template) = ChatTemplate::new(&source, "", "", "chat_template.jinja") {
            let _ = template.render(&[ChatMessage::user("hi")], true);
        }
    }
}

#[test]
fn errors_name_file_field_and_value() {
    let spec = |change: fn(&mut VocabSpec), sentence_piece: bool| {
        let mut spec = if sentence_piece { sentence_piece_spec() } else { byte_level_spec() };
        change(&mut spec);
        Tokenizer::from_vocab(spec, "m.gguf").unwrap_err().to_string()
    };
    for (error, part) in [
        (spec(|s| s.tokens.clear(), false), "tokenizer.ggml.tokens: the list is empty"),
        (spec(|s| s.scores.truncate(3), true), "tokenizer.ggml.scores: the list has 3 entries"),
        (spec(|s| s.scores[4] = f32::NAN, true), "tokenizer.ggml.scores[4]: NaN"),
        (spec(|s| s.token_types[2] = 9, false), "tokenizer.ggml.token_type[2]: type 9"),
        (spec(|s| s.token_types.truncate(1), false), "tokenizer.ggml.token_type: the list has 1 entries"),
        (spec(|s| s.merges.clear(), false), "tokenizer.ggml.merges: the list is missing"),
        (spec(|s| s.merges[1] = "x y".into(), false), "tokenizer.ggml.merges[1]: \"x y\" names \"x\""),
        (spec(|s| s.merges[1] = "a c".into(), false), "tokenizer.ggml.merges[1]: \"a c\" names \"ac\""),
        (spec(|s| s.merges[2] = "ab".into(), false), "tokenizer.ggml.merges[2]: \"ab\" is not two tokens"),
        (spec(|s| s.bos = Some(99), false), "tokenizer.ggml.bos_token_id: 99 is beyond the 11 tokens"),
        (
            spec(|s| s.tokens[7] = "<0xZZ>".into(), true),
            "tokenizer.ggml.tokens[7]: \"<0xZZ>\" is typed as a byte",
        ),
        (
            spec(|s| s.pre = Some("who".into()), false),
            "tokenizer.ggml.pre is \"who\", which is not known (known: llama",
        ),
    ] {
        assert!(error.starts_with("m.gguf: ") && error.contains(part), "{error}");
    }
}

#[test]
fn errors_of_tokenizer_json() {
    let sound = String::from_utf8(small_json().remove(0)).unwrap();
    let other = String::from_utf8(small_json().remove(1)).unwrap();
    for (file, part) in [
        ("{}".to_owned(), "missing field `model`"),
        ("".to_owned(), "cannot be read as a tokenizer.json: EOF"),
        ("[".repeat(100_000), "cannot be read as a tokenizer.json"),
        (format!("{{\"decoder\":{}", "[".repeat(100_000)), "recursion limit"),
        (sound.replace("\"a\":0", "\"a\":4294967295"), "id 4294967295 is far beyond the 11 tokens"),
        (sound.replace("\"a\":0", "\"a\":1"), "id 1 belongs to"),
        (sound.replace("\"id\":10", "\"id\":3"), "added_tokens[1]: id 3 belongs to \"t\" already"),
        (sound.replace("\"t h\"", "\"q h\""), "model.merges[0]: \"q h\" names \"q\""),
        (sound.replace("\"t h\"", "\"th\""), "a merge needs two tokens"),
        (
            sound.replace("\"id\":\"<s>\",\"type_id\"", "\"id\":\"<z>\",\"type_id\""),
            "post_processor: \"<z>\"",
        ),
        (other.replace("Fuse", "CTC"), "decoder {\"type\":\"CTC\"} is not supported"),
        (other.replace("\"▁ c\"", "\"▁cat ▁cat\""), "model.merges[1]: \"▁cat ▁cat\" makes nothing"),
        (other.replace("Prepend", "Precompiled"), "normalizer {\"type\":\"Precompiled\""),
        (
            other.replace(
                "\"pre_tokenizer\":null",
                "\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}",
            ),
            "pre_tokenizer {",
        ),
        (other.replace("\"id\":1", "\"id\":7"), "added_tokens[1]: id 7 belongs to \"at\" already"),
    ] {
        let error = Tokenizer::from_json(file.as_bytes(), "t.json").unwrap_err().to_string();
        assert!(error.starts_with("t.json: ") && error.contains(part), "{error}");
    }
}
