//! [`TokenizerConfig`]: the parts of `tokenizer_config.json` that matter for encoding and chat.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Result, TextError};
use crate::tokenizer::looks_like_control;

/// What `tokenizer_config.json` says. Everything is optional in such files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Spelling of the begin-of-text token.
    pub bos_token: Option<String>,
    /// Spelling of the end-of-text token.
    pub eos_token: Option<String>,
    /// Spelling of the padding token.
    pub pad_token: Option<String>,
    /// Spelling of the unknown token.
    pub unk_token: Option<String>,
    /// Source of the chat template. Of several, the one named `default`, else the first.
    pub chat_template: Option<String>,
    /// Whether prompts begin with the begin-of-text token.
    pub add_bos_token: Option<bool>,
    /// Whether texts end with the end-of-text token.
    pub add_eos_token: Option<bool>,
    /// Name of the class that the file was written for.
    pub tokenizer_class: Option<String>,
    /// `added_tokens_decoder`: tokens that are taken whole, some of them beyond the vocabulary file. In order of their ids.
    pub added_tokens: Vec<AddedTokenInfo>,
}

/// A token that is taken whole, as configuration files describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedTokenInfo {
    /// Its id.
    pub id: u32,
    /// Its spelling.
    pub content: String,
    /// Whether it is a control token, which no user may write.
    pub special: bool,
    /// Whether it takes the white space before it along.
    pub lstrip: bool,
    /// Whether it takes the white space after it along.
    pub rstrip: bool,
    /// Whether it does not count inside a word.
    pub single_word: bool,
}

/// An entry of `added_tokens_decoder`, under its id.
#[derive(Deserialize)]
struct AddedFile {
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

/// The file as it is.
#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    bos_token: Value,
    #[serde(default)]
    eos_token: Value,
    #[serde(default)]
    pad_token: Value,
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    chat_template: Value,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    tokenizer_class: Option<String>,
    #[serde(default)]
    added_tokens_decoder: Option<BTreeMap<u32, AddedFile>>,
}

impl TokenizerConfig {
    /// Reads a `tokenizer_config.json`. `origin` is the file's name, for messages.
    ///
    /// # Errors
    /// [`TextError::Json`] if it is not JSON, [`TextError::Invalid`] naming a field of another type than such files
    /// have.
    pub fn from_json(bytes: &[u8], origin: &str) -> Result<Self> {
        let file: ConfigFile = serde_json::from_slice(bytes).map_err(|error| TextError::Json {
            origin: origin.to_owned(),
            expected: "a tokenizer_config.json",
            message: error.to_string(),
        })?;
        Ok(Self {
            bos_token: token(file.bos_token, "bos_token", origin)?,
            eos_token: token(file.eos_token, "eos_token", origin)?,
            pad_token: token(file.pad_token, "pad_token", origin)?,
            unk_token: token(file.unk_token, "unk_token", origin)?,
            chat_template: template(file.chat_template, origin)?,
            add_bos_token: file.add_bos_token,
            add_eos_token: file.add_eos_token,
            tokenizer_class: file.tokenizer_class,
            added_tokens: file.added_tokens_decoder.unwrap_or_default().into_iter().map(added).collect(),
        })
    }

    /// Reads an `added_tokens.json`, spellings with their ids, and puts [`added_tokens`](Self::added_tokens) with it, which
    /// go first where both name an id. Tokens that this configuration uses as begin, end, padding or unknown are special,
    /// and such as look like it.
    ///
    /// # Errors
    /// [`TextError::Json`] if the file is something else.
    pub fn with_added_tokens_file(&self, bytes: &[u8], origin: &str) -> Result<Vec<AddedTokenInfo>> {
        let file: BTreeMap<String, u32> = serde_json::from_slice(bytes).map_err(|error| TextError::Json {
            origin: origin.to_owned(),
            expected: "an added_tokens.json",
            message: error.to_string(),
        })?;
        let named = [&self.bos_token, &self.eos_token, &self.pad_token, &self.unk_token];
        let mut all = self.added_tokens.clone();
        for (content, id) in file {
            if all.iter().all(|token| token.id != id) {
                let special = named.iter().any(|name| name.as_deref() == Some(&content))
                    || looks_like_control(&content);
                all.push(AddedTokenInfo {
                    id,
                    content,
                    special,
                    lstrip: false,
                    rstrip: false,
                    single_word: false,
                });
            }
        }
        all.sort_by_key(|token| token.id);
        Ok(all)
    }
}

fn added((id, file): (u32, AddedFile)) -> AddedTokenInfo {
    let AddedFile { content, special, lstrip, rstrip, single_word } = file;
    AddedTokenInfo { id, content, special, lstrip, rstrip, single_word }
}

/// A token is its spelling, or an object that has it as `content`.
fn token(value: Value, field: &str, origin: &str) -> Result<Option<String>> {
    let value = match value {
        Value::Object(mut object) => object.remove("content").unwrap_or(Value::Bool(false)),
        other => other,
    };
    match value {
        Value::Null => Ok(None),
        Value::String(spelling) => Ok(Some(spelling)),
        _ => Err(TextError::invalid(
            origin,
            field,
            "neither a string nor an object with a string as \"content\"",
        )),
    }
}

/// A template is its source, or one of a list of objects with `name` and `template`.
fn template(value: Value, origin: &str) -> Result<Option<String>> {
    let shape =
        || TextError::invalid(origin, "chat_template", "neither a string nor a list of named templates");
    match value {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source)),
        Value::Array(list) => {
            let chosen = list.iter().find(|entry| entry["name"] == "default").or(list.first());
            chosen.map(|entry| entry["template"].as_str().map(str::to_owned).ok_or_else(shape)).transpose()
        }
        _ => Err(shape()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<TokenizerConfig> {
        TokenizerConfig::from_json(json.as_bytes(), "tokenizer_config.json")
    }

    #[test]
    fn tokens_are_strings_or_objects() {
        let config = read(
            r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
                "add_bos_token": false, "chat_template": "{{ x }}", "other": [1]}"#,
        )
        .unwrap();
        assert_eq!(config.bos_token.as_deref(), Some("<s>"));
        assert_eq!(config.eos_token.as_deref(), Some("</s>"));
        assert_eq!((config.pad_token, config.unk_token), (None, None));
        assert_eq!(config.add_bos_token, Some(false));
        assert_eq!(config.chat_template.as_deref(), Some("{{ x }}"));
        assert_eq!(read("{}").unwrap(), TokenizerConfig::default());
    }

    #[test]
    fn added_tokens_of_both_files() {
        let config = read(
            r#"{"pad_token": "<pad>", "added_tokens_decoder": {"10": {"content": "x", "lstrip": true}, "2": {"content": "</s>", "special": true}}}"#,
        )
        .unwrap();
        let ids: Vec<u32> = config.added_tokens.iter().map(|token| token.id).collect();
        assert_eq!(
            (ids, config.added_tokens[1].lstrip, config.added_tokens[0].special),
            (vec![2, 10], true, true)
        );
        let all = config
            .with_added_tokens_file(br#"{"<pad>": 11, "y": 10, "z": 3, "<|im|>": 12}"#, "added")
            .unwrap();
        let told: Vec<(u32, &str, bool)> =
            all.iter().map(|token| (token.id, token.content.as_str(), token.special)).collect();
        assert_eq!(
            told,
            [(2, "</s>", true), (3, "z", false), (10, "x", false), (11, "<pad>", true), (12, "<|im|>", true)]
        );
        let error = config.with_added_tokens_file(b"[]", "added").unwrap_err().to_string();
        assert!(error.contains("an added_tokens.json"), "{error}");
    }

    #[test]
    fn the_default_of_several_templates_is_taken() {
        let two =
            r#"{"chat_template": [{"name": "tool", "template": "a"}, {"name": "default", "template": "b"}]}"#;
        assert_eq!(read(two).unwrap().chat_template.as_deref(), Some("b"));
        let one = r#"{"chat_template": [{"name": "tool", "template": "a"}]}"#;
        assert_eq!(read(one).unwrap().chat_template.as_deref(), Some("a"));
        assert_eq!(read(r#"{"chat_template": []}"#).unwrap().chat_template, None);
    }

    #[test]
    fn wrong_types_name_the_field() {
        for (json, part) in [
            (r#"{"bos_token": 1}"#, "bos_token: neither"),
            (r#"{"eos_token": {"id": 2}}"#, "eos_token: neither"),
            (r#"{"chat_template": [{"name": "default"}]}"#, "chat_template: neither"),
            (r#"{"add_bos_token": "yes"}"#, "invalid type"),
            ("{", "a tokenizer_config.json"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
