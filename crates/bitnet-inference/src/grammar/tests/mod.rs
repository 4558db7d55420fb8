//! Masks beside a direct definition, known grammars, hostile ones.

mod hostile;
mod known;
mod masks;
mod oracle;

use std::sync::{Arc, OnceLock};

use bitnet_text::Tokenizer;

use super::{Constraint, GrammarError, GrammarFactory, Matcher};
use crate::sampling::Rng;

/// The bundled model's vocabulary.
fn tokenizer() -> &'static Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        Arc::new(Tokenizer::from_json(bitnet_tiny::TOKENIZER_JSON, "tokenizer.json").unwrap())
    })
}

/// A token that ends texts.
fn stop_token() -> u32 {
    tokenizer().token_id("<|eot_id|>").unwrap()
}

fn factory() -> &'static GrammarFactory {
    static FACTORY: OnceLock<GrammarFactory> = OnceLock::new();
    FACTORY
        .get_or_init(|| GrammarFactory::new(tokenizer(), tokenizer().vocab_size(), &[stop_token()]).unwrap())
}

fn matcher(constraint: &Constraint) -> Matcher {
    factory().matcher(constraint, true).unwrap_or_else(|error| panic!("{constraint:?}: {error}"))
}

fn refused(constraint: &Constraint) -> GrammarError {
    match factory().matcher(constraint, true) {
        Err(error) => error,
        Ok(_) => panic!("{constraint:?} was compiled"),
    }
}

fn gbnf(text: &str) -> Constraint {
    Constraint::Gbnf(text.to_owned())
}

/// Whether a constraint accepts a text; how it is cut into tokens must not matter, so it is byte by byte or as the
/// tokenizer does it.
fn accepts(constraint: &Constraint, text: &str, by_bytes: bool) -> bool {
    let mut matcher = matcher(constraint);
    let tokens = if by_bytes {
        let byte = |b: u8| (0..256).find(|&id| tokenizer().token_bytes(id) == Some(&[b])).unwrap();
        text.bytes().map(byte).collect()
    } else {
        tokenizer().encode(text, bitnet_text::EncodeOptions::PLAIN).unwrap()
    };
    for token in tokens {
        match matcher.mask() {
            Ok(Some(mask)) if mask.contains(token) => matcher.accept(token).unwrap(),
            Ok(_) | Err(GrammarError::DeadEnd) => return false,
            Err(error) => panic!("{error}"),
        }
    }
    may_end(&mut matcher)
}

/// Whether the text may end here.
fn may_end(matcher: &mut Matcher) -> bool {
    match matcher.mask() {
        Ok(mask) => mask.is_none_or(|mask| mask.contains(stop_token())),
        Err(GrammarError::DeadEnd) => false,
        Err(error) => panic!("{error}"),
    }
}

/// One of the allowed tokens, by chance.
fn any_token(matcher: &mut Matcher, rng: &mut Rng) -> Option<u32> {
    let mask = matcher.mask().unwrap()?;
    let count = mask.count();
    let place = (rng.next_f64() * count as f64) as usize;
    (0..tokenizer().vocab_size() as u32).filter(|&token| mask.contains(token)).nth(place.min(count - 1))
}
