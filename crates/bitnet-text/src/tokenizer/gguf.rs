//! [`VocabSpec`]: the vocabulary that a GGUF file embeds, and its reader. `gpt2` is byte-level BPE with merges, `llama`
//! is SentencePiece BPE with scores.

use super::added::AddedToken;
use super::bpe::{ByteBpe, resolve_merges};
use super::split::SplitRule;
use super::spm::{SPACE, SentencePiece};
use super::vocab::{TokenKind, Vocabulary, looks_like_control};
use super::{Engine, Parts, bytes};
use crate::error::{Result, TextError};

/// The algorithm, `tokenizer.ggml.model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabModel {
    /// `gpt2`: byte-level BPE; tokens are spelled in the byte-level alphabet.
    Gpt2,
    /// `llama`: SentencePiece BPE; spaces are spelled U+2581.
    Llama,
}

/// The `tokenizer.ggml.*` fields of a GGUF file. Lists that the file lacks are empty.
#[derive(Clone, Debug)]
pub struct VocabSpec {
    /// `model`.
    pub model: VocabModel,
    /// `pre`, the name of the splitting rule; only for [`VocabModel::Gpt2`].
    pub pre: Option<String>,
    /// `tokens`, the spellings by id.
    pub tokens: Vec<String>,
    /// `scores`, one for each token; only for [`VocabModel::Llama`].
    pub scores: Vec<f32>,
    /// `token_type`, one for each token: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// `merges`, two spellings with a space between; only for [`VocabModel::Gpt2`].
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_space_prefix`; absent means yes. Only for [`VocabModel::Llama`].
    pub add_space_prefix: Option<bool>,
    /// `unknown_token_id`.
    pub unknown: Option<u32>,
}

/// Reads a vocabulary.
pub(super) fn read(spec: &VocabSpec, origin: &str) -> Result<Parts> {
    check(spec, origin)?;
    let mut vocabulary = Vocabulary::with_capacity(spec.tokens.len());
    let mut added = Vec::new();
    for (id, spelling) in (0_u32..).zip(&spec.tokens) {
        let kind = kind_of(spec, id as usize, origin)?;
        if matches!(kind, TokenKind::Special | TokenKind::Added) {
            added.push(AddedToken::plain(id, spelling, kind == TokenKind::Special));
        }
        vocabulary.push(spelling, kind, |out| push_bytes(spec.model, kind, spelling, out));
    }
    let (kind, engine, drops_first_space) = match spec.model {
        VocabModel::Gpt2 => {
            let rule = SplitRule::from_gguf(spec.pre.as_deref(), spec.tokens.len(), origin)?;
            let bpe = byte_bpe(spec, &vocabulary, rule, origin)?;
            (format!("gguf gpt2/{}", spec.pre.as_deref().unwrap_or(rule.name())), bpe, false)
        }
        VocabModel::Llama => {
            let prefix = spec.add_space_prefix.unwrap_or(true);
            let pieces = SentencePiece::new(&vocabulary, &spec.scores, spec.unknown, prefix);
            let engine = Engine::SentencePiece(Box::new(pieces));
            ("gguf llama (SentencePiece BPE)".to_owned(), engine, prefix)
        }
    };
    Ok(Parts { kind, vocabulary, engine, added, bos: spec.bos, adds_bos: spec.add_bos, drops_first_space })
}

fn byte_bpe(spec: &VocabSpec, vocabulary: &Vocabulary, rule: SplitRule, origin: &str) -> Result<Engine> {
    let field = "tokenizer.ggml.merges";
    // A space that is part of the left token can only be its first character.
    let pairs = spec.merges.iter().map(|merge| {
        let first = merge.chars().next().map_or(0, char::len_utf8);
        merge[first..].find(' ').map(|space| (&merge[..first + space], &merge[first + space + 1..]))
    });
    if let Some(index) = pairs.clone().position(|pair| pair.is_none()) {
        let problem =
            format!("\"{}\" is not two tokens with a space between", spec.merges[index].escape_debug());
        return Err(TextError::invalid(origin, format!("{field}[{index}]"), problem));
    }
    let merges = resolve_merges(vocabulary, spec.merges.len(), pairs.flatten(), field, origin)?;
    Ok(Engine::ByteBpe(Box::new(ByteBpe::new(
        vocabulary,
        rule,
        merges,
        rule.takes_whole_tokens(),
        spec.unknown,
    ))))
}

/// Checks the lists against each other.
fn check(spec: &VocabSpec, origin: &str) -> Result<()> {
    let count = spec.tokens.len();
    if count == 0 {
        return Err(TextError::invalid(origin, "tokenizer.ggml.tokens", "the list is empty"));
    }
    let sized = |field: &str, length: usize| match length {
        length if length == count => Ok(()),
        length => Err(TextError::invalid(
            origin,
            field,
            format!("the list has {length} entries for {count} tokens"),
        )),
    };
    if spec.model == VocabModel::Llama || !spec.scores.is_empty() {
        sized("tokenizer.ggml.scores", spec.scores.len())?;
    }
    if !spec.token_types.is_empty() {
        sized("tokenizer.ggml.token_type", spec.token_types.len())?;
    }
    if spec.model == VocabModel::Gpt2 && spec.merges.is_empty() {
        let problem = "the list is missing or empty; a gpt2 vocabulary cannot be used without it";
        return Err(TextError::invalid(origin, "tokenizer.ggml.merges", problem));
    }
    if let Some(id) = spec.scores.iter().position(|score| !score.is_finite()) {
        let problem = format!("{} is no score", spec.scores[id]);
        return Err(TextError::invalid(origin, format!("tokenizer.ggml.scores[{id}]"), problem));
    }
    for (field, id) in
        [("tokenizer.ggml.bos_token_id", spec.bos), ("tokenizer.ggml.unknown_token_id", spec.unknown)]
    {
        if let Some(id) = id.filter(|&id| id as usize >= count) {
            return Err(TextError::invalid(origin, field, format!("{id} is beyond the {count} tokens")));
        }
    }
    Ok(())
}

/// What a token is for, by its type and, where files are known to be wrong about it, by its spelling.
fn kind_of(spec: &VocabSpec, id: usize, origin: &str) -> Result<TokenKind> {
    let spelling = spec.tokens[id].as_str();
    if spec.bos == Some(id as u32) || spec.unknown == Some(id as u32) {
        return Ok(TokenKind::Special);
    }
    let kind = match spec.token_types.get(id) {
        None | Some(0 | 1) => TokenKind::Normal,
        Some(2 | 3) => TokenKind::Special,
        Some(4) => TokenKind::Added,
        Some(5) => TokenKind::Unused,
        Some(6) => TokenKind::Byte,
        Some(other) => {
            let field = format!("tokenizer.ggml.token_type[{id}]");
            return Err(TextError::invalid(
                origin,
                field,
                format!("type {other} is not known (known: 0 to 6)"),
            ));
        }
    };
    let untyped = spec.token_types.is_empty() && spec.model == VocabModel::Llama;
    Ok(match kind {
        TokenKind::Normal | TokenKind::Added if looks_like_control(spelling) => TokenKind::Special,
        TokenKind::Normal if untyped && matches!(spelling, "<unk>" | "<s>" | "</s>") => TokenKind::Special,
        TokenKind::Normal if untyped && byte_of(spelling).is_some() => TokenKind::Byte,
        // Nothing in a text is spelled with characters outside the alphabet.
        TokenKind::Normal if spec.model == VocabModel::Gpt2 && !bytes::is_spelled(spelling) => {
            TokenKind::Unused
        }
        TokenKind::Byte if byte_of(spelling).is_none() => {
            let field = format!("tokenizer.ggml.tokens[{id}]");
            let problem =
                format!("\"{}\" is typed as a byte but not spelled <0xNN>", spelling.escape_debug());
            return Err(TextError::invalid(origin, field, problem));
        }
        kind => kind,
    })
}

/// The byte that `<0xNN>` spells.
pub(super) fn byte_of(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// Appends what a token stands for.
fn push_bytes(model: VocabModel, kind: TokenKind, spelling: &str, out: &mut Vec<u8>) {
    match (kind, model) {
        (TokenKind::Byte, _) => out.extend(byte_of(spelling)),
        (TokenKind::Normal | TokenKind::Unused, VocabModel::Gpt2) => {
            if !bytes::decode(spelling, out) {
                out.extend_from_slice(spelling.as_bytes());
            }
        }
        (_, VocabModel::Llama) => push_sentence_piece(spelling, out),
        _ => out.extend_from_slice(spelling.as_bytes()),
    }
}

/// Appends a spelling with its U+2581 as spaces.
pub(super) fn push_sentence_piece(spelling: &str, out: &mut Vec<u8>) {
    for (index, part) in spelling.split(SPACE).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(part.as_bytes());
    }
}
