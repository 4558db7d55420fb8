//! Rows of logits: computed a few at a time, and read as log-probabilities.

use bitnet_core::lanes;

use super::windows::Window;
use crate::engine::InferenceEngine;
use crate::error::EngineError;
use crate::kv::Session;

/// Memory for logits of one forward call, in values (32 MiB).
const LOGIT_VALUES: usize = 8 << 20;

/// How many rows of logits an engine computes at a time.
pub(super) fn rows_at_once(engine: &InferenceEngine) -> usize {
    engine.info().max_batch_tokens.min(LOGIT_VALUES / engine.spec().vocab_size).max(1)
}

/// A row of logits and what makes probabilities of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogSoftmax<'a> {
    logits: &'a [f32],
    largest: f32,
    /// Logarithm of the sum of the exponentials of what logits miss of the largest.
    log_sum: f64,
}

impl<'a> LogSoftmax<'a> {
    pub(super) fn new(logits: &'a [f32]) -> Self {
        let largest = lanes::max(logits);
        let sum: f64 = logits.iter().map(|&l| f64::from(l - largest).exp()).sum();
        Self { logits, largest, log_sum: sum.ln() }
    }

    /// Logarithm of the probability of a token.
    pub(super) fn of(&self, token: usize) -> f64 {
        f64::from(self.logits[token] - self.largest) - self.log_sum
    }

    /// Whether no token is more probable, and none before it is equally so.
    pub(super) fn is_best(&self, token: usize) -> bool {
        self.logits[token] == self.largest && !self.logits[..token].contains(&self.largest)
    }
}

/// Gives the logits that predict the scored tokens of a window, some rows at a time.
#[derive(Debug)]
pub(super) struct RowReader<'e> {
    engine: &'e InferenceEngine,
    session: Session,
    /// The last token's logits predict nothing in the window.
    end: usize,
    rows: usize,
    logits: Vec<f32>,
}

impl<'e> RowReader<'e> {
    /// Computes what stands before the scored tokens of a window. `rows` are given at a time.
    ///
    /// # Errors
    /// As a forward call.
    pub(super) fn new(
        engine: &'e InferenceEngine,
        window: &Window,
        rows: usize,
    ) -> Result<Self, EngineError> {
        let end = window.input.len() - 1;
        let mut session = engine.scratch_session();
        session.extend(&window.input);
        let context = (window.from - 1).min(end);
        engine.core().prefill_to(&mut session, context)?;
        Ok(Self { engine, session, end, rows, logits: Vec::new() })
    }

    /// The next rows, `[rows, vocab_size]`; `None` after the last.
    ///
    /// # Errors
    /// As a forward call.
    pub(super) fn next(&mut self) -> Result<Option<&[f32]>, EngineError> {
        let start = self.session.computed();
        if start >= self.end {
            return Ok(None);
        }
        let end = (start + self.rows).min(self.end);
        self.logits.resize((end - start) * self.engine.spec().vocab_size, 0.0);
        self.engine.score(&mut self.session, end, &mut self.logits)?;
        Ok(Some(&self.logits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_of_known_distributions() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(LogSoftmax::new(&[1.0; 8]).of(3), -8f64.ln());
        close(LogSoftmax::new(&[1e4, 1e4, -1e4]).of(0), -2f64.ln());
        close(LogSoftmax::new(&[0.0, 3f32.ln()]).of(1), -(4.0f64 / 3.0).ln());
        let row = LogSoftmax::new(&[1.0, 2.0, 2.0]);
        assert_eq!([0, 1, 2].map(|token| row.is_best(token)), [false, true, false]);
    }
}
