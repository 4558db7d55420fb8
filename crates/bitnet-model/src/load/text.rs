//! Tokenizer and chat template of a model, from the files of a folder or the metadata of a GGUF.
//!
//! A model without a usable tokenizer still loads, with a note that says why; a damaged tokenizer is an error.

use std::path::Path;
use std::sync::Arc;

use bitnet_core::bytes::ByteView;
use bitnet_formats::GgufFile;
use bitnet_text::{
    AddedTokenInfo, ChatTemplate, TextError, Tokenizer, TokenizerConfig, VocabModel, VocabSpec,
};

use super::config::{Class, HfConfig};
use super::error::{LoadError, Result};
use super::folder::Folder;
use super::outline::{NOT_READ, is_glancing};
use super::{GenerationDefaults, LoadOptions};

/// How a model reads and writes.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The tokenizer.
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    /// Why there is none.
    pub(super) note: Option<String>,
    /// The chat template.
    pub(super) template: Option<ChatTemplate>,
}

/// A tokenizer, or why there is none.
type Found = std::result::Result<Tokenizer, String>;

/// Vocabulary size of Llama 3, with which models of the 2B-4T family come.
const LLAMA3_VOCABULARY: usize = 128_256;

/// What Qwen3 embedding models end a text with, whatever their configuration calls the end.
const QWEN_END: &str = "<|endoftext|>";

/// Reads tokenizer and template of a folder, and adds the stop tokens that they know. `is_embedding` says that the model
/// was made for embeddings.
///
/// # Errors
/// If a file is damaged or does not fit the others.
pub(super) fn from_folder(
    folder: &Folder<'_>,
    config: &HfConfig,
    is_embedding: bool,
    options: &LoadOptions,
    generation: &mut GenerationDefaults,
    warnings: &mut Vec<String>,
) -> Result<Text> {
    let settings = match folder.open("tokenizer_config.json")? {
        Some(view) => TokenizerConfig::from_json(view.as_slice(), &folder.origin("tokenizer_config.json"))?,
        None => TokenizerConfig::default(),
    };
    let mut found = match &options.tokenizer {
        Some(path) => from_file(path)?,
        None => in_folder(folder, &settings)?,
    };
    if let Ok(tokenizer) = &mut found {
        if let Some(bos) = settings.bos_token.as_deref().and_then(|name| tokenizer.token_id(name)) {
            tokenizer.set_bos(Some(bos));
        }
        if let Some(adds) = settings.add_bos_token {
            tokenizer.set_adds_bos(adds);
        }
        set_end(tokenizer, config, is_embedding, &settings);
        generation
            .stop_tokens
            .extend(settings.eos_token.as_deref().and_then(|name| tokenizer.token_id(name)));
        warn_of_size(tokenizer, config.spec.vocab_size, warnings);
    }
    let own = match folder.open("chat_template.jinja")? {
        Some(view) => Some((String::from_utf8_lossy(view.as_slice()).into_owned(), "chat_template.jinja")),
        None => settings.chat_template.clone().map(|source| (source, "tokenizer_config.json")),
    };
    let own = own.map(|(source, file)| (source, folder.origin(file)));
    let bos = settings.bos_token.unwrap_or_default();
    let eos = settings.eos_token.unwrap_or_default();
    let mut template = choose_template(options, own, &bos, &eos, warnings)?;
    if template.is_none() && config.is_2b_class() && config.spec.vocab_size == LLAMA3_VOCABULARY {
        template = Some(ChatTemplate::bitnet_2b());
    }
    Ok(finish(found, template))
}

/// Reads tokenizer and template of a GGUF file, and adds the stop tokens that it names.
///
/// # Errors
/// If the metadata contradict themselves.
pub(super) fn from_gguf(
    file: &GgufFile,
    origin: &str,
    vocab_size: usize,
    options: &LoadOptions,
    generation: &mut GenerationDefaults,
    warnings: &mut Vec<String>,
) -> Result<Text> {
    let meta = &file.metadata;
    let token = |name: &str| -> Result<Option<u32>> {
        Ok(meta.u64(&format!("tokenizer.ggml.{name}"))?.and_then(|id| u32::try_from(id).ok()))
    };
    let mut found = match &options.tokenizer {
        Some(path) => from_file(path)?,
        None => embedded(file, origin)?,
    };
    if let Ok(tokenizer) = &mut found
        && meta.bool("tokenizer.ggml.add_eos_token")? == Some(true)
    {
        tokenizer.set_end(token("eos_token_id")?);
    }
    for name in ["eos_token_id", "eot_token_id"] {
        generation.stop_tokens.extend(token(name)?);
    }
    generation.bos = token("bos_token_id")?;
    let spelling = |id: Option<u32>| match (&found, id) {
        (Ok(tokenizer), Some(id)) => tokenizer.token_str(id).unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let (bos, eos) = (spelling(generation.bos), spelling(token("eos_token_id")?));
    let key = "tokenizer.chat_template";
    let own = meta.string(key)?.map(|source| (source.to_owned(), format!("{origin}: {key}")));
    let template = choose_template(options, own, &bos, &eos, warnings)?;
    if let Ok(tokenizer) = &found {
        warn_of_size(tokenizer, vocab_size, warnings);
    }
    Ok(finish(found, template))
}

/// Tells the tokenizer what belongs behind a whole text.
fn set_end(tokenizer: &mut Tokenizer, config: &HfConfig, is_embedding: bool, settings: &TokenizerConfig) {
    if tokenizer.end().is_some() {
        return;
    }
    let qwen = tokenizer.token_id(QWEN_END).filter(|_| is_embedding && config.class == Class::Qwen3);
    if qwen.is_some() {
        tokenizer.set_end(qwen);
    } else if settings.add_eos_token == Some(true) {
        tokenizer.set_end(settings.eos_token.as_deref().and_then(|name| tokenizer.token_id(name)));
    }
}

fn finish(found: Found, template: Option<ChatTemplate>) -> Text {
    match found {
        Ok(tokenizer) => Text { tokenizer: Some(Arc::new(tokenizer)), note: None, template },
        Err(note) => Text { tokenizer: None, note: Some(note), template },
    }
}

fn warn_of_size(tokenizer: &Tokenizer, vocab_size: usize, warnings: &mut Vec<String>) {
    if tokenizer.vocab_size() > vocab_size {
        warnings.push(format!(
            "the tokenizer has {} tokens but the model only {vocab_size}; they may not belong together",
            tokenizer.vocab_size()
        ));
    }
}

/// What the tokenizer of a model needs and this engine does not do is no reason not to load the model.
fn tolerate(result: std::result::Result<Tokenizer, TextError>) -> Result<Found> {
    match result {
        Ok(tokenizer) => Ok(Ok(tokenizer)),
        Err(error @ (TextError::Unsupported { .. } | TextError::UnknownPreTokenizer { .. })) => {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// A tokenizer file that a person gave; its kind is told by the content.
fn from_file(path: &Path) -> Result<Found> {
    let origin = path.display().to_string();
    let view = ByteView::map_file(path)?;
    match from_bytes(view.as_slice(), &[], &origin)? {
        Ok(tokenizer) => Ok(Ok(tokenizer)),
        Err(what) => Err(LoadError::Unsupported {
            file: origin,
            what,
            remedy: "give a tokenizer.json, a tiktoken file or a SentencePiece model with --tokenizer",
        }),
    }
}

fn in_folder(folder: &Folder<'_>, settings: &TokenizerConfig) -> Result<Found> {
    let names = ["tokenizer.json", "tokenizer.model"];
    if is_glancing() && names.into_iter().any(|name| matches!(folder.open(name), Ok(Some(_)))) {
        return Ok(Err(NOT_READ.to_owned()));
    }
    if let Some(view) = folder.open("tokenizer.json")? {
        return tolerate(Tokenizer::from_json(view.as_slice(), &folder.origin("tokenizer.json")));
    }
    let Some(view) = folder.open("tokenizer.model")? else {
        return Ok(Err("the folder has neither tokenizer.json nor tokenizer.model".to_owned()));
    };
    const ADDED: &str = "added_tokens.json";
    let added = match folder.open(ADDED)? {
        Some(file) => settings.with_added_tokens_file(file.as_slice(), &folder.origin(ADDED))?,
        None => settings.added_tokens.clone(),
    };
    from_bytes(view.as_slice(), &added, &folder.origin("tokenizer.model"))
}

/// Tells `tokenizer.json`, tiktoken text and SentencePiece models apart by content. `added` are the tokens that are not in
/// a SentencePiece model itself.
fn from_bytes(bytes: &[u8], added: &[AddedTokenInfo], origin: &str) -> Result<Found> {
    match bytes.trim_ascii_start().first() {
        Some(b'{') => tolerate(Tokenizer::from_json(bytes, origin)),
        _ if is_tiktoken(bytes) => tolerate(Tokenizer::from_tiktoken(bytes, origin)),
        _ if Tokenizer::is_sentencepiece(bytes) => {
            tolerate(Tokenizer::from_sentencepiece(bytes, added, origin))
        }
        _ => Ok(Err(format!("{origin} is of unknown content, which is not read"))),
    }
}

/// Whether the first line is a token in base64 and a rank.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(4096)];
    let Some(line) = head.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty()) else {
        return false;
    };
    let mut parts = line.split(|&b| b == b' ');
    let (token, rank) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    !token.is_empty()
        && token.iter().all(base64)
        && !rank.is_empty()
        && rank.iter().all(u8::is_ascii_digit)
        && parts.next().is_none()
}

/// The vocabulary inside a GGUF file.
fn embedded(file: &GgufFile, origin: &str) -> Result<Found> {
    let meta = &file.metadata;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let model = match meta.string(&key("model"))? {
        Some("gpt2") => VocabModel::Gpt2,
        Some("llama") => VocabModel::Llama,
        Some(other) => {
            return Ok(Err(format!("tokenizer.ggml.model is {other:?}; gpt2 and llama are supported")));
        }
        None => return Ok(Err("the file has no tokenizer.ggml.model".to_owned())),
    };
    if is_glancing() {
        return Ok(Err(NOT_READ.to_owned()));
    }
    let id = |name: &str| -> Result<Option<u32>> {
        Ok(meta.u64(&key(name))?.map(|id| u32::try_from(id).unwrap_or(u32::MAX)))
    };
    let mut spec = VocabSpec {
        model,
        pre: meta.string(&key("pre"))?.map(str::to_owned),
        tokens: meta.strings(&key("tokens"))?.unwrap_or_default().to_vec(),
        scores: meta.f32s(&key("scores"))?.unwrap_or_default().to_vec(),
        token_types: meta.i32s(&key("token_type"))?.unwrap_or_default().to_vec(),
        merges: meta.strings(&key("merges"))?.unwrap_or_default().to_vec(),
        bos: id("bos_token_id")?,
        add_bos: meta.bool(&key("add_bos_token"))?,
        add_space_prefix: meta.bool(&key("add_space_prefix"))?,
        unknown: id("unknown_token_id")?,
    };
    make_sentence_piece(&mut spec);
    tolerate(Tokenizer::from_vocab(spec, origin))
}

/// Gemma's vocabulary spells spaces as SentencePiece does, but some converters call it `gpt2` and list merges. The same
/// tokens come of scores that fall with the place of the merge; tokens that no merge makes get the lowest.
fn make_sentence_piece(spec: &mut VocabSpec) {
    let spelled = |token: &&String| token.starts_with('\u{2581}');
    let bytes = spec.tokens.iter().filter(|token| token.starts_with("<0x") && token.len() == 6).count();
    if spec.model != VocabModel::Gpt2 || bytes < 256 || spec.tokens.iter().filter(spelled).count() < 256 {
        return;
    }
    let mut ranks = std::collections::HashMap::new();
    for (rank, merge) in spec.merges.iter().enumerate() {
        ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
    }
    let score = |token: &String| ranks.get(token).map_or(f32::MIN, |&rank| -(rank as f32));
    spec.scores = spec.tokens.iter().map(score).collect();
    for (token, kind) in spec.tokens.iter().zip(&mut spec.token_types) {
        if *kind == 1 && token.starts_with("<0x") && token.len() == 6 {
            *kind = 6;
        }
    }
    spec.model = VocabModel::Llama;
    spec.merges.clear();
    spec.add_space_prefix = spec.add_space_prefix.or(Some(false));
}

/// The template that was asked for, else the model's own unless it is known to be wrong.
fn choose_template(
    options: &LoadOptions,
    own: Option<(String, String)>,
    bos: &str,
    eos: &str,
    warnings: &mut Vec<String>,
) -> Result<Option<ChatTemplate>> {
    if let Some(source) = &options.chat_template {
        return Ok(Some(ChatTemplate::new(source, bos, eos, "the chat template given")?));
    }
    let Some((source, origin)) = own else { return Ok(None) };
    if ChatTemplate::is_known_wrong(&source) {
        warnings.push(format!(
            "{origin} is the template that converters write into every BitNet model and none is trained on; \
             that of bitnet-b1.58-2B-4T is used instead"
        ));
        return Ok(Some(ChatTemplate::bitnet_2b()));
    }
    match ChatTemplate::new(&source, bos, eos, &origin) {
        Ok(template) => Ok(Some(template)),
        Err(error) => {
            warnings.push(format!("the model's chat template cannot be used: {error}"));
            Ok(None)
        }
    }
}
