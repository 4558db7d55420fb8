//! Reader of SentencePiece models (`tokenizer.model` of Llama 2 and what descends from it): pieces with scores, BPE. The
//! encoder is [`spm`](super::spm).
//!
//! The file is a protobuf `ModelProto` (`sentencepiece_model.proto` of google/sentencepiece): pieces (field 1), training
//! options (2), of which the kind of model and the byte fallback matter, and normalisation (3).

use std::collections::HashSet;

use super::added::AddedToken;
use super::gguf::{byte_of, push_sentence_piece};
use super::protobuf::{Fields, Wire};
use super::spm::{Rules, SentencePiece};
use super::vocab::{TokenKind, Vocabulary, check_id_range};
use super::{Engine, Parts};
use crate::config::AddedTokenInfo;
use crate::error::{Result, TextError};

/// Most pieces; no vocabulary comes near.
const MOST_PIECES: usize = 1 << 21;

/// A piece of the vocabulary.
struct Piece<'a> {
    spelling: &'a str,
    score: f32,
    kind: TokenKind,
}

/// What the file says.
struct Model<'a> {
    pieces: Vec<Piece<'a>>,
    /// Kind of model: 1 unigram, 2 BPE, 3 words, 4 characters.
    kind: u64,
    whitespace_as_suffix: bool,
    bos: Option<u32>,
    normalizer: String,
    has_character_map: bool,
    dummy_prefix: bool,
    remove_extra_spaces: bool,
    escape_spaces: bool,
}

/// Reads a model. `added` are tokens that other files of the model add to it.
pub(super) fn read(bytes: &[u8], added: &[AddedTokenInfo], origin: &str) -> Result<Parts> {
    let model = parse(bytes, origin)?;
    refuse_unsupported(&model, origin)?;
    let (vocabulary, tokens) = vocabulary(&model, added, origin)?;
    let mut scores: Vec<f32> = model.pieces.iter().map(|piece| piece.score).collect();
    scores.resize(vocabulary.len(), 0.0);
    let unknown = model.pieces.iter().position(is_unknown).map(|id| id as u32);
    let user_defined = vocabulary.ids_of(TokenKind::Added).filter(|&id| (id as usize) < model.pieces.len());
    let rules = Rules {
        collapses_spaces: model.remove_extra_spaces,
        fuses_unknown: true,
        user_defined: user_defined.collect(),
    };
    let pieces = SentencePiece::new(&vocabulary, &scores, unknown, model.dummy_prefix)
        .with_rules(&vocabulary, rules)
        .map_err(|problem| TextError::invalid(origin, "pieces", problem))?;
    Ok(Parts {
        kind: "SentencePiece BPE".to_owned(),
        vocabulary,
        engine: Engine::SentencePiece(Box::new(pieces)),
        added: tokens,
        bos: model.bos.filter(|&id| (id as usize) < model.pieces.len()),
        adds_bos: None,
        drops_first_space: model.dummy_prefix,
    })
}

fn is_unknown(piece: &Piece<'_>) -> bool {
    piece.kind == TokenKind::Absent
}

/// Whether bytes look like a SentencePiece model: they begin with a piece that has a spelling.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    match Fields(bytes).next() {
        Ok(Some((1, Wire::Bytes(piece)))) => matches!(Fields(piece).next(), Ok(Some((1, Wire::Bytes(_))))),
        _ => false,
    }
}

fn parse<'a>(bytes: &'a [u8], origin: &str) -> Result<Model<'a>> {
    let mut model = Model {
        pieces: Vec::new(),
        kind: 1,
        whitespace_as_suffix: false,
        bos: Some(1),
        normalizer: String::new(),
        has_character_map: false,
        dummy_prefix: true,
        remove_extra_spaces: true,
        escape_spaces: true,
    };
    let mut fields = Fields(bytes);
    let damaged = |field: &str, problem: &str| TextError::invalid(origin, field, problem);
    while let Some((number, value)) = fields.next().map_err(|problem| damaged("the model", problem))? {
        match (number, value) {
            (1, Wire::Bytes(piece)) => {
                let index = model.pieces.len();
                if index == MOST_PIECES {
                    return Err(damaged("pieces", "there are more than any vocabulary has"));
                }
                let piece =
                    parse_piece(piece).map_err(|problem| damaged(&format!("pieces[{index}]"), problem))?;
                model.pieces.push(piece);
            }
            (2, Wire::Bytes(spec)) => {
                trainer(spec, &mut model).map_err(|problem| damaged("trainer_spec", problem))?;
            }
            (3, Wire::Bytes(spec)) => {
                normalizer(spec, &mut model).map_err(|problem| damaged("normalizer_spec", problem))?;
            }
            _ => {}
        }
    }
    if model.pieces.is_empty() {
        return Err(damaged("pieces", "the vocabulary is empty"));
    }
    Ok(model)
}

fn parse_piece(bytes: &[u8]) -> std::result::Result<Piece<'_>, &'static str> {
    let mut piece = Piece { spelling: "", score: 0.0, kind: TokenKind::Normal };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Wire::Bytes(spelling)) => {
                piece.spelling = std::str::from_utf8(spelling).map_err(|_| "its spelling is not UTF-8")?;
            }
            (2, Wire::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
            (3, Wire::Varint(kind)) => {
                piece.kind = match kind {
                    1 => TokenKind::Normal,
                    // The unknown piece: there is one, and it is special like control pieces.
                    2 => TokenKind::Absent,
                    3 => TokenKind::Special,
                    4 => TokenKind::Added,
                    5 => TokenKind::Unused,
                    6 => TokenKind::Byte,
                    _ => return Err("it is of no known type"),
                }
            }
            _ => {}
        }
    }
    if !piece.score.is_finite() {
        return Err("its score is no number");
    }
    if piece.kind == TokenKind::Byte && byte_of(piece.spelling).is_none() {
        return Err("it is typed as a byte but not spelled <0xNN>");
    }
    Ok(piece)
}

fn trainer(bytes: &[u8], model: &mut Model<'_>) -> std::result::Result<(), &'static str> {
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (3, Wire::Varint(kind)) => model.kind = kind,
            (24, Wire::Varint(flag)) => model.whitespace_as_suffix = flag != 0,
            // Negative where there is none.
            (41, Wire::Varint(id)) => model.bos = u32::try_from(id).ok(),
            _ => {}
        }
    }
    Ok(())
}

fn normalizer(bytes: &[u8], model: &mut Model<'_>) -> std::result::Result<(), &'static str> {
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Wire::Bytes(name)) => model.normalizer = String::from_utf8_lossy(name).into_owned(),
            (2, Wire::Bytes(map)) => model.has_character_map = !map.is_empty(),
            (3, Wire::Varint(flag)) => model.dummy_prefix = flag != 0,
            (4, Wire::Varint(flag)) => model.remove_extra_spaces = flag != 0,
            (5, Wire::Varint(flag)) => model.escape_spaces = flag != 0,
            _ => {}
        }
    }
    Ok(())
}

fn refuse_unsupported(model: &Model<'_>, origin: &str) -> Result<()> {
    let refuse = |field, value: &str| {
        let remedy = "take the tokenizer.json of the model, or make one with transformers";
        Err(TextError::Unsupported { origin: origin.to_owned(), field, value: value.to_owned(), remedy })
    };
    match model.kind {
        2 => {}
        1 => return refuse("trainer_spec.model_type", "UNIGRAM"),
        3 => return refuse("trainer_spec.model_type", "WORD"),
        4 => return refuse("trainer_spec.model_type", "CHAR"),
        other => return refuse("trainer_spec.model_type", &other.to_string()),
    }
    if model.has_character_map {
        let name = if model.normalizer.is_empty() { "with a character map" } else { &model.normalizer };
        return refuse("normalizer_spec.name", name);
    }
    if model.whitespace_as_suffix {
        return refuse("trainer_spec.treat_whitespace_as_suffix", "true");
    }
    if !model.escape_spaces {
        return refuse("normalizer_spec.escape_whitespaces", "false");
    }
    Ok(())
}

/// Puts pieces and added tokens in order of their ids; returns the tokens that are taken whole as well.
fn vocabulary(
    model: &Model<'_>,
    added: &[AddedTokenInfo],
    origin: &str,
) -> Result<(Vocabulary, Vec<AddedToken>)> {
    let count = model.pieces.len();
    let mut vocabulary = Vocabulary::with_capacity(count + added.len());
    let mut tokens = Vec::new();
    let told: HashSet<u32> = added.iter().map(|token| token.id).collect();
    for (id, piece) in (0_u32..).zip(&model.pieces) {
        let kind = if is_unknown(piece) { TokenKind::Special } else { piece.kind };
        if kind == TokenKind::Special && !told.contains(&id) {
            tokens.push(AddedToken::plain(id, piece.spelling, true));
        }
        vocabulary.push(piece.spelling, kind, |out| match (kind, byte_of(piece.spelling)) {
            (TokenKind::Byte, byte) => out.extend(byte),
            _ => push_sentence_piece(piece.spelling, out),
        });
    }
    let mut added: Vec<&AddedTokenInfo> = added.iter().collect();
    added.sort_by_key(|token| token.id);
    if let Some(last) = added.last() {
        check_id_range(origin, "added tokens", last.id, count + added.len())?;
    }
    for token in added {
        let wrong = |problem: String| {
            let field = format!("added token \"{}\"", token.content.escape_debug());
            Err(TextError::invalid(origin, field, problem))
        };
        let there = vocabulary.find(token.content.as_bytes());
        if let Some(other) = there.filter(|&other| other != token.id) {
            return wrong(format!("it has id {} here and {other} elsewhere", token.id));
        }
        while vocabulary.len() < token.id as usize {
            vocabulary.push("", TokenKind::Absent, |_| ());
        }
        if vocabulary.len() == token.id as usize {
            let kind = if token.special { TokenKind::Special } else { TokenKind::Added };
            vocabulary.push(&token.content, kind, |out| out.extend_from_slice(token.content.as_bytes()));
        } else if there.is_none() {
            let other = vocabulary.spelling(token.id).unwrap_or_default().escape_debug();
            return wrong(format!("id {} belongs to \"{other}\" already", token.id));
        } else if token.special {
            vocabulary.make_special(token.id);
        }
        tokens.push(AddedToken {
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            single_word: token.single_word,
            ..AddedToken::plain(token.id, &token.content, token.special)
        });
    }
    Ok((vocabulary, tokens))
}
