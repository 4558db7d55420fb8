//! [`LibraryModel`]: a `tokenizer.json` of any shape, encoded by the `tokenizers` library. Special tokens stay with
//! [`AddedTokens`](super::added::AddedTokens), so that text never turns into one; decoding uses our own table of
//! bytes, made once from the file's decoder.

use std::borrow::Cow;

use serde_json::Value;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{ModelWrapper, PreTokenizerWrapper};

use super::json::{AddedEntry, BpeLists, Merge, ModelHeader, TokenizerFile, json_error, parse, vocabulary};
use super::spm::SPACE;
use super::vocab::{TokenKind, Vocabulary};
use super::{Engine, Parts, bytes, gguf};
use crate::error::{Result, TextError};

/// The library's tokenizer with what has to be done around it.
pub(super) struct LibraryModel {
    tokenizer: tokenizers::Tokenizer,
    /// What is put before a text's first word, and only there.
    first_prefix: Option<char>,
    /// Stands for what the model cannot express; the one special token that text may become.
    unknown: Option<u32>,
}

/// How spellings become bytes.
enum Spelled {
    /// In the byte-level alphabet.
    ByteLevel,
    /// With U+2581 for a space, and `<0xNN>` for a byte.
    SentencePiece,
    /// As words between spaces, except those that begin with this prefix.
    Words(Option<String>),
}

/// Reads a file through the library.
pub(super) fn read(
    file_bytes: &[u8],
    file: &TokenizerFile<'_>,
    header: &ModelHeader,
    origin: &str,
) -> Result<Parts> {
    check_steps(&file.normalizer, "normalizer", "normalizers", &NORMALIZERS, origin)?;
    check_steps(&file.pre_tokenizer, "pre_tokenizer", "pretokenizers", &PRE_TOKENIZERS, origin)?;
    if header.is_bpe() {
        check_merges(file, header, origin)?;
    }
    let (spelled, drops_first_space) = spelled(&file.decoder, origin)?;
    let mut tokenizer =
        tokenizers::Tokenizer::from_bytes(file_bytes).map_err(|error| json_error(origin, &error))?;
    tokenizer.set_encode_special_tokens(true);
    // Prompts are neither cut nor filled up nor encoded at random, whatever the training set-up was.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| json_error(origin, &error))?;
    if header.dropout.is_some()
        && let ModelWrapper::BPE(model) = tokenizer.get_model()
    {
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    let first_prefix = take_first_prefix(&mut tokenizer);

    let entries = tokenizer.get_vocab(false);
    let list = entries.iter().map(|(spelling, &id)| (spelling.as_str(), id));
    let vocabulary =
        vocabulary(list, &file.added_tokens, origin, |spelling, out| spelled.push(spelling, out))?;
    for (index, token) in file.added_tokens.iter().enumerate() {
        let found = tokenizer.token_to_id(&token.content);
        if !token.content.is_empty() && found != Some(token.id) {
            let problem =
                format!("\"{}\" has id {}, where {found:?} is next", token.content.escape_debug(), token.id);
            return Err(TextError::invalid(origin, format!("added_tokens[{index}]"), problem));
        }
    }
    let unknown = header.unk_id.or_else(|| vocabulary.find(header.unk_token.as_ref()?.as_bytes()));
    let kind = format!("tokenizer.json ({})", header.name());
    let engine = Engine::Library(Box::new(LibraryModel { tokenizer, first_prefix, unknown }));
    // The others are found by the library, which knows their conditions before and after normalisation.
    let added = file.added_tokens.iter().filter(|token| token.special).map(AddedEntry::token).collect();
    Ok(Parts { kind, vocabulary, engine, added, bos: None, adds_bos: None, drops_first_space })
}

impl LibraryModel {
    /// The library's own description, as in a `tokenizer.json`.
    pub(super) fn describe(&self) -> Result<Value> {
        let text = self.tokenizer.to_string(false);
        let text = text.map_err(|error| TextError::Encode { message: error.to_string() })?;
        serde_json::from_str(&text).map_err(|error| json_error("the tokenizer", &error))
    }

    /// Whether something is put before a text's first word, and only there.
    pub(super) fn prefixes_first(&self) -> bool {
        self.first_prefix.is_some()
    }

    /// What stands for what the model cannot express.
    pub(super) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Appends the tokens of `text`; `first` if nothing of the prompt came before.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        first: bool,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let text = match self.first_prefix {
            Some(prefix) if first && !text.starts_with([' ', prefix]) => {
                Cow::Owned(format!("{prefix}{text}"))
            }
            _ => Cow::Borrowed(text),
        };
        self.encode_without_specials(vocabulary, &text, out)
    }

    /// Models that look whole words up can make a special token of its spelling. Such a text is cut in two, until no
    /// part makes one.
    fn encode_without_specials(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| TextError::Encode { message: error.to_string() })?;
        let forbidden = |id: &u32| vocabulary.kind(*id) == TokenKind::Special && self.unknown != Some(*id);
        if !encoding.get_ids().iter().any(forbidden) {
            out.extend_from_slice(encoding.get_ids());
            return Ok(());
        }
        let middle = text.floor_char_boundary(text.len() / 2);
        let middle = if middle == 0 { text.chars().next().map_or(0, char::len_utf8) } else { middle };
        if middle == text.len() {
            return Err(TextError::Unencodable { what: format!("\"{}\"", text.escape_debug()) });
        }
        let (left, right) = text.split_at(middle);
        self.encode_without_specials(vocabulary, left, out)?;
        self.encode_without_specials(vocabulary, right, out)
    }
}

/// Normalisers that the library builds from any values without a panic.
const NORMALIZERS: [&str; 12] = [
    "BertNormalizer",
    "ByteLevel",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Prepend",
    "Replace",
    "Strip",
    "StripAccents",
];

/// Pre-tokenizers of the same kind.
const PRE_TOKENIZERS: [&str; 10] = [
    "BertPreTokenizer",
    "ByteLevel",
    "CharDelimiterSplit",
    "Digits",
    "Metaspace",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
];

/// Checks that a step, or each step of a sequence, is one of those known.
fn check_steps(step: &Value, field: &'static str, list: &str, known: &[&str], origin: &str) -> Result<()> {
    match step["type"].as_str() {
        None if step.is_null() => Ok(()),
        Some("Sequence") if step[list].is_array() => step[list]
            .as_array()
            .into_iter()
            .flatten()
            .try_for_each(|step| check_steps(step, field, list, known, origin)),
        Some(name) if known.contains(&name) => Ok(()),
        _ => Err(TextError::Unsupported {
            origin: origin.to_owned(),
            field,
            value: excerpt(step),
            remedy: "use the vocabulary of a GGUF file of the model instead",
        }),
    }
}

/// The beginning of a value as JSON.
fn excerpt(value: &Value) -> String {
    let json = value.to_string();
    match json.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &json[..end]),
        None => json,
    }
}

/// Checks what the library takes for granted: that no merge makes more than the longest token, and that what follows
/// another token begins with the prefix for that.
fn check_merges(file: &TokenizerFile<'_>, header: &ModelHeader, origin: &str) -> Result<()> {
    let lists: BpeLists<'_> = parse(file.model.get().as_bytes(), origin)?;
    let longest = lists.vocab.0.iter().map(|(token, _)| token.len()).max().unwrap_or(0);
    let prefix = header.continuing_subword_prefix.as_deref().unwrap_or_default();
    for (index, Merge { left, right }) in lists.merges.iter().enumerate() {
        let fits = right.strip_prefix(prefix).is_some_and(|rest| left.len() + rest.len() <= longest);
        if !fits {
            let problem = format!(
                "\"{} {}\" makes nothing that is in the vocabulary",
                left.escape_debug(),
                right.escape_debug()
            );
            return Err(TextError::invalid(origin, format!("model.merges[{index}]"), problem));
        }
    }
    Ok(())
}

/// Takes the prefix that a text's first word gets away from the library, which cannot know which part of a prompt is
/// the first.
fn take_first_prefix(tokenizer: &mut tokenizers::Tokenizer) -> Option<char> {
    let Some(PreTokenizerWrapper::Metaspace(metaspace)) = tokenizer.get_pre_tokenizer() else { return None };
    if metaspace.prepend_scheme != PrependScheme::First {
        return None;
    }
    let mut metaspace = metaspace.clone();
    metaspace.prepend_scheme = PrependScheme::Never;
    let prefix = metaspace.get_replacement();
    tokenizer.with_pre_tokenizer(Some(metaspace));
    Some(prefix)
}

/// How the file's decoder reads spellings, and whether it drops a space at the beginning.
fn spelled(decoder: &Value, origin: &str) -> Result<(Spelled, bool)> {
    let unsupported = |value: &Value| TextError::Unsupported {
        origin: origin.to_owned(),
        field: "decoder",
        value: excerpt(value),
        remedy: "known are ByteLevel, Metaspace, WordPiece and sequences of Replace, ByteFallback, Fuse and Strip",
    };
    let steps = match decoder["type"].as_str() {
        None if decoder.is_null() => return Ok((Spelled::Words(None), true)),
        Some("WordPiece") => {
            let prefix = decoder["prefix"].as_str().unwrap_or("##");
            return Ok((Spelled::Words(Some(prefix.to_owned())), true));
        }
        Some("Sequence") => decoder["decoders"].as_array().ok_or_else(|| unsupported(decoder))?.as_slice(),
        _ => std::slice::from_ref(decoder),
    };
    let space = |value: &Value| value.as_str() == Some(SPACE.encode_utf8(&mut [0; 3]));
    let (mut byte_level, mut drops) = (false, false);
    for step in steps {
        match step["type"].as_str() {
            Some("ByteLevel") => byte_level = true,
            Some("Metaspace") if space(&step["replacement"]) => {
                let never = step["prepend_scheme"] == "never" || step["add_prefix_space"] == false;
                drops |= !never;
            }
            Some("Replace") if space(&step["pattern"]["String"]) && step["content"] == " " => {}
            Some("ByteFallback" | "Fuse") => {}
            Some("Strip") if step["content"] == " " && step["stop"] == 0 => drops |= step["start"] != 0,
            _ => return Err(unsupported(step)),
        }
    }
    Ok((if byte_level { Spelled::ByteLevel } else { Spelled::SentencePiece }, drops))
}

impl Spelled {
    /// Appends the bytes of a spelling and tells the token's kind.
    fn push(&self, spelling: &str, out: &mut Vec<u8>) -> TokenKind {
        match self {
            Self::ByteLevel => {
                if !bytes::decode(spelling, out) {
                    out.extend_from_slice(spelling.as_bytes());
                }
            }
            Self::SentencePiece => match gguf::byte_of(spelling) {
                Some(byte) => out.push(byte),
                None => gguf::push_sentence_piece(spelling, out),
            },
            Self::Words(prefix) => {
                match prefix.as_ref().and_then(|prefix| spelling.strip_prefix(prefix.as_str())) {
                    Some(rest) => out.extend_from_slice(rest.as_bytes()),
                    None => {
                        out.push(b' ');
                        out.extend_from_slice(spelling.as_bytes());
                    }
                }
            }
        }
        TokenKind::Normal
    }
}
