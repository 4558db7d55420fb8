//! The vocabulary of a synthetic model: copied from a tokenizer, or made up.

use std::collections::HashMap;
use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_text::Tokenizer;
use serde_json::{Value, json};

use super::{Result, SynthError, Vocabulary};

/// Splitting rule of Llama 3, which dummy vocabularies share.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The first special tokens of Llama 3; the others are reserved.
const SPECIALS: [&str; 10] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|reserved_special_token_2|>",
    "<|reserved_special_token_3|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
];

/// A vocabulary by id.
#[derive(Debug)]
pub(super) struct Vocab {
    /// Name and content of the tokenizer file.
    pub(super) file: (&'static str, Vec<u8>),
    /// Spellings in the byte-level alphabet; ids without a token have none.
    pub(super) tokens: Vec<Option<String>>,
    /// Ids of special tokens, ascending.
    pub(super) specials: Vec<u32>,
    /// Pairs that merge, in order.
    merges: Merges,
    origin: String,
}

/// Where the merges of a vocabulary are.
#[derive(Debug)]
enum Merges {
    /// Listed.
    List(Vec<[String; 2]>),
    /// In the order of the tokens.
    Ranks,
    /// Not of a kind that GGUF files can hold.
    None(&'static str),
}

impl Vocab {
    /// Makes or reads a vocabulary for a model with `size` rows of embedding.
    pub(super) fn build(vocabulary: &Vocabulary, size: usize) -> Result<Self> {
        let vocab = match vocabulary {
            Vocabulary::Dummy => dummy(size)?,
            Vocabulary::Tokenizer(path) => read(path)?,
        };
        if vocab.tokens.len() > size {
            let problem =
                format!("the vocabulary has {} tokens, but the model only {size}", vocab.tokens.len());
            return Err(SynthError::Vocabulary { origin: vocab.origin, problem });
        }
        Ok(vocab)
    }

    /// The id of a special token.
    pub(super) fn special(&self, spelling: &str) -> Option<u32> {
        let is = |id: &u32| self.tokens[*id as usize].as_deref() == Some(spelling);
        self.specials.iter().copied().find(is)
    }

    /// The begin-of-text token.
    pub(super) fn bos(&self) -> Option<u32> {
        self.special(SPECIALS[0])
    }

    /// The tokens that end a text, end of text first.
    pub(super) fn stops(&self) -> Vec<u32> {
        [SPECIALS[1], SPECIALS[9]].iter().filter_map(|name| self.special(name)).collect()
    }

    /// The merges as GGUF files hold them.
    ///
    /// # Errors
    /// If GGUF files cannot hold this vocabulary.
    pub(super) fn gguf_merges(&self) -> Result<Vec<String>> {
        match &self.merges {
            Merges::List(pairs) => Ok(pairs.iter().map(|[a, b]| format!("{a} {b}")).collect()),
            Merges::Ranks => Ok(merges_of_ranks(&self.tokens)),
            Merges::None(problem) => {
                Err(SynthError::Vocabulary { origin: self.origin.clone(), problem: (*problem).to_owned() })
            }
        }
    }
}

/// The character that stands for a byte in byte-level vocabularies (GPT-2's alphabet): printable Latin-1 for itself,
/// the others from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + place).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Bytes, then syllables, syllables with a space before, and words of more and more syllables, each made by a merge of
/// two tokens before it; special tokens last.
fn dummy(size: usize) -> Result<Vocab> {
    let origin = "the dummy vocabulary".to_owned();
    let specials = if size >= 1024 { 256 } else { 16 };
    if size < 256 + specials {
        let problem = format!("{size} tokens are too few; at least {} are needed", 256 + specials);
        return Err(SynthError::Vocabulary { origin, problem });
    }
    let base = size - specials;
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    let mut merges = Vec::new();
    for pair in word_merges().take(base - 256) {
        tokens.push(pair.concat());
        merges.push(pair);
    }
    // The words do not run out: each of them is the beginning of a hundred others.
    for number in 0..specials {
        tokens.push(match SPECIALS.get(number) {
            Some(name) => (*name).to_owned(),
            None => format!("<|reserved_special_token_{}|>", number - 5),
        });
    }
    let file = ("tokenizer.json", dummy_json(&tokens, base, &merges).to_string().into_bytes());
    Ok(Vocab {
        file,
        tokens: tokens.into_iter().map(Some).collect(),
        specials: (base as u32..size as u32).collect(),
        merges: Merges::List(merges),
        origin,
    })
}

/// The merges of a language whose syllables are a consonant and a vowel.
fn word_merges() -> impl Iterator<Item = [String; 2]> {
    let syllables: Vec<[String; 2]> = "bcdfghjklmnpqrstvwxz"
        .chars()
        .flat_map(|consonant| "aeiou".chars().map(move |vowel| [consonant.to_string(), vowel.to_string()]))
        .collect();
    let all: Vec<String> = syllables.iter().map(|pair| pair.concat()).collect();
    let space = byte_char(b' ').to_string();
    let spaced: Vec<[String; 2]> = all.iter().map(|syllable| [space.clone(), syllable.clone()]).collect();
    let mut words: Vec<String> = all.iter().cloned().chain(spaced.iter().map(|pair| pair.concat())).collect();
    let (mut word, mut next) = (0, 0);
    let longer = std::iter::from_fn(move || {
        if next == all.len() {
            (word, next) = (word + 1, 0);
        }
        let pair = [words.get(word)?.clone(), all[next].clone()];
        next += 1;
        words.push(pair.concat());
        Some(pair)
    });
    syllables.into_iter().chain(spaced).chain(longer)
}

fn dummy_json(tokens: &[String], base: usize, merges: &[[String; 2]]) -> Value {
    let vocab: serde_json::Map<String, Value> =
        tokens[..base].iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added: Vec<Value> = tokens[base..]
        .iter()
        .enumerate()
        .map(|(i, token)| {
            json!({"id": base + i, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let bos = json!({"SpecialToken": {"id": SPECIALS[0], "type_id": 0}});
    let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    let split =
        json!({"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": false});
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text("A")],
            "pair": [bos, text("A"), bos, text("B")],
            "special_tokens": {SPECIALS[0]: {"id": SPECIALS[0], "ids": [base], "tokens": [SPECIALS[0]]}}
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": merges
        }
    })
}

/// Reads a tokenizer file; its kind is told by the content.
fn read(path: &Path) -> Result<Vocab> {
    let origin = path.display().to_string();
    let content = ByteView::map_file(path)?.as_slice().to_vec();
    let is_json = content.trim_ascii_start().first() == Some(&b'{');
    let (name, tokenizer, merges) = if is_json {
        ("tokenizer.json", Tokenizer::from_json(&content, &origin)?, listed_merges(&content))
    } else {
        ("tokenizer.model", Tokenizer::from_tiktoken(&content, &origin)?, Merges::Ranks)
    };
    let ids = 0..tokenizer.vocab_size() as u32;
    Ok(Vocab {
        file: (name, content),
        tokens: ids.clone().map(|id| tokenizer.token_str(id).map(str::to_owned)).collect(),
        specials: ids.filter(|&id| tokenizer.is_special(id)).collect(),
        merges,
        origin,
    })
}

/// The merges of a `tokenizer.json`, if a GGUF file can hold it.
fn listed_merges(content: &[u8]) -> Merges {
    let Ok(json) = serde_json::from_slice::<Value>(content) else { return Merges::None("not JSON") };
    if json["model"]["type"] != "BPE" || !json["pre_tokenizer"].to_string().contains(r"\\p{N}{1,3}") {
        return Merges::None("only byte-level BPE with Llama 3's splitting rule can be put into a GGUF");
    }
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(a, b)| [a.to_owned(), b.to_owned()]),
        other => Some([other[0].as_str()?.to_owned(), other[1].as_str()?.to_owned()]),
    };
    match json["model"]["merges"].as_array().map(|list| list.iter().map(pair).collect::<Option<Vec<_>>>()) {
        Some(Some(pairs)) => Merges::List(pairs),
        _ => Merges::None("its merges cannot be read"),
    }
}

/// The merges that a ranked vocabulary implies: each token is merged from the two parts that the tokens of lower rank
/// make of it.
fn merges_of_ranks(tokens: &[Option<String>]) -> Vec<String> {
    let spelled = tokens.iter().enumerate().filter_map(|(rank, token)| Some((token.as_deref()?, rank)));
    let ranks: HashMap<&str, usize> = spelled.clone().collect();
    let mut merges = Vec::new();
    for (token, rank) in spelled {
        // Boundaries between the parts, as byte offsets.
        let mut cuts: Vec<usize> = token.char_indices().map(|(at, _)| at).chain([token.len()]).collect();
        while cuts.len() > 3 {
            let ranked =
                cuts.windows(3).enumerate().filter_map(|(i, w)| Some((*ranks.get(&token[w[0]..w[2]])?, i)));
            let Some((_, best)) = ranked.filter(|&(r, _)| r < rank).min() else { break };
            cuts.remove(best + 1);
        }
        if let [start, middle, end] = cuts[..] {
            merges.push(format!("{} {}", &token[start..middle], &token[middle..end]));
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_alphabet() {
        assert_eq!([b' ', b'\n', b'a', 0xAD, 0xFF].map(byte_char), ['Ġ', 'Ċ', 'a', '\u{143}', 'ÿ']);
        let mut all: Vec<char> = (0..=255).map(byte_char).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn dummy_vocabulary_of_llama3_size_has_its_special_tokens() {
        let vocab = Vocab::build(&Vocabulary::Dummy, 128_256).unwrap();
        assert_eq!((vocab.bos(), vocab.stops()), (Some(128_000), vec![128_001, 128_009]));
        let mut spellings: Vec<&String> = vocab.tokens.iter().flatten().collect();
        spellings.sort_unstable();
        spellings.dedup();
        assert_eq!(spellings.len(), 128_256);
        let tokenizer = Tokenizer::from_json(&vocab.file.1, "dummy").unwrap();
        assert_eq!(tokenizer.vocab_size(), 128_256);
        let text = "bado kimu, 123 ü";
        let ids = tokenizer.encode(text, bitnet_text::EncodeOptions::PROMPT).unwrap();
        assert_eq!((ids[0], tokenizer.decode(&ids, true)), (128_000, text.to_owned()));
        assert!(ids[2] > 256, "a made-up word is one token: {ids:?}");
    }

    #[test]
    fn too_small_vocabularies_are_refused() {
        assert!(Vocab::build(&Vocabulary::Dummy, 271).is_err());
        Vocab::build(&Vocabulary::Dummy, 272).unwrap();
    }

    #[test]
    fn ranks_imply_merges() {
        let tokens: Vec<Option<String>> =
            ["a", "b", "c", "ab", "bc", "abc", "abab"].map(|token| Some(token.to_owned())).into();
        assert_eq!(merges_of_ranks(&tokens), ["a b", "b c", "ab c", "ab ab"]);
    }
}
