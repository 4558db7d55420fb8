//! Reader of tiktoken files: one token a line, its bytes in base64 and its rank, which is its id and its place in the
//! order of merges. The file has no special tokens; these are Llama 3's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::added::AddedToken;
use super::bpe::{ByteBpe, Merges};
use super::split::SplitRule;
use super::vocab::{TokenKind, Vocabulary};
use super::{Engine, Parts, bytes};
use crate::error::{Result, TextError};

/// Special tokens after the base vocabulary.
const SPECIALS: usize = 256;

/// The names of the special tokens from the first on; the rest is `reserved_special_token_N` counted on from 5.
const NAMED: [&str; 10] = [
    "begin_of_text",
    "end_of_text",
    "reserved_special_token_0",
    "reserved_special_token_1",
    "reserved_special_token_2",
    "reserved_special_token_3",
    "start_header_id",
    "end_header_id",
    "reserved_special_token_4",
    "eot_id",
];

/// Spelling of the special token with this number from the end of the base.
fn special_spelling(number: usize) -> String {
    match NAMED.get(number) {
        Some(name) => format!("<|{name}|>"),
        None => format!("<|reserved_special_token_{}|>", number - 5),
    }
}

/// Tokens by rank, from lines in any order.
fn read_lines(text: &[u8], origin: &str) -> Result<Vec<Vec<u8>>> {
    let lines = || {
        (1..).zip(text.split(|&byte| byte == b'\n')).filter_map(|(number, line): (usize, _)| {
            Some((number, line.trim_ascii())).filter(|(_, line)| !line.is_empty())
        })
    };
    let count = lines().count();
    if count == 0 {
        return Err(TextError::invalid(origin, "line 1", "the file is empty; a tiktoken file was expected"));
    }
    let mut tokens = vec![Vec::new(); count];
    for (number, line) in lines() {
        let bad = |problem: String| TextError::invalid(origin, format!("line {number}"), problem);
        let space = line
            .iter()
            .position(|&byte| byte == b' ')
            .ok_or_else(|| bad("not of the form \"base64 rank\"; this is no tiktoken file".to_owned()))?;
        let (token, rank) = (&line[..space], String::from_utf8_lossy(&line[space + 1..]));
        let rank: usize =
            rank.trim().parse().map_err(|_| bad(format!("rank \"{}\" is no number", rank.escape_debug())))?;
        let token = STANDARD.decode(token).map_err(|error| bad(format!("token is not base64: {error}")))?;
        if token.is_empty() {
            return Err(bad("the token is empty".to_owned()));
        }
        let place = tokens.get_mut(rank).ok_or_else(|| {
            bad(format!("rank {rank} is beyond the {count} tokens of the file; it may be cut short"))
        })?;
        if !place.is_empty() {
            return Err(bad(format!("rank {rank} is there twice")));
        }
        *place = token;
    }
    Ok(tokens)
}

/// Reads a whole file.
pub(super) fn read(text: &[u8], origin: &str) -> Result<Parts> {
    let tokens = read_lines(text, origin)?;
    let base = tokens.len();
    let mut vocabulary = Vocabulary::with_capacity(base + SPECIALS);
    let mut spelling = String::new();
    for (rank, token) in tokens.iter().enumerate() {
        spelling.clear();
        bytes::encode(token, &mut spelling);
        if let Some(first) = vocabulary.find(spelling.as_bytes()) {
            let problem = format!("ranks {first} and {rank} are the same token");
            return Err(TextError::invalid(origin, format!("rank {rank}"), problem));
        }
        vocabulary.push(&spelling, TokenKind::Normal, |out| out.extend_from_slice(token));
    }
    let mut added = Vec::with_capacity(SPECIALS);
    for number in 0..SPECIALS {
        let spelling = special_spelling(number);
        vocabulary.push(&spelling, TokenKind::Special, |out| out.extend_from_slice(spelling.as_bytes()));
        added.push(AddedToken::plain((base + number) as u32, &spelling, true));
    }
    let bpe = ByteBpe::new(&vocabulary, SplitRule::Llama3, Merges::Ranks, true, None);
    Ok(Parts {
        kind: "tiktoken".to_owned(),
        vocabulary,
        engine: Engine::ByteBpe(Box::new(bpe)),
        added,
        bos: Some(base as u32),
        adds_bos: Some(true),
        drops_first_space: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specials_have_the_names_of_llama_3() {
        assert_eq!(special_spelling(0), "<|begin_of_text|>");
        assert_eq!(special_spelling(9), "<|eot_id|>");
        assert_eq!(special_spelling(10), "<|reserved_special_token_5|>");
        assert_eq!(special_spelling(255), "<|reserved_special_token_250|>");
    }

    #[test]
    fn damaged_files_name_the_line() {
        for (text, part) in [
            ("", "empty"),
            ("IQ== 0\nIg==", "line 2: not of the form"),
            ("IQ== 0\nIg== 0", "line 2: rank 0 is there twice"),
            ("IQ== 0\nIg== 7", "line 2: rank 7 is beyond the 2 tokens"),
            ("IQ== 0\nI*== 1", "line 2: token is not base64"),
            ("IQ== 0\nIg== one", "line 2: rank \"one\" is no number"),
            ("IQ== 0\nIQ== 1", "ranks 0 and 1 are the same token"),
            ("IQ== 0\nIg== 1\n 2", "line 3"),
        ] {
            let error = read(text.as_bytes(), "t.model").err().expect(text).to_string();
            assert!(error.starts_with("t.model: ") && error.contains(part), "{text:?}: {error}");
        }
    }
}
