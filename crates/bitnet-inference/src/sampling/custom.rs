//! [`CustomSampler`]: a function of the user's own among the steps of sampling.

use std::fmt;
use std::sync::Arc;

/// What a custom sampler does: it sees and may change the logits, `[vocab_size]`, of the token that follows the tokens, and
/// chooses one or leaves that to the request's sampling parameters.
type Choose = dyn Fn(&mut [f32], &[u32]) -> Option<u32> + Send + Sync;

/// A function that chooses tokens, or changes logits before the sampling parameters act.
///
/// It runs behind bias, banned strings and grammars: logits of minus infinity are tokens that must not be chosen. It is
/// called once for every token, in the order of the text, on the engine's thread, so it should be quick; where a text goes
/// back for a banned string or is tried ahead, it is called again for the same place, so that it should depend on its
/// arguments only. It needs all logits, which costs large models some speed.
///
/// ```
/// use bitnet_inference::{CustomSampler, GenerateRequest, Prompt};
/// # use bitnet_inference::{EngineError, InferenceEngine};
///
/// # fn main() -> Result<(), EngineError> {
/// # let engine = InferenceEngine::bundled().threads(1).build()?;
/// // Never the same token twice in a row; all else as the request says.
/// let no_echo = CustomSampler::new(|logits, tokens| {
///     if let Some(&last) = tokens.last() {
///         logits[last as usize] = f32::NEG_INFINITY;
///     }
///     None
/// });
/// let request = GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(12).custom_sampler(no_echo);
/// let tokens = engine.generate_blocking(&request)?.tokens;
/// assert!(tokens.windows(2).all(|pair| pair[0] != pair[1]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CustomSampler(Arc<Choose>);

impl CustomSampler {
    /// A sampler that is this function. What it returns is the token; `None` lets the request's sampling parameters draw one
    /// from the logits as the function left them.
    pub fn new(choose: impl Fn(&mut [f32], &[u32]) -> Option<u32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    pub(super) fn choose(&self, logits: &mut [f32], tokens: &[u32]) -> Option<u32> {
        (self.0)(logits, tokens)
    }
}

impl fmt::Debug for CustomSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomSampler")
    }
}

impl PartialEq for CustomSampler {
    /// Whether both are the same function, not whether two do the same.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
