//! [`Matcher`]: follows one generated text.

use std::sync::Arc;

use bitnet_model::TokenSet;
use bitnet_text::{EncodeOptions, Tokenizer};

use super::GrammarError;

/// A set of tokens, one bit for each: token `t` is bit `t % 32` of word `t / 32`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask {
    words: Vec<u32>,
}

impl Clone for Mask {
    fn clone(&self) -> Self {
        Self { words: self.words.clone() }
    }

    fn clone_from(&mut self, source: &Self) {
        self.words.clone_from(&source.words);
    }
}

impl Mask {
    /// Whether a token is in the set.
    pub(crate) fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word & (1 << (token % 32)) != 0)
    }

    /// The same, for executors.
    pub(crate) fn as_set(&self) -> TokenSet<'_> {
        TokenSet::new(&self.words)
    }

    /// How many tokens it has.
    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn set(&mut self, token: u32, allowed: bool) {
        let bit = 1 << (token % 32);
        let word = &mut self.words[token as usize / 32];
        *word = if allowed { *word | bit } else { *word & !bit };
    }
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Not yet found out.
    Unknown,
    /// A token of the mask.
    Token,
    /// Nothing: the text is complete.
    Nothing,
}

/// The state of one constrained text. Clones go on independently.
pub(crate) struct Matcher {
    inner: llguidance::Matcher,
    /// The state at the beginning.
    fresh: Arc<llguidance::Matcher>,
    tokenizer: Arc<Tokenizer>,
    /// The token that means the end of the text; the model does not have it.
    end: u32,
    /// Tokens that end the text, where it may end.
    stop_tokens: Arc<[u32]>,
    /// All of the model's stop tokens.
    all_stop_tokens: Arc<[u32]>,
    /// The tokens so far.
    tokens: Vec<u32>,
    mask: Mask,
    next: Next,
}

impl Clone for Matcher {
    fn clone(&self) -> Self {
        // The lexer's tables would be shared otherwise, and with them their limit and their lock.
        let mut other = self.with(self.inner.deep_clone());
        other.tokens.clone_from(&self.tokens);
        other.mask.clone_from(&self.mask);
        other.next = self.next;
        other
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher")
            .field("tokens", &self.tokens.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Matcher {
    pub(super) fn new(
        fresh: Arc<llguidance::Matcher>,
        tokenizer: Arc<Tokenizer>,
        vocab_size: usize,
        stop_tokens: Arc<[u32]>,
        all_stop_tokens: &Arc<[u32]>,
    ) -> Self {
        Self {
            inner: fresh.deep_clone(),
            fresh,
            tokenizer,
            end: vocab_size as u32,
            stop_tokens,
            all_stop_tokens: Arc::clone(all_stop_tokens),
            tokens: Vec::new(),
            mask: Mask::default(),
            next: Next::Unknown,
        }
    }

    /// The same rules, in the state of this parser; its tokens count from here on.
    fn with(&self, inner: llguidance::Matcher) -> Self {
        Self {
            inner,
            fresh: Arc::clone(&self.fresh),
            tokenizer: Arc::clone(&self.tokenizer),
            end: self.end,
            stop_tokens: Arc::clone(&self.stop_tokens),
            all_stop_tokens: Arc::clone(&self.all_stop_tokens),
            tokens: Vec::new(),
            mask: Mask::default(),
            next: Next::Unknown,
        }
    }

    /// The tokens that may come next, stop tokens among them where the text may end. `None`: nothing may follow, the text
    /// is complete.
    ///
    /// # Errors
    /// [`GrammarError::TooComplex`] if finding out takes too much, [`GrammarError::DeadEnd`] if no token fits.
    pub(crate) fn mask(&mut self) -> Result<Option<&Mask>, GrammarError> {
        if self.next == Next::Unknown {
            self.next = self.find_next()?;
        }
        Ok((self.next == Next::Token).then_some(&self.mask))
    }

    fn find_next(&mut self) -> Result<Next, GrammarError> {
        if self.inner.is_stopped() {
            return match self.inner.get_error() {
                None if self.inner.stop_reason().is_ok() => Ok(Next::Nothing),
                problem => Err(failed(&problem.unwrap_or_else(|| self.inner.stop_reason().to_string()))),
            };
        }
        self.mask.words = self.inner.compute_mask().map_err(|error| failed(&error.to_string()))?.into();
        let may_end = self.mask.contains(self.end);
        self.mask.set(self.end, false);
        for place in 0..self.all_stop_tokens.len() {
            let token = self.all_stop_tokens[place];
            // A grammar may name a stop token. As the text ends with it, it must be the last of the grammar.
            if self.mask.contains(token) && !self.completes(token) {
                self.mask.set(token, false);
            }
        }
        let any = self.mask.count() > 0;
        if may_end {
            if !any {
                return Ok(Next::Nothing);
            }
            for &token in self.stop_tokens.iter() {
                self.mask.set(token, true);
            }
        }
        if any { Ok(Next::Token) } else { Err(GrammarError::DeadEnd) }
    }

    /// Whether a stop token that the grammar names is one of those that end the text, and completes the grammar.
    fn completes(&self, token: u32) -> bool {
        let mut ahead = self.inner.clone();
        self.stop_tokens.contains(&token)
            && ahead.consume_token(token).is_ok()
            && ahead.is_accepting().unwrap_or(false)
    }

    /// Goes on by a token of the [mask](Self::mask), none that ended the text.
    ///
    /// # Errors
    /// [`GrammarError::Refused`] for a token that does not fit. The matcher is of no use then, until it is rewound.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), GrammarError> {
        self.next = Next::Unknown;
        self.tokens.push(token);
        self.inner.consume_token(token).map_err(|error| {
            GrammarError::of_parser(&error.to_string(), |problem| GrammarError::Refused { token, problem })
        })
    }

    /// Goes back to the first `keep` tokens.
    ///
    /// # Errors
    /// [`GrammarError`] if the parser fails on what it accepted before.
    pub(crate) fn rewind(&mut self, keep: usize) -> Result<(), GrammarError> {
        let back = self.tokens.len().saturating_sub(keep);
        if back == 0 {
            return Ok(());
        }
        self.tokens.truncate(keep);
        self.next = Next::Unknown;
        // Grammars with some of Lark's extras cannot go back, so that they start anew.
        if self.inner.is_error() || self.inner.rollback(back).is_err() {
            self.inner = self.fresh.deep_clone();
            self.inner.consume_tokens(&self.tokens).map_err(|error| failed(&error.to_string()))?;
        }
        Ok(())
    }

    /// What may follow each of these tokens, if they come next; as far as they fit and something follows.
    pub(crate) fn ahead(&self, tokens: &[u32]) -> Vec<Mask> {
        if tokens.is_empty() {
            return Vec::new();
        }
        // Nobody goes on with this state, so that the lexer's tables may be shared.
        let mut state = self.with(self.inner.clone());
        let mut masks = Vec::with_capacity(tokens.len());
        for &token in tokens {
            let fits = token < self.end && state.accept(token).is_ok();
            let Some(mask) = fits.then(|| state.mask().ok().flatten().cloned()).flatten() else { break };
            masks.push(mask);
        }
        masks
    }

    /// Tokens that spell what must follow, if something must: good guesses for speculation. The model may spell it by other
    /// tokens, so they are no more than guesses.
    pub(crate) fn forced(&self) -> Vec<u32> {
        let bytes = self.inner.clone().compute_ff_bytes();
        let whole = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        let mut tokens = match self.tokenizer.encode(whole, EncodeOptions::PLAIN) {
            Ok(tokens) if self.spells(&tokens, whole) => tokens,
            _ => return Vec::new(),
        };
        // What follows may change how the last one is spelled.
        tokens.pop();
        tokens
    }

    fn spells(&self, tokens: &[u32], text: &str) -> bool {
        let mut rest = text.as_bytes();
        tokens.iter().all(|&token| {
            let bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
            let fits = rest.starts_with(bytes);
            rest = &rest[if fits { bytes.len() } else { 0 }..];
            fits
        })
    }
}

/// What a message of the parser means while it follows a text.
fn failed(message: &str) -> GrammarError {
    if message.contains("NoExtension") {
        return GrammarError::DeadEnd;
    }
    GrammarError::of_parser(message, |problem| GrammarError::Failed { problem })
}
