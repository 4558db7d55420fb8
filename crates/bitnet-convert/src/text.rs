//! Tokenizer, chat template, special tokens and sampling defaults, carried over between folders and GGUF files.

mod check;

use bitnet_formats::{GgufArray, GgufValue};
use bitnet_model::load::GenerationDefaults;
use bitnet_text::{ChatTemplate, TokenizerConfig, VocabModel, VocabSpec};
use serde_json::{Map, Value, json};

pub(crate) use check::compare;

use crate::error::Result;
use crate::source::Source;

/// Names of tokens that end a turn.
const TURN_ENDS: [&str; 2] = ["<|eot_id|>", "<|im_end|>"];
/// A score below all that merges have.
const UNUSED_SCORE: f32 = -1e9;
/// Type of a token that is never produced.
const UNUSED: i32 = 5;

/// Small files by name.
type Files = Vec<(String, Vec<u8>)>;

/// The metadata `tokenizer.*` of a GGUF file.
///
/// # Errors
/// If the tokenizer is of a kind that GGUF has no name for.
pub(crate) fn gguf(source: &Source, notes: &mut Vec<String>) -> Result<Vec<(String, GgufValue)>> {
    let model = &source.model;
    let lost = sampling(&model.generation);
    if !lost.is_empty() {
        let names: Vec<&str> = lost.iter().map(|(name, _)| *name).collect();
        notes.push(format!("GGUF files hold no sampling defaults; lost are {}", names.join(", ")));
    }
    let Some(tokenizer) = &model.tokenizer else {
        notes.push(format!("there is no tokenizer to carry over{}", why(source)));
        return Ok(template_key(source).into_iter().collect());
    };
    if let (Some(metadata), false) = (&source.metadata, source.tokenizer_given) {
        let tokens = metadata.iter().filter(|(key, _)| key.starts_with("tokenizer."));
        let mut all: Vec<(String, GgufValue)> =
            tokens.map(|(key, value)| (key.to_owned(), value.clone())).collect();
        complete(source, &mut all, notes);
        return Ok(all);
    }
    let export = tokenizer.to_vocab()?;
    notes.extend(export.notes);
    let mut spec = export.spec;
    pad(&mut spec, model.spec.vocab_size);
    let mut all = vocabulary(spec);
    let id = |name: &str, id: u32| (format!("tokenizer.ggml.{name}"), GgufValue::U32(id));
    let stops = &model.generation.stop_tokens;
    all.extend(stops.first().map(|&eos| id("eos_token_id", eos)));
    all.extend(turn_end(source).map(|eot| id("eot_token_id", eot)));
    let padding = settings(source).pad_token.and_then(|name| tokenizer.token_id(&name));
    all.extend(padding.map(|padding| id("padding_token_id", padding)));
    all.extend(template_key(source));
    Ok(all)
}

/// Why a model has no tokenizer, for a sentence to end with.
fn why(source: &Source) -> String {
    source.model.tokenizer_note.as_ref().map(|note| format!(": {note}")).unwrap_or_default()
}

fn template_key(source: &Source) -> Option<(String, GgufValue)> {
    let template = source.model.chat_template.as_ref()?;
    Some(("tokenizer.chat_template".to_owned(), GgufValue::String(template.source().to_owned())))
}

/// The stop token that ends a turn, by its name.
fn turn_end(source: &Source) -> Option<u32> {
    let tokenizer = source.model.tokenizer.as_ref()?;
    let stops = &source.model.generation.stop_tokens;
    TURN_ENDS.iter().filter_map(|name| tokenizer.token_id(name)).find(|id| stops.contains(id))
}

/// Adds to the metadata of a GGUF file what its converter left out or got wrong.
fn complete(source: &Source, all: &mut Vec<(String, GgufValue)>, notes: &mut Vec<String>) {
    let has = |all: &[(String, GgufValue)], key: &str| all.iter().any(|(other, _)| other == key);
    let key = "tokenizer.chat_template";
    let old = all.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone());
    if let Some((name, template)) = template_key(source)
        && old.as_ref() != Some(&template)
    {
        all.retain(|(other, _)| other != key);
        all.push((name, template));
        if old.is_some() {
            notes.push("the chat template is replaced by the right one".to_owned());
        }
    }
    let pre = "tokenizer.ggml.pre";
    let is_bytes = source.model.tokenizer.as_ref().is_some_and(|t| t.kind().contains("gpt2"));
    if is_bytes && !has(all, pre) {
        let rule = source.model.tokenizer.as_ref().and_then(|t| t.to_vocab().ok()).and_then(|v| v.spec.pre);
        if let Some(rule) = rule {
            notes.push(format!("{pre} was missing and is {rule} now"));
            all.push((pre.to_owned(), GgufValue::String(rule)));
        }
    }
    let eot = "tokenizer.ggml.eot_token_id";
    if let Some(id) = turn_end(source).filter(|_| !has(all, eot)) {
        all.push((eot.to_owned(), GgufValue::U32(id)));
    }
}

/// Fills a vocabulary up to the rows of the embedding.
fn pad(spec: &mut VocabSpec, size: usize) {
    for id in spec.tokens.len()..size {
        spec.tokens.push(format!("[PAD{id}]"));
        spec.token_types.push(UNUSED);
        if spec.model == VocabModel::Llama {
            spec.scores.push(UNUSED_SCORE);
        }
    }
}

fn vocabulary(spec: VocabSpec) -> Vec<(String, GgufValue)> {
    let strings = |list| GgufValue::Array(GgufArray::Strings(list));
    let llama = spec.model == VocabModel::Llama;
    let mut all = vec![
        ("model", GgufValue::String(if llama { "llama" } else { "gpt2" }.to_owned())),
        ("pre", GgufValue::String(spec.pre.unwrap_or_else(|| "default".to_owned()))),
        ("tokens", strings(spec.tokens)),
        ("token_type", GgufValue::Array(GgufArray::I32(spec.token_types))),
    ];
    if llama {
        all.push(("scores", GgufValue::Array(GgufArray::F32(spec.scores))));
    } else {
        all.push(("merges", strings(spec.merges)));
    }
    all.extend(spec.bos.map(|id| ("bos_token_id", GgufValue::U32(id))));
    all.extend(spec.unknown.map(|id| ("unknown_token_id", GgufValue::U32(id))));
    all.extend(spec.add_bos.map(|adds| ("add_bos_token", GgufValue::Bool(adds))));
    all.extend(spec.add_space_prefix.map(|adds| ("add_space_prefix", GgufValue::Bool(adds))));
    all.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect()
}

/// What `tokenizer_config.json` of the source says.
fn settings(source: &Source) -> TokenizerConfig {
    let file = source.files.get("tokenizer_config.json");
    // It was read without fault when the model was loaded.
    file.and_then(|view| TokenizerConfig::from_json(view.as_slice(), "tokenizer_config.json").ok())
        .unwrap_or_default()
}

/// The small files of a folder beside `config.json`.
///
/// # Errors
/// If the tokenizer is of a kind that cannot be put as `tokenizer.json`.
pub(crate) fn folder(source: &Source, notes: &mut Vec<String>) -> Result<Files> {
    let mut files: Files = source
        .files
        .iter()
        .filter(|(name, _)| **name != "config.json")
        .map(|(name, view)| ((*name).to_owned(), view.as_slice().to_vec()))
        .collect();
    if source.tokenizer_given {
        files.retain(|(name, _)| !matches!(name.as_str(), "tokenizer.json" | "tokenizer.model"));
    }
    add_tokenizer(source, &mut files, notes)?;
    // What has no configuration of its own (GGUF, checkpoints of Microsoft, a lone ONNX file) told its stop tokens otherwise.
    if !has(&files, "generation_config.json") && !source.files.contains_key("config.json") {
        files.push(("generation_config.json".to_owned(), pretty(&generation(source))));
    }
    set_template(source, &mut files);
    Ok(files)
}

fn has(files: &[(String, Vec<u8>)], name: &str) -> bool {
    files.iter().any(|(other, _)| other == name)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// `tokenizer.json` is what transformers and all others read: it is made where it is missing.
fn add_tokenizer(source: &Source, files: &mut Files, notes: &mut Vec<String>) -> Result<()> {
    if has(files, "tokenizer.json") {
        return Ok(());
    }
    let Some(tokenizer) = &source.model.tokenizer else {
        notes.push(format!("there is no tokenizer to carry over{}", why(source)));
        return Ok(());
    };
    let made = tokenizer.to_vocab().and_then(|export| {
        notes.extend(export.notes.iter().cloned());
        Ok((export.spec.to_tokenizer_json(tokenizer.kind())?, export.spec))
    });
    let (json, spec) = match made {
        Ok(made) => made,
        Err(error) if has(files, "tokenizer.model") => {
            notes.push(format!("no tokenizer.json is made beside tokenizer.model: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    // In one line: indented, it would be several times as large.
    files.push(("tokenizer.json".to_owned(), json.to_string().into_bytes()));
    if !has(files, "tokenizer_config.json") {
        files.push(("tokenizer_config.json".to_owned(), pretty(&tokenizer_config(source, &spec))));
    }
    Ok(())
}

fn tokenizer_config(source: &Source, spec: &VocabSpec) -> Value {
    let spelling = |id: Option<u32>| id.and_then(|id| spec.tokens.get(id as usize).cloned());
    let named = |key: &str| {
        let metadata = source.metadata.as_ref()?;
        let id = metadata.u64(&format!("tokenizer.ggml.{key}")).ok().flatten()?;
        spelling(u32::try_from(id).ok())
    };
    let stops = &source.model.generation.stop_tokens;
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": spelling(spec.bos),
        "eos_token": named("eos_token_id").or_else(|| spelling(stops.first().copied())),
        "add_bos_token": spec.add_bos,
        "clean_up_tokenization_spaces": false,
        "model_max_length": source.model.spec.context_length
    });
    for (key, token) in [("pad_token", named("padding_token_id")), ("unk_token", spelling(spec.unknown))] {
        if let (Some(token), Some(map)) = (token, config.as_object_mut()) {
            map.insert(key.to_owned(), token.into());
        }
    }
    config
}

/// `generation_config.json` of a model that came without one.
fn generation(source: &Source) -> Value {
    let defaults = &source.model.generation;
    let mut map = Map::new();
    if let Some(bos) = defaults.bos {
        map.insert("bos_token_id".to_owned(), bos.into());
    }
    map.insert("eos_token_id".to_owned(), defaults.stop_tokens.clone().into());
    map.extend(sampling(defaults).into_iter().map(|(name, value)| (name.to_owned(), value)));
    Value::Object(map)
}

/// The sampling defaults that a model sets.
fn sampling(defaults: &GenerationDefaults) -> Vec<(&'static str, Value)> {
    // A float as its shortest decimal, not as the nearest double of its nearest single.
    let number = |v: Option<f32>| v.and_then(|v| v.to_string().parse::<f64>().ok()).map(Value::from);
    let all = [
        ("do_sample", defaults.do_sample.map(Value::from)),
        ("temperature", number(defaults.temperature)),
        ("top_k", defaults.top_k.map(Value::from)),
        ("top_p", number(defaults.top_p)),
        ("min_p", number(defaults.min_p)),
        ("repetition_penalty", number(defaults.repetition_penalty)),
        ("max_new_tokens", defaults.max_new_tokens.map(Value::from)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Sees to it that the files hold the template that the model was loaded with: its own, the corrected one or one given.
fn set_template(source: &Source, files: &mut Files) {
    let Some(template) = source.model.chat_template.as_ref().map(ChatTemplate::source) else { return };
    let file = files.iter().find(|(name, _)| name == "chat_template.jinja");
    let own = match file {
        Some((_, content)) => Some(String::from_utf8_lossy(content).into_owned()),
        None => settings(source).chat_template,
    };
    if own.as_deref() == Some(template) {
        return;
    }
    files.retain(|(name, _)| name != "chat_template.jinja");
    let place = files.iter().position(|(name, _)| name == "tokenizer_config.json");
    let mut config = place
        .and_then(|place| serde_json::from_slice::<Map<String, Value>>(&files[place].1).ok())
        .unwrap_or_default();
    config.insert("chat_template".to_owned(), template.into());
    let content = pretty(&Value::Object(config));
    match place {
        Some(place) => files[place].1 = content,
        None => files.push(("tokenizer_config.json".to_owned(), content)),
    }
}
