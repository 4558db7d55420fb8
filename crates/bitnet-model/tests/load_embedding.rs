//! The embedding models: their norms, names, tokenizers and how they want to be pooled.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_formats::{GgufArray, GgufValue, StoredType};
use bitnet_model::synth::{self, ShapePreset, SynthFormat, SynthOptions, Vocabulary};
use bitnet_model::{EmbeddingDefaults, LoadError, LoadOptions, LoadedModel, ModelSource, Pooling, load};
use serde_json::{Value, json};
use support::{Folder, Tensor, load_path, trits};

const MODELS: [&str; 2] = ["tiny-qwen3-embedding", "tiny-gemma3-embedding"];

/// Loads a vector with more files, from memory.
fn load_with(folder: &Folder, files: &[(&str, String)]) -> Result<LoadedModel, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    folder.write(dir.path());
    let read = |name: &str| ByteView::from_vec(std::fs::read(dir.path().join(name)).unwrap());
    let mut all: Vec<(String, ByteView)> =
        ["config.json", "model.safetensors"].map(|name| (name.to_owned(), read(name))).into();
    all.extend(
        files.iter().map(|(name, text)| ((*name).to_owned(), ByteView::from_vec(text.clone().into()))),
    );
    load(&ModelSource::Memory { name: "embedding".to_owned(), files: all }, &LoadOptions::default())
}

#[test]
fn names_with_and_without_the_prefix_are_the_same_model() {
    for (name, add) in [(MODELS[0], true), (MODELS[1], false)] {
        let mut folder = Folder::vector(name);
        let before = folder.load().unwrap();
        let renamed = |name: String| match name.strip_prefix("model.") {
            Some(bare) => bare.to_owned(),
            None => format!("model.{name}"),
        };
        assert_eq!(folder.tensors.contains_key("model.norm.weight"), !add);
        folder.tensors = folder.tensors.into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect();
        let after = folder.load().unwrap();
        assert_eq!((trits(&after), &after.weights.final_norm), (trits(&before), &before.weights.final_norm));
        for (a, b) in after.weights.layers.iter().zip(&before.weights.layers) {
            assert_eq!(a.extras, b.extras);
        }
    }
}

#[test]
fn gemma_norms_get_their_one_and_those_before_projections_do_not() {
    let folder = Folder::vector(MODELS[1]);
    let model = folder.load().unwrap();
    let stored = |name: &str| {
        let tensor = &folder.tensors[name];
        let mut values = vec![0.0; tensor.shape[0] as usize];
        DType::BF16.decode(&tensor.bytes, &mut values);
        values
    };
    let more = |name: &str| stored(name).iter().map(|w| w + 1.0).collect::<Vec<f32>>();
    let layer = &model.weights.layers[1];
    let extras = &layer.extras;
    let name = |part: &str| format!("model.layers.1.{part}.weight");
    assert_eq!(model.weights.final_norm, more("model.norm.weight"));
    assert_eq!(layer.attn_norm, more(&name("input_layernorm")));
    assert_eq!(layer.ffn_norm, more(&name("pre_feedforward_layernorm")));
    assert_eq!(extras.head_norms.as_ref().unwrap()[1], more(&name("self_attn.k_norm")));
    let post = extras.post_norms.as_ref().unwrap();
    assert_eq!(post[0], more(&name("post_attention_layernorm")));
    assert_eq!(post[1], more(&name("post_feedforward_layernorm")));
    let own = extras.projection_norms.as_ref().unwrap();
    assert_eq!(own[2], stored(&name("self_attn.v_proj.norm")));
    assert_eq!(layer.attn_sub_norm.as_ref().unwrap(), &stored(&name("self_attn.o_proj.norm")));
    assert_eq!(layer.ffn_sub_norm.as_ref().unwrap(), &stored(&name("mlp.down_proj.norm")));
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    for name in MODELS {
        let whole = Folder::vector(name);
        let prefix = if name == MODELS[1] { "model." } else { "" };
        for part in ["self_attn.k_proj.norm", "self_attn.q_norm", "mlp.down_proj.norm"] {
            let mut folder = whole.clone();
            let tensor = format!("{prefix}layers.1.{part}.weight");
            folder.tensors.remove(&tensor).unwrap();
            assert!(folder.error().contains(&tensor), "{}", folder.error());
        }
        let mut biased = whole.clone();
        let bias = format!("{prefix}layers.0.self_attn.q_proj.bias");
        biased.tensors.insert(bias.clone(), Tensor::zeros(StoredType::F32, &[4]));
        assert!(biased.error().contains(&bias), "{}", biased.error());
        // Without its norms it is a plain model with float weights.
        let mut plain = whole.clone();
        plain.tensors.retain(|name, _| !name.contains("_proj.norm"));
        assert!(matches!(plain.load(), Err(LoadError::NotBitNet { .. })), "{}", plain.error());
    }
}

#[test]
fn pooling_of_sentence_transformers() {
    let folder = Folder::vector(MODELS[0]);
    let module = |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    let modules = json!([
        module("Transformer", ""),
        module("Pooling", "1_Pooling"),
        module("Normalize", "2_Normalize")
    ]);
    let with = |modules: &Value, pooling: Value| {
        let prompts = json!({"prompts": {"query": "Instruct: x\nQuery: ", "document": ""}});
        load_with(
            &folder,
            &[
                ("modules.json", modules.to_string()),
                ("1_Pooling/config.json", pooling.to_string()),
                ("config_sentence_transformers.json", prompts.to_string()),
            ],
        )
    };
    for (key, pooling) in [
        ("pooling_mode_lasttoken", Pooling::Last),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::Cls),
    ] {
        let model = with(&modules, json!({key: true, "word_embedding_dimension": 64})).unwrap();
        assert_eq!((model.embedding.pooling, model.embedding.normalize), (Some(pooling), Some(true)));
        assert!(model.embedding.prompts.contains(&("query".to_owned(), "Instruct: x\nQuery: ".to_owned())));
        assert_eq!(model.warnings, Vec::<String>::new());
    }
    let newer = with(&modules, json!({"pooling_mode": "mean"})).unwrap();
    assert_eq!(newer.embedding.pooling, Some(Pooling::Mean));
    let other = with(&modules, json!({"pooling_mode_max_tokens": true})).unwrap();
    assert_eq!((other.embedding.pooling, other.warnings.len()), (None, 1));
    let dense = with(&json!([module("Dense", "3_Dense")]), json!({})).unwrap();
    assert!(dense.warnings[0].contains("Dense"), "{:?}", dense.warnings);
    for path in ["../secret", "/etc", "", "a/b"] {
        let error = with(&json!([module("Pooling", path)]), json!({})).unwrap_err().to_string();
        assert!(error.contains("modules.json: path is"), "{error}");
    }
    let error = load_with(&folder, &[("modules.json", "{}".to_owned())]).unwrap_err();
    assert!(matches!(error, LoadError::Json { .. }), "{error}");
    assert_eq!(load_with(&folder, &[]).unwrap().embedding, EmbeddingDefaults::default());
}

/// A byte-level tokenizer with Qwen's two ends.
fn qwen_tokenizer(post_processor: &Value) -> String {
    let alphabet: Vec<char> = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('Ā'..='ń').collect();
    let vocab: serde_json::Map<String, Value> =
        alphabet.iter().enumerate().map(|(id, c)| (c.to_string(), (id % 126).into())).take(126).collect();
    let added = |id: u32, name: &str| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "added_tokens": [added(126, "<|endoftext|>"), added(127, "<|im_end|>")], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": post_processor, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}
    })
    .to_string()
}

#[test]
fn qwen3_texts_end_with_endoftext() {
    let folder = Folder::vector(MODELS[0]);
    let config = json!({"eos_token": "<|im_end|>"}).to_string();
    let template = json!({"type": "TemplateProcessing", "special_tokens": {}, "pair": [], "single": [
        {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}]});
    // Without a word about it, and with the post-processor's own.
    for (post_processor, end) in [(Value::Null, 126), (template, 127)] {
        let files =
            [("tokenizer.json", qwen_tokenizer(&post_processor)), ("tokenizer_config.json", config.clone())];
        let model = load_with(&folder, &files).unwrap();
        assert_eq!(model.require_tokenizer().unwrap().end(), Some(end), "{post_processor}");
    }
    // Models that are no embedding models append nothing unless their files say so.
    let plain = Folder::vector("tiny-bitnet-packed");
    let files = |adds: bool| {
        let config = json!({"eos_token": "<|im_end|>", "add_eos_token": adds}).to_string();
        [("tokenizer.json", qwen_tokenizer(&Value::Null)), ("tokenizer_config.json", config)]
    };
    for (adds, end) in [(false, None), (true, Some(127))] {
        let model = load_with(&plain, &files(adds)).unwrap();
        assert_eq!(model.require_tokenizer().unwrap().end(), end);
    }
}

/// Synthesises a tiny embedding model as GGUF, with other metadata.
fn gguf(preset: ShapePreset, change: impl FnOnce(&mut Vec<(String, GgufValue)>)) -> LoadedModel {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let options = SynthOptions {
        format: SynthFormat::GgufI2s,
        vocabulary: Vocabulary::Dummy,
        seed: 3,
        overwrite: false,
    };
    synth::write(&path, &preset.spec(), &options, &mut |_, _| {}).unwrap();
    let view = ByteView::map_file(&path).unwrap();
    let file = bitnet_formats::read_gguf(view, "model").unwrap();
    let mut metadata: Vec<(String, GgufValue)> =
        file.metadata.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    change(&mut metadata);
    let mut changed = support::Gguf { metadata: metadata.into_iter().collect(), tensors: Default::default() };
    for tensor in file.tensors.iter() {
        let copy = Tensor::new(tensor.stored, &tensor.shape, tensor.data.as_slice().to_vec());
        changed.tensors.insert(tensor.name.clone(), copy);
    }
    changed.load().unwrap()
}

#[test]
fn gguf_metadata_of_embedding_models() {
    let mean = gguf(ShapePreset::TinyQwen3, |m| m.push(("qwen3.pooling_type".to_owned(), GgufValue::U32(1))));
    assert_eq!(mean.embedding.pooling, Some(Pooling::Mean));
    assert!(mean.warnings[0].contains("--pooling last"), "{:?}", mean.warnings);
    // Without the keys of the window, as Microsoft's converter writes it, all layers see everything.
    let open = gguf(ShapePreset::TinyGemma3, |m| m.retain(|(key, _)| !key.contains("sliding_window")));
    assert_eq!(open.spec.extras.sliding, None);
    let pattern = ("gemma3.attention.sliding_window_pattern".to_owned(), GgufValue::U32(2));
    let every_second = gguf(ShapePreset::TinyGemma3, |m| m.push(pattern));
    assert_eq!(every_second.spec.extras.sliding.unwrap().layers, [true, false, true]);
}

/// A vocabulary in Gemma's spelling: bytes, pieces that begin with U+2581, merges.
fn gemma_metadata(metadata: &mut Vec<(String, GgufValue)>, as_gpt2: bool) {
    metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
    let mut tokens: Vec<String> = ["<pad>", "<eos>", "<bos>", "<unk>"].map(str::to_owned).into();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let letters: Vec<String> = ('a'..='z').map(|c| c.to_string()).collect();
    tokens.push("\u{2581}".to_owned());
    tokens.extend(letters.clone());
    let mut merges = Vec::new();
    for a in &letters {
        merges.push(format!("\u{2581} {a}"));
        tokens.push(format!("\u{2581}{a}"));
    }
    for (a, b) in letters.iter().flat_map(|a| letters.iter().map(move |b| (a, b))).take(1024 - tokens.len()) {
        merges.push(format!("\u{2581}{a} {b}"));
        tokens.push(format!("\u{2581}{a}{b}"));
    }
    tokens.resize_with(1024, || "<unused>".to_owned());
    let kind = |token: &String| match token.as_str() {
        "<pad>" | "<eos>" | "<bos>" | "<unused>" => 3,
        "<unk>" => 2,
        text if text.starts_with("<0x") && !as_gpt2 => 6,
        _ => 1,
    };
    let rank = |token: &String| {
        let found = merges.iter().position(|merge| &merge.replacen(' ', "", 1) == token);
        found.map_or(-1e6, |rank| -(rank as f32))
    };
    let mut set = |key: &str, value: GgufValue| metadata.push((format!("tokenizer.ggml.{key}"), value));
    set("token_type", GgufValue::Array(GgufArray::I32(tokens.iter().map(kind).collect())));
    if as_gpt2 {
        set("model", GgufValue::String("gpt2".to_owned()));
        set("pre", GgufValue::String("default".to_owned()));
        set("merges", GgufValue::Array(GgufArray::Strings(merges)));
    } else {
        set("model", GgufValue::String("llama".to_owned()));
        set("scores", GgufValue::Array(GgufArray::F32(tokens.iter().map(rank).collect())));
        set("add_space_prefix", GgufValue::Bool(false));
    }
    set("tokens", GgufValue::Array(GgufArray::Strings(tokens)));
    set("bos_token_id", GgufValue::U32(2));
    set("eos_token_id", GgufValue::U32(1));
    set("unknown_token_id", GgufValue::U32(3));
    set("add_bos_token", GgufValue::Bool(true));
}

#[test]
fn gemma_vocabularies_under_both_names() {
    let models = [true, false].map(|as_gpt2| gguf(ShapePreset::TinyGemma3, |m| gemma_metadata(m, as_gpt2)));
    for text in ["a cat", "  two  spaces", "ünïcode", "", "x", "the end"] {
        let ids = models.each_ref().map(|model| {
            let tokenizer = model.require_tokenizer().unwrap();
            let ids = tokenizer.encode(text, bitnet_text::EncodeOptions::PROMPT).unwrap();
            assert_eq!(tokenizer.decode(&ids, true), text);
            ids
        });
        assert_eq!(ids[0], ids[1], "{text}");
        assert_eq!(ids[0][0], 2, "begins with <bos>");
    }
    let tokenizer = models[0].require_tokenizer().unwrap();
    let ids = tokenizer.encode("a cat", bitnet_text::EncodeOptions::PLAIN).unwrap();
    let spelled: Vec<&str> = ids.iter().map(|&id| tokenizer.token_str(id).unwrap()).collect();
    assert_eq!(spelled, ["a", "\u{2581}ca", "t"], "no space before the text");
}

#[test]
fn damaged_configurations_are_errors_or_models() {
    let whole = Folder::vector(MODELS[1]);
    let dir = tempfile::tempdir().unwrap();
    whole.write(dir.path());
    let keys: Vec<String> = whole.config.as_object().unwrap().keys().cloned().collect();
    let values = [
        json!(0),
        json!(-1),
        json!(1),
        json!(7),
        json!(1u64 << 40),
        json!(1e300),
        json!(0.5),
        json!(null),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
        json!(["sliding_attention"]),
    ];
    let (mut loaded, mut failed) = (0, 0);
    for key in keys {
        for value in &values {
            let mut config = whole.config.clone();
            config[&key] = value.clone();
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            match load_path(dir.path()) {
                Ok(model) => {
                    model.spec.validate().unwrap();
                    loaded += 1;
                }
                Err(error) => {
                    assert!(!error.to_string().contains('\n'), "{error}");
                    failed += 1;
                }
            }
        }
    }
    assert!(loaded > 30 && failed > 100, "{loaded} {failed}");
}
