//! [`TokenizerConfig`]: the parts of `tokenizer_config.json` that matter for encoding and chat.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Result, TextError};

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
        })
    }
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
