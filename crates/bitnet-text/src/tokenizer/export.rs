//! A vocabulary as GGUF files hold it, made of any tokenizer that can be put so: the way back of [`super::gguf`].

use serde_json::Value;

use super::bpe::{ByteBpe, Merges};
use super::gguf::byte_of;
use super::library::LibraryModel;
use super::split::SplitRule;
use super::spm::SentencePiece;
use super::vocab::{TokenKind, Vocabulary};
use super::{Engine, Tokenizer, VocabModel, VocabSpec};
use crate::error::{Result, TextError};

/// Scores of SentencePiece vocabularies for tokens that no merge makes: below all that one makes.
const NO_MERGE: f32 = -1e9;

/// A vocabulary as GGUF files hold it, and what is lost on the way.
#[derive(Clone, Debug)]
pub struct VocabExport {
    /// The fields.
    pub spec: VocabSpec,
    /// What the fields cannot say, one sentence each.
    pub notes: Vec<String>,
}

impl Tokenizer {
    /// The vocabulary as GGUF files hold it. Ids without a token are filled with `[PADn]` of the type "unused".
    ///
    /// # Errors
    /// [`TextError::Unsupported`] for kinds that such files have no name for: anything but byte-level BPE with a known
    /// splitting rule and BPE as SentencePiece does it.
    pub fn to_vocab(&self) -> Result<VocabExport> {
        let mut notes = self.added.conditions();
        let mut spec = match &self.engine {
            Engine::ByteBpe(bpe) => byte_level(bpe, &self.vocabulary),
            Engine::SentencePiece(pieces) => sentence_piece(pieces, &self.vocabulary),
            Engine::Library(model) => of_library(model, &self.vocabulary, &mut notes, &self.kind)?,
        };
        spec.bos = self.bos;
        spec.add_bos = Some(self.adds_bos);
        Ok(VocabExport { spec, notes })
    }
}

/// Spellings and types by id.
fn listed(vocabulary: &Vocabulary) -> (Vec<String>, Vec<i32>) {
    let ids = 0..vocabulary.len() as u32;
    let spelling = |id: u32| vocabulary.spelling(id).map_or_else(|| format!("[PAD{id}]"), str::to_owned);
    let kind = |id: u32| match vocabulary.kind(id) {
        TokenKind::Normal => 1,
        TokenKind::Special => 3,
        TokenKind::Added => 4,
        TokenKind::Absent | TokenKind::Unused => 5,
        TokenKind::Byte => 6,
    };
    (ids.clone().map(spelling).collect(), ids.map(kind).collect())
}

fn blank(model: VocabModel, vocabulary: &Vocabulary) -> VocabSpec {
    let (tokens, token_types) = listed(vocabulary);
    VocabSpec {
        model,
        pre: None,
        tokens,
        scores: Vec::new(),
        token_types,
        merges: Vec::new(),
        bos: None,
        add_bos: None,
        add_space_prefix: None,
        unknown: None,
    }
}

fn byte_level(bpe: &ByteBpe, vocabulary: &Vocabulary) -> VocabSpec {
    let mut spec = blank(VocabModel::Gpt2, vocabulary);
    spec.pre = Some(bpe.rule().name().to_owned());
    spec.unknown = bpe.unknown();
    spec.merges = match bpe.merges() {
        Merges::Pairs(pairs) => {
            let mut order: Vec<(u32, (u32, u32))> =
                pairs.iter().map(|(&pair, &(rank, _))| (rank, pair)).collect();
            order.sort_unstable();
            let token = |id: u32| spec.tokens[id as usize].as_str();
            order.iter().map(|&(_, (left, right))| format!("{} {}", token(left), token(right))).collect()
        }
        Merges::Ranks => merges_of_ranks(bpe, vocabulary),
    };
    spec
}

/// The merges that a ranked vocabulary implies: each token is made of the two parts that the tokens of lower rank make
/// of it.
fn merges_of_ranks(bpe: &ByteBpe, vocabulary: &Vocabulary) -> Vec<String> {
    let mut merges = Vec::new();
    for id in vocabulary.ids_of(TokenKind::Normal) {
        let Some(bytes) = vocabulary.bytes(id) else { continue };
        // Where the parts begin, and where the last one ends.
        let mut cuts: Vec<usize> = (0..=bytes.len()).collect();
        while cuts.len() > 3 {
            let ranked = cuts
                .windows(3)
                .enumerate()
                .filter_map(|(at, w)| Some((bpe.find(vocabulary, &bytes[w[0]..w[2]])?, at)));
            let Some((_, at)) = ranked.filter(|&(rank, _)| rank < id).min() else { break };
            cuts.remove(at + 1);
        }
        if let [start, middle, end] = cuts[..] {
            let mut merge = String::new();
            super::bytes::encode(&bytes[start..middle], &mut merge);
            merge.push(' ');
            super::bytes::encode(&bytes[middle..end], &mut merge);
            merges.push(merge);
        }
    }
    merges
}

fn sentence_piece(pieces: &SentencePiece, vocabulary: &Vocabulary) -> VocabSpec {
    let mut spec = blank(VocabModel::Llama, vocabulary);
    spec.scores = pieces.scores(vocabulary.len());
    spec.add_space_prefix = Some(pieces.adds_space_prefix());
    spec.unknown = pieces.unknown();
    spec
}

/// Reads the library's own description of a tokenizer.
fn of_library(
    model: &LibraryModel,
    vocabulary: &Vocabulary,
    notes: &mut Vec<String>,
    kind: &str,
) -> Result<VocabSpec> {
    let unsupported = |field: &'static str, value: String| TextError::Unsupported {
        origin: kind.to_owned(),
        field,
        value,
        remedy: "GGUF files hold byte-level BPE with a known splitting rule, and SentencePiece BPE",
    };
    let json = model.describe()?;
    let merges: Option<Vec<[String; 2]>> =
        json["model"]["merges"].as_array().and_then(|list| list.iter().map(pair).collect());
    let (Some(merges), true) = (merges, json["model"]["type"] == "BPE") else {
        return Err(unsupported("model", json["model"]["type"].to_string()));
    };
    if json["model"]["byte_fallback"] == true {
        let mut spec = blank(VocabModel::Llama, vocabulary);
        fill_scores(&mut spec, &merges);
        spec.unknown = model.unknown();
        spec.add_space_prefix = Some(model.prefixes_first() || prefixes_all(&json));
        return Ok(spec);
    }
    if !json["decoder"].to_string().contains("\"ByteLevel\"") {
        return Err(unsupported("decoder", json["decoder"]["type"].to_string()));
    }
    match json["normalizer"]["type"].as_str() {
        None => {}
        Some(form @ ("NFC" | "NFKC")) => {
            notes.push(format!("texts are not brought into the form {form} before they are encoded"));
        }
        Some(other) => return Err(unsupported("normalizer", other.to_owned())),
    }
    let rule = rule_of(&json["pre_tokenizer"])
        .ok_or_else(|| unsupported("pre_tokenizer", json["pre_tokenizer"].to_string()))?;
    let mut spec = blank(VocabModel::Gpt2, vocabulary);
    spec.pre = Some(rule.name().to_owned());
    spec.unknown = model.unknown();
    spec.merges = merges.iter().map(|[left, right]| format!("{left} {right}")).collect();
    Ok(spec)
}

fn pair(merge: &Value) -> Option<[String; 2]> {
    match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| [left.to_owned(), right.to_owned()]),
        other => Some([other[0].as_str()?.to_owned(), other[1].as_str()?.to_owned()]),
    }
}

/// Scores that make the same merges in the same order. What no merge makes must not come out of one.
fn fill_scores(spec: &mut VocabSpec, merges: &[[String; 2]]) {
    let mut rank = std::collections::HashMap::with_capacity(merges.len());
    for (place, merge) in merges.iter().enumerate() {
        rank.entry(merge.concat()).or_insert(place);
    }
    spec.scores =
        spec.tokens.iter().map(|token| rank.get(token).map_or(NO_MERGE, |&r| -(r as f32))).collect();
    for (token, kind) in spec.tokens.iter().zip(&mut spec.token_types) {
        if *kind != 1 {
            continue;
        }
        if byte_of(token).is_some() {
            *kind = 6;
        } else if !rank.contains_key(token) && token.chars().count() > 1 {
            *kind = 5;
        }
    }
}

/// Whether every text is read as if a space stood before it.
fn prefixes_all(json: &Value) -> bool {
    let normalizer = json["normalizer"].to_string();
    let pre = &json["pre_tokenizer"];
    normalizer.contains("\"Prepend\"") || pre["prepend_scheme"] == "always" || pre["add_prefix_space"] == true
}

/// The rule of a pre-tokenizer that splits by an expression, or as GPT-2 does.
fn rule_of(pre_tokenizer: &Value) -> Option<SplitRule> {
    let steps = match pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(pre_tokenizer),
    };
    match steps.iter().find(|step| step["type"] == "Split") {
        Some(split) => SplitRule::from_pattern(split["pattern"]["Regex"].as_str()?),
        None if steps.iter().any(|step| step["type"] == "ByteLevel" && step["use_regex"] != false) => {
            Some(SplitRule::Gpt2)
        }
        None => None,
    }
}
