//! [`Perplexity`]: how well a model predicts a text.

use std::ops::ControlFlow;

use bitnet_text::EncodeOptions;

use super::rows::{LogSoftmax, RowReader, rows_at_once};
use super::windows::{TextWindows, Window};
use crate::engine::InferenceEngine;
use crate::error::EngineError;

/// How well some tokens were predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// `exp(nll / tokens)`.
    pub value: f64,
    /// Standard error of the value: the spread of the tokens' likelihoods over the root of their number, times the value.
    /// It takes tokens for independent of each other, which those of one text are not quite.
    pub standard_error: f64,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Sum of their negative log-likelihoods, in nats.
    pub nll: f64,
    /// Sum of the squares of these.
    squares: f64,
    /// Bytes of the text, if each of its tokens was scored.
    pub bytes: Option<usize>,
    /// Whether all windows were scored.
    pub complete: bool,
}

/// The scored tokens of one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowScore {
    /// Which window, from 0.
    pub index: usize,
    /// How many there are.
    pub windows: usize,
    /// Place in the text of the first scored token, in tokens.
    pub position: usize,
    /// Tokens before it in the window.
    pub context: usize,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Sum of their negative log-likelihoods.
    pub nll: f64,
    /// Perplexity of the text up to here.
    pub so_far: f64,
    /// Tokens of the text that are done with.
    pub done: usize,
    /// Tokens of the text.
    pub total: usize,
}

impl Perplexity {
    /// Of these negative log-likelihoods.
    pub(super) fn of(likelihoods: impl IntoIterator<Item = f64>) -> Self {
        let mut all = Self::nothing();
        likelihoods.into_iter().for_each(|nll| all.add(nll));
        all.finish()
    }

    fn nothing() -> Self {
        Self {
            value: f64::NAN,
            standard_error: f64::NAN,
            tokens: 0,
            nll: 0.0,
            squares: 0.0,
            bytes: None,
            complete: true,
        }
    }

    fn add(&mut self, nll: f64) {
        self.tokens += 1;
        self.nll += nll;
        self.squares += nll * nll;
    }

    fn finish(mut self) -> Self {
        let count = self.tokens as f64;
        let mean = self.nll / count;
        self.value = mean.exp();
        let variance = (self.squares - count * mean * mean).max(0.0) / (count - 1.0).max(1.0);
        self.standard_error = (variance / count).sqrt() * self.value;
        self
    }

    /// That of the tokens of both, as of several texts.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let sum = Self {
            tokens: self.tokens + other.tokens,
            nll: self.nll + other.nll,
            squares: self.squares + other.squares,
            bytes: self.bytes.zip(other.bytes).map(|(a, b)| a + b),
            complete: self.complete && other.complete,
            ..*self
        };
        sum.finish()
    }

    /// Bits that a byte of the text takes, which compares models of different vocabularies; if each token was scored.
    pub fn bits_per_byte(&self) -> Option<f64> {
        let bytes = self.bytes.filter(|&bytes| bytes > 0 && self.complete)?;
        Some(self.nll / std::f64::consts::LN_2 / bytes as f64)
    }
}

impl InferenceEngine {
    /// Scores `text` in windows of `window` tokens that do not overlap, each behind the token that begins a text. `progress`
    /// gets the tokens done and those there are.
    ///
    /// # Errors
    /// As [`perplexity_with`](Self::perplexity_with).
    pub fn perplexity(
        &self,
        text: &str,
        window: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Perplexity, EngineError> {
        self.perplexity_with(text, &TextWindows::new(window), &mut |window| {
            progress(window.done, window.total);
            ControlFlow::Continue(())
        })
    }

    /// Scores `text`: tokenizes it without special tokens, cuts it into windows and sums the negative log-likelihood of
    /// every token in the first window that has it, with all that stands before it there. `on_window` hears of each window and
    /// ends the work by breaking; the result is then that of the windows so far.
    ///
    /// # Errors
    /// [`EngineError`]; among them a window that the context does not hold and a text without tokens to score.
    pub fn perplexity_with(
        &self,
        text: &str,
        windows: &TextWindows,
        on_window: &mut dyn FnMut(&WindowScore) -> ControlFlow<()>,
    ) -> Result<Perplexity, EngineError> {
        windows.check(self)?;
        let tokens = self.tokenizer()?.encode(text, EncodeOptions::PLAIN)?;
        let cut = windows.cut(tokens, self.defaults().bos);
        let (count, total, needed) = (cut.windows(), cut.text().len(), cut.needed());
        let mut all = Perplexity::nothing();
        all.bytes = cut.scores_all().then_some(text.len());
        for (index, window) in cut.enumerate() {
            let before = all;
            self.score_window(&window, &mut all)?;
            let tokens = all.tokens - before.tokens;
            let score = WindowScore {
                index,
                windows: count,
                position: window.position,
                context: window.from,
                tokens,
                nll: all.nll - before.nll,
                so_far: all.finish().value,
                done: window.position + tokens,
                total,
            };
            if on_window(&score).is_break() && index + 1 < count {
                all.complete = false;
                break;
            }
        }
        if all.tokens == 0 {
            return Err(EngineError::TextTooShort { tokens: total, needed });
        }
        Ok(all.finish())
    }

    fn score_window(&self, window: &Window, all: &mut Perplexity) -> Result<(), EngineError> {
        let vocab_size = self.spec().vocab_size;
        let mut reader = RowReader::new(self, window, rows_at_once(self))?;
        let mut targets = window.input[window.from.min(window.input.len())..].iter();
        while let Some(rows) = reader.next()? {
            for (row, &target) in rows.chunks_exact(vocab_size).zip(targets.by_ref()) {
                all.add(-LogSoftmax::new(row).of(target as usize));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_a_mean() {
        let values = [1.0, 2.0, 4.0, 5.0];
        let all = Perplexity::of(values);
        // Mean 3, variance of the sample 10/3.
        assert!((all.value - 3f64.exp()).abs() < 1e-9);
        assert!((all.standard_error / all.value - (10.0f64 / 12.0).sqrt()).abs() < 1e-12);
        let parts =
            Perplexity::of(values[..1].iter().copied()).and(&Perplexity::of(values[1..].iter().copied()));
        assert!((parts.value - all.value).abs() < 1e-12 && parts.tokens == 4);
        assert!((parts.standard_error - all.standard_error).abs() < 1e-9);
        assert_eq!(Perplexity::of([2.0]).standard_error, 0.0);
    }
}
