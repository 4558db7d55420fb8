//! Reader of Hugging Face's `tokenizer.json`. The common shape, byte-level BPE with a known splitting rule and no
//! normaliser, is encoded natively; any other goes to [`library`].

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::added::AddedToken;
use super::bpe::{ByteBpe, resolve_merges};
use super::split::SplitRule;
use super::vocab::{TokenKind, Vocabulary, check_id_range};
use super::{Engine, Parts, bytes, library};
use crate::error::{Result, TextError};

/// The parts of the file that matter here.
#[derive(Deserialize)]
pub(super) struct TokenizerFile<'a> {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedEntry>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    pub(super) decoder: Value,
    #[serde(borrow)]
    pub(super) model: &'a RawValue,
}

/// One of `added_tokens`.
#[derive(Deserialize)]
pub(super) struct AddedEntry {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    pub(super) special: bool,
}

impl AddedEntry {
    pub(super) fn token(&self) -> AddedToken {
        AddedToken {
            lstrip: self.lstrip,
            rstrip: self.rstrip,
            single_word: self.single_word,
            ..AddedToken::plain(self.id, &self.content, self.special)
        }
    }

    fn kind(&self) -> TokenKind {
        if self.special { TokenKind::Special } else { TokenKind::Added }
    }
}

/// The model without its lists.
#[derive(Deserialize)]
pub(super) struct ModelHeader {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    /// Random omission of merges while training.
    pub(super) dropout: Option<f64>,
    #[serde(default)]
    pub(super) unk_token: Option<String>,
    #[serde(default)]
    pub(super) unk_id: Option<u32>,
    pub(super) continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    /// Present or not.
    merges: Option<IgnoredAny>,
}

impl ModelHeader {
    /// Whether the model is BPE; the oldest files do not name the type.
    pub(super) fn is_bpe(&self) -> bool {
        self.kind.as_deref().map_or(self.merges.is_some(), |kind| kind == "BPE")
    }

    /// The name of the model for messages.
    pub(super) fn name(&self) -> &str {
        self.kind.as_deref().unwrap_or(if self.merges.is_some() { "BPE" } else { "type not named" })
    }
}

/// The lists of a BPE model.
#[derive(Deserialize)]
pub(super) struct BpeLists<'a> {
    #[serde(borrow)]
    pub(super) vocab: Entries<'a>,
    #[serde(borrow)]
    pub(super) merges: Vec<Merge<'a>>,
}

/// What the post-processor says about the beginning of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Beginning {
    /// This token comes first.
    Token(String),
    /// Nothing is put before a text.
    Nothing,
    /// There is no template to tell.
    Untold,
}

/// Reads a whole file: the tokenizer, and the spelling of what the post-processor puts behind a text.
pub(super) fn read(bytes: &[u8], origin: &str) -> Result<(Parts, Option<String>)> {
    let file: TokenizerFile<'_> = parse(bytes, origin)?;
    let header: ModelHeader = parse(file.model.get().as_bytes(), origin)?;
    let mut parts = match native_rule(&file, &header) {
        Some(rule) => native(&file, &header, rule, origin)?,
        None => library::read(bytes, &file, &header, origin)?,
    };
    match beginning(&file.post_processor) {
        Beginning::Token(spelling) => {
            parts.bos = Some(parts.vocabulary.find(spelling.as_bytes()).ok_or_else(|| {
                let problem = format!("\"{}\" is not in the vocabulary", spelling.escape_debug());
                TextError::invalid(origin, "post_processor", problem)
            })?);
            parts.adds_bos = Some(true);
        }
        Beginning::Nothing => parts.adds_bos = Some(false),
        Beginning::Untold => {}
    }
    Ok((parts, ending(&file.post_processor)))
}

pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], origin: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| json_error(origin, &error))
}

pub(super) fn json_error(origin: &str, error: &dyn fmt::Display) -> TextError {
    TextError::Json { origin: origin.to_owned(), expected: "a tokenizer.json", message: error.to_string() }
}

/// The splitting rule, if the file is of the shape that is encoded natively.
fn native_rule(file: &TokenizerFile<'_>, header: &ModelHeader) -> Option<SplitRule> {
    let absent = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    let plain_bpe = header.is_bpe()
        && header.unk_token.is_none()
        && absent(&header.continuing_subword_prefix)
        && absent(&header.end_of_word_suffix)
        && !header.byte_fallback;
    if !plain_bpe || !file.normalizer.is_null() || file.decoder["type"] != "ByteLevel" {
        return None;
    }
    let bytes_only = |value: &Value| value["type"] == "ByteLevel" && value["add_prefix_space"] == false;
    if bytes_only(&file.pre_tokenizer) && file.pre_tokenizer["use_regex"] != false {
        return Some(SplitRule::Gpt2);
    }
    let [split, last] = file.pre_tokenizer["pretokenizers"].as_array()?.as_slice() else { return None };
    let isolates = split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
    if file.pre_tokenizer["type"] != "Sequence"
        || !isolates
        || !bytes_only(last)
        || last["use_regex"] != false
    {
        return None;
    }
    SplitRule::from_pattern(split["pattern"]["Regex"].as_str()?)
}

/// Builds the native encoder.
fn native(file: &TokenizerFile<'_>, header: &ModelHeader, rule: SplitRule, origin: &str) -> Result<Parts> {
    let lists: BpeLists<'_> = parse(file.model.get().as_bytes(), origin)?;
    let entries = lists.vocab.0.iter().map(|(spelling, id)| (spelling.as_ref(), *id));
    let vocabulary = vocabulary(entries, &file.added_tokens, origin, |spelling, out| {
        if bytes::decode(spelling, out) {
            return TokenKind::Normal;
        }
        // Nothing in a text is spelled like this.
        out.extend_from_slice(spelling.as_bytes());
        TokenKind::Unused
    })?;
    let pairs = lists.merges.iter().map(|merge| (merge.left.as_ref(), merge.right.as_ref()));
    let merges = resolve_merges(&vocabulary, lists.merges.len(), pairs, "model.merges", origin)?;
    let bpe = ByteBpe::new(&vocabulary, rule, merges, header.ignore_merges, None);
    Ok(Parts {
        kind: "tokenizer.json (BPE)".to_owned(),
        vocabulary,
        engine: Engine::ByteBpe(Box::new(bpe)),
        added: file.added_tokens.iter().map(AddedEntry::token).collect(),
        bos: None,
        adds_bos: None,
        drops_first_space: false,
    })
}

/// Puts vocabulary and added tokens in order of their ids. `describe` appends the bytes of a token of the vocabulary
/// and tells its kind; added tokens stand for their spelling.
pub(super) fn vocabulary<'a>(
    entries: impl ExactSizeIterator<Item = (&'a str, u32)> + Clone,
    added: &'a [AddedEntry],
    origin: &str,
    describe: impl Fn(&str, &mut Vec<u8>) -> TokenKind,
) -> Result<Vocabulary> {
    let largest = entries.clone().map(|(_, id)| id).chain(added.iter().map(|token| token.id)).max();
    let largest =
        largest.ok_or_else(|| TextError::invalid(origin, "model.vocab", "the vocabulary is empty"))?;
    check_id_range(origin, "model.vocab", largest, entries.len() + added.len())?;
    let mut by_id: Vec<Option<(&str, Option<TokenKind>)>> = vec![None; largest as usize + 1];
    for (spelling, id) in entries {
        if let Some((other, _)) =
            by_id[id as usize].replace((spelling, None)).filter(|&(other, _)| other != spelling)
        {
            let problem = format!("id {id} belongs to \"{}\" already", other.escape_debug());
            let field = format!("model.vocab[\"{}\"]", spelling.escape_debug());
            return Err(TextError::invalid(origin, field, problem));
        }
    }
    for (index, token) in added.iter().enumerate() {
        let place = &mut by_id[token.id as usize];
        if let Some((other, _)) = place.filter(|&(other, _)| other != token.content) {
            let problem = format!("id {} belongs to \"{}\" already", token.id, other.escape_debug());
            return Err(TextError::invalid(origin, format!("added_tokens[{index}]"), problem));
        }
        *place = Some((&token.content, Some(token.kind())));
    }
    let mut vocabulary = Vocabulary::with_capacity(by_id.len());
    let mut scratch = Vec::new();
    for entry in by_id {
        scratch.clear();
        match entry {
            None => vocabulary.push("", TokenKind::Absent, |_| ()),
            Some((spelling, Some(kind))) => {
                vocabulary.push(spelling, kind, |out| out.extend_from_slice(spelling.as_bytes()));
            }
            Some((spelling, None)) => {
                let kind = describe(spelling, &mut scratch);
                vocabulary.push(spelling, kind, |out| out.extend_from_slice(&scratch));
            }
        }
    }
    for (index, token) in added.iter().enumerate() {
        if let Some(other) = vocabulary.find(token.content.as_bytes()).filter(|&other| other != token.id) {
            let problem = format!(
                "\"{}\" has id {} here and {other} elsewhere",
                token.content.escape_debug(),
                token.id
            );
            return Err(TextError::invalid(origin, format!("added_tokens[{index}]"), problem));
        }
    }
    Ok(vocabulary)
}

/// The template of a post-processor.
fn template(post_processor: &Value) -> Option<&Value> {
    match post_processor["type"].as_str() {
        Some("TemplateProcessing") => Some(post_processor),
        Some("Sequence") => post_processor["processors"]
            .as_array()
            .and_then(|list| list.iter().find(|processor| processor["type"] == "TemplateProcessing")),
        _ => None,
    }
}

/// The special token that the post-processor puts behind a text.
fn ending(post_processor: &Value) -> Option<String> {
    let single = template(post_processor)?["single"].as_array()?;
    let last = single.last().filter(|_| single.len() > 1)?;
    last["SpecialToken"]["id"].as_str().map(str::to_owned)
}

/// What the post-processor puts before a text.
fn beginning(post_processor: &Value) -> Beginning {
    match template(post_processor).map(|template| &template["single"][0]) {
        None => Beginning::Untold,
        Some(first) => match first["SpecialToken"]["id"].as_str() {
            Some(spelling) => Beginning::Token(spelling.to_owned()),
            None => Beginning::Nothing,
        },
    }
}

/// A string that is borrowed from the file where it has no escapes.
#[derive(Deserialize)]
struct Spelling<'a>(#[serde(borrow)] Cow<'a, str>);

/// The vocabulary in the order of the file.
pub(super) struct Entries<'a>(pub(super) Vec<(Cow<'a, str>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token to id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Spelling(token), id)) = map.next_entry::<Spelling<'de>, u32>()? {
                    entries.push((token, id));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// One merge, written `"left right"` in older files and `["left", "right"]` in newer ones.
pub(super) struct Merge<'a> {
    pub(super) left: Cow<'a, str>,
    pub(super) right: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct MergeVisitor;

        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_borrowed_str<E: serde::de::Error>(
                self,
                text: &'de str,
            ) -> std::result::Result<Self::Value, E> {
                let (left, right) =
                    text.split_once(' ').ok_or_else(|| E::custom("a merge needs two tokens"))?;
                Ok(Merge { left: left.into(), right: right.into() })
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
                let (left, right) =
                    text.split_once(' ').ok_or_else(|| E::custom("a merge needs two tokens"))?;
                Ok(Merge { left: left.to_owned().into(), right: right.to_owned().into() })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> std::result::Result<Self::Value, A::Error> {
                let mut next = || {
                    pair.next_element::<Spelling<'de>>()?
                        .ok_or_else(|| A::Error::custom("a merge needs two tokens"))
                };
                let (Spelling(left), Spelling(right)) = (next()?, next()?);
                if pair.next_element::<Spelling<'de>>()?.is_some() {
                    return Err(A::Error::custom("a merge has two tokens only"));
                }
                Ok(Merge { left, right })
            }
        }

        deserializer.deserialize_any(MergeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_beginning_of_a_text_by_post_processor() {
        let begins = json!({"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
        let ends = json!({"type": "TemplateProcessing", "single": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]});
        let second = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, begins]});
        for (post_processor, expected) in [
            (begins, Beginning::Token("<s>".to_owned())),
            (second, Beginning::Token("<s>".to_owned())),
            (ends, Beginning::Nothing),
            (json!({"type": "ByteLevel"}), Beginning::Untold),
            (Value::Null, Beginning::Untold),
        ] {
            assert_eq!(beginning(&post_processor), expected, "{post_processor}");
            let end = (expected == Beginning::Nothing).then(|| "</s>".to_owned());
            assert_eq!(ending(&post_processor), end, "{post_processor}");
        }
    }
}
