//! [`Tokenizer`]: text to token ids and back, for every kind of vocabulary file.
//!
//! A text is first cut at added tokens ([`added`]), then each part is encoded by the vocabulary's rule: byte-level BPE
//! ([`bpe`]), SentencePiece BPE ([`spm`]) or, for a `tokenizer.json` of any other shape, the `tokenizers` library
//! ([`library`]). The readers ([`json`], [`tiktoken`], [`gguf`], [`sentencepiece`]) only build these parts. Decoding is the same for all:
//! each token stands for fixed bytes ([`vocab`]).

mod added;
mod bpe;
mod bytes;
mod export;
mod gguf;
mod json;
mod library;
mod merge;
mod protobuf;
mod sentencepiece;
mod spans;
mod split;
mod spm;
mod tiktoken;
mod to_json;
mod vocab;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::config::AddedTokenInfo;
use crate::detokenize::Detokenizer;
use crate::error::{Result, TextError};
use added::{AddedToken, AddedTokens, Part};
use bpe::ByteBpe;
pub use export::VocabExport;
pub use gguf::{VocabModel, VocabSpec};
use library::LibraryModel;
use merge::Merger;
use spm::SentencePiece;
pub(crate) use vocab::looks_like_control;
use vocab::{TokenKind, Vocabulary};

/// Longest text in bytes that is encoded at once; offsets are 32 bits wide.
const LONGEST_TEXT: usize = 1 << 30;

/// Names under which the begin-of-text token goes where no file tells which one it is.
const BOS_NAMES: [&str; 3] = ["<|begin_of_text|>", "<s>", "<bos>"];

/// What [`Tokenizer::encode`] does beside encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the begin-of-text token first, if the model wants one ([`Tokenizer::adds_bos`]) and it is not there yet.
    pub add_bos: bool,
    /// Take the spellings of special tokens for these tokens. Never for text that a user wrote.
    pub parse_special: bool,
}

impl EncodeOptions {
    /// The text and nothing else.
    pub const PLAIN: Self = Self { add_bos: false, parse_special: false };
    /// A prompt: begin-of-text first, specials stay text.
    pub const PROMPT: Self = Self { add_bos: true, parse_special: false };
    /// The output of a trusted template: specials are parsed, nothing is added.
    pub const TEMPLATE: Self = Self { add_bos: false, parse_special: true };
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self::PROMPT
    }
}

/// A part of a prompt whose special tokens are already known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Text, in which nothing is special. Each such segment is encoded on its own.
    Text(&'a str),
    /// The spelling of one token.
    Special(&'a str),
}

/// How a part of text becomes ids.
enum Engine {
    ByteBpe(Box<ByteBpe>),
    SentencePiece(Box<SentencePiece>),
    Library(Box<LibraryModel>),
}

/// What a reader makes of a file.
struct Parts {
    kind: String,
    vocabulary: Vocabulary,
    engine: Engine,
    added: Vec<AddedToken>,
    bos: Option<u32>,
    /// `None`: if there is one.
    adds_bos: Option<bool>,
    /// Whether decoding drops a space at the very beginning, which encoding put there.
    drops_first_space: bool,
}

/// The vocabulary of a model with its rules. Ids run from 0 to [`vocab_size`](Self::vocab_size) - 1.
pub struct Tokenizer {
    kind: String,
    vocabulary: Vocabulary,
    engine: Engine,
    added: AddedTokens,
    bos: Option<u32>,
    adds_bos: bool,
    end: Option<u32>,
    drops_first_space: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind)
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`. `origin` is the file's name, for messages. Byte-level BPE with a known
    /// splitting rule runs natively, everything else through the `tokenizers` library.
    ///
    /// The begin-of-text token is the one that the file's post-processor puts first, else the one with a usual name.
    ///
    /// # Errors
    /// [`TextError::Json`] if it is no `tokenizer.json`, [`TextError::Invalid`] if its parts contradict each other,
    /// [`TextError::Unsupported`] for a decoder whose tokens do not stand for fixed bytes.
    pub fn from_json(bytes: &[u8], origin: &str) -> Result<Self> {
        let (parts, end) = json::read(bytes, origin)?;
        let mut tokenizer = Self::from_parts(parts, origin)?;
        tokenizer.set_end(end.and_then(|spelling| tokenizer.token_id(&spelling)));
        Ok(tokenizer)
    }

    /// Reads a tiktoken file (lines of base64 token and rank) as the Llama 3 vocabulary: its splitting rule, and its
    /// 256 special tokens after the base.
    ///
    /// # Errors
    /// [`TextError::Invalid`] naming the line that is not so, or if the ranks are not 0 to n - 1, each once.
    pub fn from_tiktoken(bytes: &[u8], origin: &str) -> Result<Self> {
        Self::from_parts(tiktoken::read(bytes, origin)?, origin)
    }

    /// Reads a SentencePiece model, such as the `tokenizer.model` of Llama 2. `added` are the tokens that other files of
    /// the model add to it ([`TokenizerConfig::added_tokens`](crate::TokenizerConfig::added_tokens)).
    ///
    /// # Errors
    /// [`TextError::Invalid`] if the file is damaged or contradicts the added tokens, [`TextError::Unsupported`] for models
    /// of another kind than BPE and for those that normalise text by a character map.
    pub fn from_sentencepiece(bytes: &[u8], added: &[AddedTokenInfo], origin: &str) -> Result<Self> {
        Self::from_parts(sentencepiece::read(bytes, added, origin)?, origin)
    }

    /// Whether bytes begin as SentencePiece models do.
    pub fn is_sentencepiece(bytes: &[u8]) -> bool {
        sentencepiece::looks_like(bytes)
    }

    /// Takes the vocabulary that a GGUF file embeds.
    ///
    /// # Errors
    /// [`TextError::Invalid`] if its lists contradict each other, [`TextError::UnknownPreTokenizer`] if the splitting
    /// rule is not known.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the lists are of no use afterwards and large: free them here"
    )]
    pub fn from_vocab(vocab: VocabSpec, origin: &str) -> Result<Self> {
        Self::from_parts(gguf::read(&vocab, origin)?, origin)
    }

    fn from_parts(parts: Parts, origin: &str) -> Result<Self> {
        let Parts { kind, mut vocabulary, engine, added, bos, adds_bos, drops_first_space } = parts;
        let bos = bos.or_else(|| BOS_NAMES.iter().find_map(|name| vocabulary.find(name.as_bytes())));
        if let Some(bos) = bos {
            vocabulary.make_special(bos);
        }
        let added = AddedTokens::new(added, origin)?;
        let adds_bos = adds_bos.unwrap_or(bos.is_some());
        Ok(Self { kind, vocabulary, engine, added, bos, adds_bos, end: None, drops_first_space })
    }

    /// What the vocabulary was read from and how it encodes, such as `gguf gpt2/llama-bpe`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Encodes `text`. Without `parse_special`, what spells a special token is encoded as the characters it consists
    /// of.
    ///
    /// # Errors
    /// [`TextError::TooLong`] above 1 GiB; [`TextError::Unencodable`] or [`TextError::Encode`] for characters that an
    /// incomplete vocabulary cannot express.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        self.encode_into(text, options.parse_special, &mut ids)?;
        if options.add_bos {
            self.prepend_bos(&mut ids);
        }
        Ok(ids)
    }

    /// Encodes a prompt in parts. Each text is encoded on its own, as ordinary text; `add_bos` is as in
    /// [`EncodeOptions`].
    ///
    /// # Errors
    /// [`TextError::UnknownToken`] for a special segment that spells no token, and those of [`encode`](Self::encode).
    pub fn encode_segments(&self, segments: &[Segment<'_>], add_bos: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for segment in segments {
            match *segment {
                Segment::Text(text) => self.encode_into(text, false, &mut ids)?,
                Segment::Special(spelling) => ids.push(
                    self.token_id(spelling)
                        .ok_or_else(|| TextError::UnknownToken { spelling: spelling.to_owned() })?,
                ),
            }
        }
        if add_bos {
            self.prepend_bos(&mut ids);
        }
        Ok(ids)
    }

    fn prepend_bos(&self, ids: &mut Vec<u32>) {
        if let Some(bos) = self.bos.filter(|bos| self.adds_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
    }

    fn encode_into(&self, text: &str, parse_special: bool, ids: &mut Vec<u32>) -> Result<()> {
        if text.len() > LONGEST_TEXT {
            return Err(TextError::TooLong { bytes: text.len(), limit: LONGEST_TEXT });
        }
        let mut merger = Merger::default();
        for part in self.added.split(text, parse_special) {
            match (part, &self.engine) {
                (Part::Token(id), _) => ids.push(id),
                (Part::Text(text), Engine::ByteBpe(bpe)) => {
                    bpe.encode(&self.vocabulary, text, &mut merger, ids)?;
                }
                (Part::Text(text), Engine::SentencePiece(pieces)) => {
                    pieces.encode(&self.vocabulary, text, &mut merger, ids)?;
                }
                (Part::Text(text), Engine::Library(model)) => {
                    model.encode(&self.vocabulary, text, ids.is_empty(), ids)?;
                }
            }
        }
        Ok(())
    }

    /// The bytes that a token stands for; those of its name for a special one. `None` if no token has this id.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// A token as the vocabulary spells it, for display. `None` if no token has this id.
    pub fn token_str(&self, id: u32) -> Option<&str> {
        self.vocabulary.spelling(id)
    }

    /// The token with this spelling.
    pub fn token_id(&self, spelling: &str) -> Option<u32> {
        self.vocabulary.find(spelling.as_bytes())
    }

    /// Whether the token is a control token, which stands for no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == TokenKind::Special
    }

    /// The begin-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Sets the begin-of-text token, as the model's configuration tells it. An id that no token has counts as none.
    pub fn set_bos(&mut self, id: Option<u32>) {
        self.bos = id.filter(|&id| self.vocabulary.bytes(id).is_some());
        if let Some(id) = self.bos {
            self.vocabulary.make_special(id);
        }
    }

    /// Whether prompts begin with the begin-of-text token. Without other knowledge: if there is one.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Sets whether prompts begin with the begin-of-text token, as `add_bos_token` in `tokenizer_config.json` tells.
    pub fn set_adds_bos(&mut self, adds: bool) {
        self.adds_bos = adds;
    }

    /// The token that belongs behind a whole text: where embedding models gather what they read. Nothing here appends it,
    /// as a prompt is to be continued. Without other knowledge the one that the file's post-processor puts last.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// Sets the token that belongs behind a whole text, as `add_eos_token` tells. An id that no token has counts as none.
    pub fn set_end(&mut self, id: Option<u32>) {
        self.end = id.filter(|&id| self.vocabulary.bytes(id).is_some());
    }

    /// The text of `ids`. What is not UTF-8 becomes U+FFFD, ids outside the vocabulary nothing. Vocabularies that
    /// encode a text as if a space stood before it lose that space again.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(self.text_bytes(id, skip_special));
        }
        let start = usize::from(self.drops_first_space && bytes.first() == Some(&b' '));
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    /// What a token contributes to a text.
    pub(crate) fn text_bytes(&self, id: u32, skip_special: bool) -> &[u8] {
        if skip_special && self.is_special(id) { &[] } else { self.token_bytes(id).unwrap_or_default() }
    }

    /// Decodes tokens one by one to the same text as [`decode`](Self::decode) of all of them.
    pub fn detokenizer(self: &Arc<Self>, skip_special: bool) -> Detokenizer {
        Detokenizer::new(Arc::clone(self), skip_special, self.drops_first_space)
    }

    /// As [`detokenizer`](Self::detokenizer) for tokens that continue a text shown before: a space at the beginning
    /// is kept, as it belongs between the two.
    pub fn continuing_detokenizer(self: &Arc<Self>, skip_special: bool) -> Detokenizer {
        Detokenizer::new(Arc::clone(self), skip_special, false)
    }

    /// Cuts a rendered template at its special tokens: text, or the spelling of a special token.
    pub(crate) fn split_special<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Segment<'t>> {
        self.added.split_special(text).into_iter().map(|part| match part {
            Part::Text(text) => Segment::Text(text),
            Part::Token(id) => Segment::Special(self.token_str(id).unwrap_or_default()),
        })
    }

    /// The spellings of all special tokens that are parsed.
    pub(crate) fn special_spellings(&self) -> impl Iterator<Item = &str> {
        self.added.specials().iter().map(|token| token.spelling.as_str())
    }
}
