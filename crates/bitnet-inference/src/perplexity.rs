//! [`Perplexity`]: how well a model predicts a text.

use bitnet_text::EncodeOptions;

use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};

/// Memory for logits of one forward call, in values (32 MiB).
const LOGIT_VALUES: usize = 8 << 20;

/// Result of scoring a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// `exp(nll / tokens)`.
    pub value: f64,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Sum of their negative log-likelihoods, in nats.
    pub nll: f64,
}

impl InferenceEngine {
    /// Scores `text`: tokenizes it without special tokens, cuts it into windows of `window` tokens, puts the token that
    /// begins a text before each, and sums the negative log-likelihood of every token of the text. For a model without such a
    /// token the first token of each window is context only. `progress` gets the tokens done and those there are.
    ///
    /// # Errors
    /// [`EngineError`]; among them a window that the context does not hold and a text without tokens to score.
    pub fn perplexity(
        &self,
        text: &str,
        window: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Perplexity, EngineError> {
        let tokens = self.tokenizer()?.encode(text, EncodeOptions::PLAIN)?;
        let bos = self.defaults().bos;
        let begin = usize::from(bos.is_some());
        if window == 0 || window + begin > self.context() {
            let allowed = "at least 1, and with the token that begins a text no longer than the context";
            return Err(ParameterError { name: "window", value: window.to_string(), allowed }.into());
        }
        let (mut nll, mut scored) = (0.0, 0);
        for (index, part) in tokens.chunks(window).enumerate() {
            let input: Vec<u32> = bos.into_iter().chain(part.iter().copied()).collect();
            scored += input.len() - 1;
            nll += self.window_nll(&input)?;
            progress(index * window + part.len(), tokens.len());
        }
        if scored == 0 {
            return Err(EngineError::TextTooShort { tokens: tokens.len(), needed: 2 - begin });
        }
        Ok(Perplexity { value: (nll / scored as f64).exp(), tokens: scored, nll })
    }

    /// Sum of the negative log-likelihoods of all tokens of a window but the first.
    fn window_nll(&self, input: &[u32]) -> Result<f64, EngineError> {
        let vocab = self.spec().vocab_size;
        let rows = self.info().max_batch_tokens.min(LOGIT_VALUES / vocab).clamp(1, input.len());
        let mut logits = vec![0.0; rows * vocab];
        let mut session = self.scratch_session();
        session.extend(input);
        let mut nll = 0.0;
        while session.computed() + 1 < input.len() {
            let start = session.computed();
            let end = (start + rows).min(input.len() - 1);
            let logits = &mut logits[..(end - start) * vocab];
            self.score(&mut session, end, logits)?;
            for (row, &target) in logits.chunks_exact(vocab).zip(&input[start + 1..]) {
                nll += negative_log_likelihood(row, target as usize);
            }
        }
        Ok(nll)
    }
}

/// `ln(sum of exp) - logit`, without overflow.
fn negative_log_likelihood(logits: &[f32], target: usize) -> f64 {
    let best = bitnet_core::lanes::max(logits);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - best).exp()).sum();
    sum.ln() - f64::from(logits[target] - best)
}

#[cfg(test)]
mod tests {
    use super::negative_log_likelihood;

    #[test]
    fn likelihood_of_known_distributions() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(negative_log_likelihood(&[1.0; 8], 3), 8f64.ln());
        close(negative_log_likelihood(&[1e4, 1e4, -1e4], 0), 2f64.ln());
        close(negative_log_likelihood(&[0.0, 3f32.ln()], 1), (4.0f64 / 3.0).ln());
    }
}
