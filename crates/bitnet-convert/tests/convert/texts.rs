//! Tokenizers and templates, carried over in both directions.

use std::path::Path;

use bitnet_convert::Target;
use bitnet_formats::{GgufArray, GgufValue, create_gguf, read_gguf};
use bitnet_model::ModelSpec;
use bitnet_model::synth::{self, ShapePreset, SynthFormat, SynthOptions, Vocabulary};
use bitnet_text::EncodeOptions;

use crate::support::{at, bundled, open, to};

/// Writes a tiny model of random weights with this vocabulary.
fn synthetic(out: &Path, spec: &ModelSpec, format: SynthFormat, vocabulary: Vocabulary) {
    let options = SynthOptions { format, vocabulary, seed: 3, overwrite: false };
    synth::write(out, spec, &options, &mut |_, _| ()).unwrap();
}

/// Changes the metadata of a GGUF file.
fn change(path: &Path, edit: impl Fn(&mut Vec<(String, GgufValue)>)) {
    let view = bitnet_core::bytes::ByteView::from_vec(std::fs::read(path).unwrap());
    let file = read_gguf(view, "m").unwrap();
    let mut metadata: Vec<(String, GgufValue)> =
        file.metadata.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    edit(&mut metadata);
    let plan: Vec<bitnet_formats::TensorPlan> = file
        .tensors
        .iter()
        .map(|t| bitnet_formats::TensorPlan::new(&t.name, t.stored, t.shape.clone()))
        .collect();
    let mut writer = create_gguf(path, &metadata, &plan).unwrap();
    for tensor in &file.tensors {
        writer.write_tensor(&tensor.name, tensor.data.as_slice()).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn the_vocabulary_of_llama_3_goes_from_tiktoken_to_gguf_and_to_json() {
    let folder = tempfile::tempdir().unwrap();
    let [tiktoken, gguf, json] = ["tiktoken", "m.gguf", "json"].map(|name| folder.path().join(name));
    let spec = ModelSpec {
        vocab_size: 128_256,
        hidden_size: 128,
        num_layers: 1,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 64,
        intermediate_size: 128,
        ..ShapePreset::Tiny.spec()
    };
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/llama3-tokenizer.model"));
    synthetic(&tiktoken, &spec, SynthFormat::SafetensorsPacked, Vocabulary::Tokenizer(file.to_owned()));
    let report = to(&at(&tiktoken), &gguf, Target::GgufI2s).unwrap();
    assert!(report.verification.texts.unwrap().texts > 120_000, "{report:?}");
    to(&at(&gguf), &json, Target::SafetensorsPacked).unwrap();
    let model = open(&json);
    let tokenizer = model.tokenizer.unwrap();
    assert_eq!(tokenizer.kind(), "tokenizer.json (BPE)", "it runs natively");
    assert_eq!(model.generation.stop_tokens, [128_001, 128_009]);
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/vectors/tokens_llama3.json"),
    )
    .unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let first = open(&tiktoken).tokenizer.unwrap();
    // Whatever the file calls its lists: every string in it is a text to encode.
    let strings: Vec<&str> = text.split('"').filter(|part| !part.contains('\\') && part.len() > 3).collect();
    assert!(vectors.is_object() || vectors.is_array());
    for text in strings {
        let [a, b] = [&first, &tokenizer].map(|t| t.encode(text, EncodeOptions::PROMPT).unwrap());
        assert_eq!(a, b, "{text:?}");
    }
}

#[test]
fn what_converters_got_wrong_is_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let [wrong, right, json] = ["wrong.gguf", "right.gguf", "json"].map(|name| folder.path().join(name));
    to(&bundled(), &wrong, Target::GgufI2s).unwrap();
    let template =
        "{% for message in messages %}Human: {{ message['content'] }}\n\nBITNETAssistant: {% endfor %}";
    change(&wrong, |metadata| {
        metadata.retain(|(key, _)| key != "tokenizer.chat_template" && key != "tokenizer.ggml.eot_token_id");
        metadata.push(("tokenizer.chat_template".to_owned(), GgufValue::String(template.to_owned())));
        metadata.push(("general.license".to_owned(), GgufValue::String("mit".to_owned())));
    });
    let report = to(&at(&wrong), &right, Target::GgufI2s).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("template is replaced")), "{:?}", report.notes);
    let view = bitnet_core::bytes::ByteView::map_file(&right).unwrap();
    let metadata = read_gguf(view, "m").unwrap().metadata;
    let template = metadata.string("tokenizer.chat_template").unwrap().unwrap();
    assert!(template.contains("<|eot_id|>") && template.contains("Assistant: "), "{template}");
    assert_eq!(metadata.u64("tokenizer.ggml.eot_token_id").unwrap(), Some(8186));
    assert_eq!(metadata.string("general.license").unwrap(), Some("mit"));
    to(&at(&wrong), &json, Target::SafetensorsPacked).unwrap();
    let settings = std::fs::read_to_string(json.join("tokenizer_config.json")).unwrap();
    assert!(settings.contains("<|eot_id|>") && !settings.contains("BITNETAssistant"), "{settings}");
    let generation = std::fs::read_to_string(json.join("generation_config.json")).unwrap();
    assert!(generation.contains("8185") && generation.contains("8186"), "{generation}");
}

/// A SentencePiece vocabulary: control tokens, bytes, characters, and what merges make of them.
fn sentence_piece(size: usize) -> (Vec<String>, Vec<f32>, Vec<i32>) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    let mut types = vec![2, 3, 3];
    let mut scores = vec![0.0; 3];
    for byte in 0..=255u8 {
        tokens.push(format!("<0x{byte:02X}>"));
        types.push(6);
        scores.push(0.0);
    }
    let words = [
        "▁t",
        "he",
        "▁the",
        "in",
        "▁a",
        "re",
        "on",
        "er",
        "▁w",
        "▁wo",
        "or",
        "ld",
        "▁H",
        "el",
        "lo",
        "ell",
        "▁▁",
        "▁▁▁▁",
        "ö",
        "ß",
        "▁you",
        "ou",
        "▁y",
        "an",
        "and",
        "▁and",
        "12",
        "1234",
        "34",
        "世界",
        "aa",
        "aaaa",
    ];
    for (rank, word) in words.iter().enumerate() {
        tokens.push((*word).to_owned());
        types.push(1);
        scores.push(-(rank as f32));
    }
    let letters = "▁abcdefghijklmnopqrstuvwyzHI'.,0123456789世界-=#";
    for letter in letters.chars() {
        tokens.push(letter.to_string());
        types.push(1);
        scores.push(-1000.0 - tokens.len() as f32);
    }
    for id in tokens.len()..size {
        tokens.push(format!("[PAD{id}]"));
        types.push(5);
        scores.push(-2000.0);
    }
    (tokens, scores, types)
}

#[test]
fn sentence_piece_goes_from_gguf_to_json_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let [first, json, second, third] =
        ["first.gguf", "json", "second.gguf", "third"].map(|name| folder.path().join(name));
    let spec = ShapePreset::Tiny.spec();
    synthetic(&first, &spec, SynthFormat::GgufI2s, Vocabulary::Dummy);
    let (tokens, scores, types) = sentence_piece(spec.vocab_size);
    change(&first, |metadata| {
        metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
        let mut set = |key: &str, value| metadata.push((format!("tokenizer.ggml.{key}"), value));
        set("model", GgufValue::String("llama".to_owned()));
        set("pre", GgufValue::String("default".to_owned()));
        set("tokens", GgufValue::Array(GgufArray::Strings(tokens.clone())));
        set("scores", GgufValue::Array(GgufArray::F32(scores.clone())));
        set("token_type", GgufValue::Array(GgufArray::I32(types.clone())));
        set("bos_token_id", GgufValue::U32(1));
        set("eos_token_id", GgufValue::U32(2));
        set("unknown_token_id", GgufValue::U32(0));
        set("add_bos_token", GgufValue::Bool(true));
    });
    let report = to(&at(&first), &json, Target::SafetensorsPacked).unwrap();
    assert!(report.verification.texts.unwrap().texts > 300, "{report:?}");
    to(&at(&json), &second, Target::GgufI2s).unwrap();
    to(&at(&second), &third, Target::SafetensorsBf16).unwrap();
    let [a, b, c] = [&first, &second, &third].map(|path| open(path).tokenizer.unwrap());
    for text in ["Hello you and the world", "  12341234  aaaaaa ", "ößü 世界 €", "\n\n", ""] {
        let ids = a.encode(text, EncodeOptions::PROMPT).unwrap();
        assert_eq!(ids, b.encode(text, EncodeOptions::PROMPT).unwrap(), "{text:?}");
        assert_eq!(ids, c.encode(text, EncodeOptions::PROMPT).unwrap(), "{text:?}");
        assert_eq!(a.decode(&ids, true), c.decode(&ids, true), "{text:?}");
    }
    assert_eq!(open(&third).generation.stop_tokens, [2]);
}

#[test]
fn models_without_tokenizer_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.gguf");
    let report = to(&at(&crate::support::vector("tiny-bitnet-packed")), &out, Target::GgufI2s).unwrap();
    assert!(report.verification.texts.is_none());
    assert!(report.notes.iter().any(|note| note.contains("no tokenizer")), "{:?}", report.notes);
}
