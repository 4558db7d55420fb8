//! `tokenizer.json` and its neighbours, made of the vocabulary that a GGUF file embeds, as transformers reads them.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::gguf::byte_of;
use super::split::SplitRule;
use super::spm::SPACE;
use super::{VocabModel, VocabSpec};
use crate::error::{Result, TextError};

impl VocabSpec {
    /// The `tokenizer.json` that encodes as this vocabulary does. `bos` is put first by its post-processor if the
    /// vocabulary asks for it.
    ///
    /// # Errors
    /// [`TextError::Invalid`] if two tokens have one spelling, which such files cannot hold;
    /// [`TextError::UnknownPreTokenizer`] if the splitting rule is not known.
    pub fn to_tokenizer_json(&self, origin: &str) -> Result<Value> {
        let model = match self.model {
            VocabModel::Gpt2 => self.byte_level_model(origin)?,
            VocabModel::Llama => self.sentence_piece_model(origin)?,
        };
        let (normalizer, pre_tokenizer, decoder) = match self.model {
            VocabModel::Gpt2 => byte_level_steps(self.rule(origin)?),
            VocabModel::Llama => sentence_piece_steps(self.add_space_prefix.unwrap_or(true)),
        };
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added_entries(),
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": self.post_processor(),
            "decoder": decoder, "model": model
        }))
    }

    fn rule(&self, origin: &str) -> Result<SplitRule> {
        SplitRule::from_gguf(self.pre.as_deref(), self.tokens.len(), origin)
    }

    /// Whether a token is listed among the added ones: control tokens and those that are cut out of every text.
    fn is_added(&self, id: usize) -> bool {
        matches!(self.token_types.get(id), Some(2..=4))
            || [self.bos, self.unknown].contains(&Some(id as u32))
            || super::vocab::looks_like_control(&self.tokens[id])
    }

    fn added_entries(&self) -> Vec<Value> {
        let entry = |id: usize| {
            let user_defined =
                self.token_types.get(id) == Some(&4) && !super::vocab::looks_like_control(&self.tokens[id]);
            json!({"id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": !user_defined})
        };
        (0..self.tokens.len()).filter(|&id| self.is_added(id)).map(entry).collect()
    }

    /// Token to id, without the tokens that only fill gaps.
    fn vocab(&self, origin: &str) -> Result<Map<String, Value>> {
        let mut map = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if self.token_types.get(id) == Some(&5) && *token == format!("[PAD{id}]") {
                continue;
            }
            if let Some(first) = map.insert(token.clone(), id.into()) {
                let problem = format!(
                    "\"{}\" has the ids {first} and {id}; a tokenizer.json holds a spelling once",
                    token.escape_debug()
                );
                return Err(TextError::invalid(origin, format!("tokenizer.ggml.tokens[{id}]"), problem));
            }
        }
        Ok(map)
    }

    fn byte_level_model(&self, origin: &str) -> Result<Value> {
        let whole = self.rule(origin)?.takes_whole_tokens();
        let unknown = self.unknown.and_then(|id| self.tokens.get(id as usize));
        Ok(json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole,
            "vocab": self.vocab(origin)?, "merges": self.merges
        }))
    }

    fn sentence_piece_model(&self, origin: &str) -> Result<Value> {
        let unknown = self.unknown.and_then(|id| self.tokens.get(id as usize));
        Ok(json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": self.vocab(origin)?, "merges": self.merges_of_scores()
        }))
    }

    /// The merges that scores imply: every way to make a token of two others, the higher score first.
    fn merges_of_scores(&self) -> Vec<[&str; 2]> {
        let normal = |id: usize| {
            let listed = matches!(self.token_types.get(id), None | Some(0 | 1));
            listed && !self.is_added(id) && byte_of(&self.tokens[id]).is_none()
        };
        let ids: HashMap<&str, usize> = (0..self.tokens.len())
            .filter(|&id| normal(id))
            .map(|id| (self.tokens[id].as_str(), id))
            .collect();
        let mut merges: Vec<(f32, usize, usize, [&str; 2])> = Vec::new();
        for (&token, &id) in &ids {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                    merges.push((self.scores.get(id).copied().unwrap_or(0.0), l, r, [left, right]));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        merges.into_iter().map(|(.., merge)| merge).collect()
    }

    fn post_processor(&self) -> Value {
        let bos = self.bos.filter(|_| self.add_bos.unwrap_or(true));
        let Some((id, token)) = bos.and_then(|id| Some((id, self.tokens.get(id as usize)?))) else {
            return match self.model {
                VocabModel::Gpt2 => {
                    json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false,
                                           "use_regex": true})
                }
                VocabModel::Llama => Value::Null,
            };
        };
        let first = json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name: &str, id: u32| json!({"Sequence": {"id": name, "type_id": id}});
        json!({
            "type": "TemplateProcessing",
            "single": [first, text("A", 0)],
            "pair": [first, text("A", 0), {"SpecialToken": {"id": token, "type_id": 1}}, text("B", 1)],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}
        })
    }
}

/// Normaliser, pre-tokenizer and decoder of byte-level BPE.
fn byte_level_steps(rule: SplitRule) -> (Value, Value, Value) {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let pre_tokenizer = if rule == SplitRule::Gpt2 {
        bytes(true)
    } else {
        let split = json!({"type": "Split", "pattern": {"Regex": rule.pattern()}, "behavior": "Isolated",
                           "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    let decoder =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    (Value::Null, pre_tokenizer, decoder)
}

/// The same of BPE as SentencePiece does it.
fn sentence_piece_steps(prefix: bool) -> (Value, Value, Value) {
    let space = SPACE.to_string();
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": space});
    let normalizer = if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": space}, replace]})
    } else {
        replace
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": space}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    (normalizer, Value::Null, json!({"type": "Sequence", "decoders": decoders}))
}
