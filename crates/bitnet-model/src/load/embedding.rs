//! [`EmbeddingDefaults`]: how a model wants its embeddings to be made.
//!
//! Folders say it in the files of sentence-transformers (`modules.json`, `1_Pooling/config.json`), GGUF files in
//! `<architecture>.pooling_type`.

use std::fmt;
use std::str::FromStr;

use bitnet_formats::GgufFile;
use serde_json::Value;

use super::error::{LoadError, Result};
use super::folder::Folder;
use super::json::JsonFile;

/// How the hidden states of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The state of the last token.
    #[default]
    Last,
    /// The mean over all tokens.
    Mean,
    /// The state of the first token.
    Cls,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Last, Self::Mean, Self::Cls];

    /// The name that [`FromStr`] reads.
    pub const fn name(self) -> &'static str {
        match self {
            Pooling::Last => "last",
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        }
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no [`Pooling`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no pooling {0:?}; choose last, mean or cls")]
pub struct UnknownPooling(pub String);

impl FromStr for Pooling {
    type Err = UnknownPooling;

    fn from_str(name: &str) -> Result<Self, UnknownPooling> {
        let plain = name.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|pooling| pooling.name() == plain)
            .ok_or_else(|| UnknownPooling(name.to_owned()))
    }
}

/// What a model says about its embeddings. What it says nothing about is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmbeddingDefaults {
    /// How states are pooled.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length one.
    pub normalize: Option<bool>,
    /// Texts that are put before others, by name: `query`, `document`.
    pub prompts: Vec<(String, String)>,
}

/// Reads the files of sentence-transformers, if they are there.
///
/// # Errors
/// If a file is not JSON, or not of the shape that such files have.
pub(super) fn from_folder(folder: &Folder<'_>, warnings: &mut Vec<String>) -> Result<EmbeddingDefaults> {
    let mut defaults = EmbeddingDefaults { prompts: prompts(folder)?, ..EmbeddingDefaults::default() };
    let name = "modules.json";
    let Some(view) = folder.open(name)? else { return Ok(defaults) };
    let origin = folder.origin(name);
    let modules: Vec<Value> = serde_json::from_slice(view.as_slice())
        .map_err(|error| LoadError::Json { file: origin.clone(), message: error.to_string() })?;
    for module in &modules {
        let kind = module["type"].as_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        match kind {
            "Pooling" => {
                let path = module["path"].as_str().unwrap_or("1_Pooling");
                defaults.pooling = pooling_file(folder, &origin, path, warnings)?;
            }
            "Normalize" => defaults.normalize = Some(true),
            "Transformer" => {}
            other => warnings.push(format!(
                "{origin} puts a layer {other:?} behind the model, which is not computed: embeddings are without it"
            )),
        }
    }
    Ok(defaults)
}

/// The pooling of `path/config.json`.
fn pooling_file(
    folder: &Folder<'_>,
    origin: &str,
    path: &str,
    warnings: &mut Vec<String>,
) -> Result<Option<Pooling>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if path.is_empty() || !path.chars().all(plain) {
        return Err(LoadError::Field {
            file: origin.to_owned(),
            field: "path".to_owned(),
            value: path.chars().take(60).collect(),
            expected: "the name of a folder beside it".to_owned(),
        });
    }
    let name = format!("{path}/config.json");
    let Some(view) = folder.open(&name)? else {
        warnings.push(format!(
            "{origin} names {name}, which is missing; the last token's state is the embedding"
        ));
        return Ok(None);
    };
    let file = JsonFile::parse(view.as_slice(), &folder.origin(&name))?;
    let root = file.root();
    let newer = root.text("pooling_mode")?;
    for (flag, mode, pooling) in [
        ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
        ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
        ("pooling_mode_cls_token", "cls", Pooling::Cls),
    ] {
        if root.flag(flag)? == Some(true) || newer == Some(mode) {
            return Ok(Some(pooling));
        }
    }
    warnings.push(format!(
        "{} asks for a pooling that is not computed; the last token's state is the embedding unless told otherwise",
        folder.origin(&name)
    ));
    Ok(None)
}

fn prompts(folder: &Folder<'_>) -> Result<Vec<(String, String)>> {
    let name = "config_sentence_transformers.json";
    let Some(view) = folder.open(name)? else { return Ok(Vec::new()) };
    let file = JsonFile::parse(view.as_slice(), &folder.origin(name))?;
    let root = file.root();
    let Some(Value::Object(prompts)) = root.get("prompts") else { return Ok(Vec::new()) };
    let texts = prompts.iter().filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())));
    Ok(texts.collect())
}

/// Reads the metadata of a GGUF file of the architecture `arch`. `embedding_model` says that it has a norm before every
/// projection.
pub(super) fn from_gguf(
    file: &GgufFile,
    origin: &str,
    arch: &str,
    embedding_model: bool,
    warnings: &mut Vec<String>,
) -> Result<EmbeddingDefaults> {
    let key = format!("{arch}.pooling_type");
    // 0 means none, 4 a ranking model.
    let pooling = match file.metadata.u64(&key)? {
        Some(1) => Some(Pooling::Mean),
        Some(2) => Some(Pooling::Cls),
        Some(3) => Some(Pooling::Last),
        _ => None,
    };
    if embedding_model && pooling == Some(Pooling::Mean) {
        warnings.push(format!(
            "{origin}: {key} is mean, which the converter writes where it finds no modules.json; BitNet embedding models \
             want the last token's state (--pooling last)"
        ));
    }
    Ok(EmbeddingDefaults { pooling, ..EmbeddingDefaults::default() })
}
