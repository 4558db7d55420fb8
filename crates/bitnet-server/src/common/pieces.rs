//! [`Pieces`]: what single tokens are, for log probabilities and lists of tokens.

use std::sync::Arc;

use bitnet_inference::InferenceEngine;
use bitnet_text::Tokenizer;

/// The bytes of tokens; none without a tokenizer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pieces(Option<Arc<Tokenizer>>);

impl Pieces {
    /// Those of a model.
    pub(crate) fn of(engine: &InferenceEngine) -> Self {
        Self(engine.tokenizer().ok().cloned())
    }

    /// The bytes of a token, which may be a part of a character only; its name's for a special one.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        self.0.as_ref().and_then(|tokenizer| tokenizer.token_bytes(token)).unwrap_or_default()
    }
}
