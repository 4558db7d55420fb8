//! The model's tokens as the parser of constraints wants them.
//!
//! Every token is its bytes. Tokens that stand for no text (special ones, and stop tokens however they are spelled)
//! carry a mark in front, a byte that no text has, so that only a Lark grammar that names them lets them through. One
//! more token, behind the last, means the end of the text; the model's own stop tokens take its place in the masks.

use std::sync::Arc;

use bitnet_text::Tokenizer;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::GrammarError;

/// Longest token in bytes that the trie has room for; longer ones are never allowed.
const LONGEST: usize = 1000;
/// Most bytes of all tokens, a limit of the trie's.
const MOST_BYTES: usize = (1 << 22) - 1024;
/// Most tokens, a limit of the trie's.
const MOST_TOKENS: usize = (1 << 24) - 2;

struct Tokens {
    trie: TokTrie,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(bytes)
    }

    // Masks are then all tokens that fit, not only those by which the tokenizer would write what is certain.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// The tokens `0..vocab_size` of a model, and `vocab_size` itself for the end of the text.
pub(super) fn environment(
    tokenizer: &Tokenizer,
    vocab_size: usize,
    stop_tokens: &[u32],
) -> Result<TokEnv, GrammarError> {
    let unfit = |problem: &str| GrammarError::Vocabulary { problem: problem.to_owned() };
    if vocab_size > MOST_TOKENS {
        return Err(unfit("its vocabulary is too large"));
    }
    let marked = |bytes: &[u8]| [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
    let word = |id: u32| match tokenizer.token_bytes(id) {
        Some(bytes) if bytes.len() > LONGEST => Vec::new(),
        Some(bytes) if tokenizer.is_special(id) || stop_tokens.contains(&id) => marked(bytes),
        Some(bytes) => bytes.to_vec(),
        None => Vec::new(),
    };
    let mut words: Vec<Vec<u8>> = (0..vocab_size as u32).map(word).collect();
    if words.iter().all(|word| word.is_empty() || word[0] == TokTrie::SPECIAL_TOKEN_MARKER) {
        return Err(unfit("none of its tokens stands for bytes"));
    }
    words.push(marked(b"<end of the text>"));
    if words.iter().map(Vec::len).sum::<usize>() > MOST_BYTES {
        return Err(unfit("the tokens of its vocabulary are too long together"));
    }
    let info = TokRxInfo::new(words.len() as u32, vocab_size as u32);
    Ok(Arc::new(Tokens { trie: TokTrie::from(&info, &words) }))
}
