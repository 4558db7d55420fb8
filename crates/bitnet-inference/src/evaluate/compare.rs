//! [`compare`]: two engines over the same text.
//!
//! The first engine is the reference: the divergence is that of the second's distribution from the first's.

use std::ops::ControlFlow;

use bitnet_text::EncodeOptions;

use super::perplexity::Perplexity;
use super::rows::{LogSoftmax, RowReader, rows_at_once};
use super::windows::{TextWindows, Window};
use crate::benchmark::statistics::percentile;
use crate::engine::InferenceEngine;
use crate::error::EngineError;

/// Of how many of the most probable tokens the overlap is told.
pub const TOP: usize = 5;

/// One token of the text, as both engines predict it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenComparison {
    /// Its place in the text, in tokens.
    pub position: usize,
    /// The token of the text.
    pub token: u32,
    /// Kullback-Leibler divergence of the second distribution from the first, in nats.
    pub kl: f64,
    /// Logarithms of the token's probability.
    pub logprobs: [f64; 2],
    /// The most probable tokens.
    pub best: [u32; 2],
    /// Logarithms of their probabilities, each under its own engine.
    pub best_logprobs: [f64; 2],
    /// How many of the [`TOP`] most probable tokens of one are among those of the other.
    pub overlap: usize,
    /// Largest difference of two logits.
    pub logit_difference: f32,
}

impl TokenComparison {
    /// Whether both think the same token most probable.
    pub fn agrees(&self) -> bool {
        self.best[0] == self.best[1]
    }

    /// By how much the second engine thinks the token more probable.
    pub fn probability_difference(&self) -> f64 {
        self.logprobs[1].exp() - self.logprobs[0].exp()
    }
}

/// All compared tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// All tokens of the text.
    pub text: Vec<u32>,
    /// The compared ones.
    pub tokens: Vec<TokenComparison>,
    /// Whether all windows were compared.
    pub complete: bool,
}

/// Divergence over all tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Mean.
    pub mean: f64,
    /// Its standard error, with tokens taken for independent.
    pub standard_error: f64,
    /// Half of the tokens have at most so much.
    pub median: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// A comparison in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ComparisonSummary {
    /// Tokens compared.
    pub tokens: usize,
    /// Kullback-Leibler divergence.
    pub kl: Divergence,
    /// Part of the tokens where both think the same one most probable, 0 to 1.
    pub top1: f64,
    /// Mean part of the [`TOP`] most probable tokens that they have in common, 0 to 1.
    pub top5: f64,
    /// Largest difference of two logits.
    pub logit_difference: f32,
    /// Mean difference of the probabilities of the text's tokens, the second less the first.
    pub mean_difference: f64,
    /// Root of the mean square of these differences.
    pub rms_difference: f64,
    /// How well each predicts the text.
    pub perplexity: [Perplexity; 2],
    /// Logarithm of the second perplexity over the first.
    pub log_ratio: f64,
    /// Its standard error: smaller than those of the perplexities, since both saw the same text.
    pub log_ratio_error: f64,
}

impl Comparison {
    /// The comparison in numbers; `None` if nothing was compared.
    pub fn summary(&self) -> Option<ComparisonSummary> {
        let count = self.tokens.len();
        if count == 0 {
            return None;
        }
        let mean =
            |f: &dyn Fn(&TokenComparison) -> f64| self.tokens.iter().map(f).sum::<f64>() / count as f64;
        let error = |f: &dyn Fn(&TokenComparison) -> f64| {
            let center = mean(f);
            let variance = mean(&|t| (f(t) - center).powi(2)) * count as f64 / (count as f64 - 1.0).max(1.0);
            (variance / count as f64).sqrt()
        };
        let mut kl: Vec<f64> = self.tokens.iter().map(|t| t.kl).collect();
        kl.sort_by(f64::total_cmp);
        let ratio = |t: &TokenComparison| t.logprobs[0] - t.logprobs[1];
        let perplexity = [0, 1].map(|i| {
            let mut all = Perplexity::of(self.tokens.iter().map(|t| -t.logprobs[i]));
            all.complete = self.complete;
            all
        });
        Some(ComparisonSummary {
            tokens: count,
            kl: Divergence {
                mean: mean(&|t| t.kl),
                standard_error: error(&|t| t.kl),
                median: percentile(&kl, 50.0),
                p90: percentile(&kl, 90.0),
                p99: percentile(&kl, 99.0),
                max: kl[count - 1],
            },
            top1: mean(&|t| f64::from(u8::from(t.agrees()))),
            top5: mean(&|t| t.overlap as f64 / TOP as f64),
            logit_difference: self.tokens.iter().map(|t| t.logit_difference).fold(0.0, f32::max),
            mean_difference: mean(&TokenComparison::probability_difference),
            rms_difference: mean(&|t| t.probability_difference().powi(2)).sqrt(),
            perplexity,
            log_ratio: mean(&ratio),
            log_ratio_error: error(&ratio),
        })
    }

    /// The tokens at which the engines differ most, the largest divergence first; none at which they do not differ.
    pub fn most_different(&self, count: usize) -> Vec<TokenComparison> {
        let mut tokens: Vec<_> = self.tokens.iter().copied().filter(|t| t.kl > 0.0).collect();
        tokens.sort_by(|a, b| b.kl.total_cmp(&a.kl).then(a.position.cmp(&b.position)));
        tokens.truncate(count);
        tokens
    }
}

/// Lets two engines predict `text` in the same windows, at most `limit` of its tokens. `progress` gets the tokens done and
/// those there are, and ends the work by breaking; the result is then that of the windows so far.
///
/// # Errors
/// [`EngineError::Vocabularies`] if the models do not have the same tokens, [`EngineError::TextTooShort`], and all that a
/// forward call of either can fail with.
pub fn compare(
    a: &InferenceEngine,
    b: &InferenceEngine,
    text: &str,
    windows: &TextWindows,
    limit: Option<usize>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Comparison, EngineError> {
    check_vocabularies(a, b)?;
    windows.check(a)?;
    windows.check(b)?;
    let mut tokens = a.tokenizer()?.encode(text, EncodeOptions::PLAIN)?;
    tokens.truncate(limit.unwrap_or(usize::MAX));
    let cut = windows.cut(tokens, a.defaults().bos);
    let (text, needed) = (cut.text().to_vec(), cut.needed());
    let mut out = Comparison { text, tokens: Vec::new(), complete: true };
    for window in cut {
        compare_window(a, b, &window, &mut out.tokens)?;
        let done = window.position + window.input.len().saturating_sub(window.from);
        if progress(done, out.text.len()).is_break() && done < out.text.len() {
            out.complete = false;
            break;
        }
    }
    if out.tokens.is_empty() {
        return Err(EngineError::TextTooShort { tokens: out.text.len(), needed });
    }
    Ok(out)
}

/// Checks that both models have the same tokens.
fn check_vocabularies(a: &InferenceEngine, b: &InferenceEngine) -> Result<(), EngineError> {
    let differ = |why: String| {
        let models = [a, b].map(|engine| engine.model().name.clone());
        Err(EngineError::Vocabularies { models, why })
    };
    let sizes = [a, b].map(|engine| engine.spec().vocab_size);
    if sizes[0] != sizes[1] {
        return differ(format!("one has {} tokens, the other {}", sizes[0], sizes[1]));
    }
    let (first, second) = (a.tokenizer()?, b.tokenizer()?);
    match (0..sizes[0] as u32).find(|&token| first.token_bytes(token) != second.token_bytes(token)) {
        None => Ok(()),
        Some(token) => {
            let spell = |bytes: Option<&[u8]>| {
                bytes.map_or("nothing".into(), |b| format!("{:?}", String::from_utf8_lossy(b)))
            };
            let (first, second) = (spell(first.token_bytes(token)), spell(second.token_bytes(token)));
            differ(format!("token {token} is {first} in one, {second} in the other"))
        }
    }
}

fn compare_window(
    a: &InferenceEngine,
    b: &InferenceEngine,
    window: &Window,
    out: &mut Vec<TokenComparison>,
) -> Result<(), EngineError> {
    let (vocab_size, rows) = (a.spec().vocab_size, rows_at_once(a).min(rows_at_once(b)));
    let mut readers = (RowReader::new(a, window, rows)?, RowReader::new(b, window, rows)?);
    let targets = &window.input[window.from.min(window.input.len())..];
    let mut targets = targets.iter().zip(window.position..);
    while let (Some(first), Some(second)) = (readers.0.next()?, readers.1.next()?) {
        let pairs = first.chunks_exact(vocab_size).zip(second.chunks_exact(vocab_size));
        for ((first, second), (&token, position)) in pairs.zip(targets.by_ref()) {
            out.push(compare_rows(first, second, token, position));
        }
    }
    Ok(())
}

fn compare_rows(a: &[f32], b: &[f32], token: u32, position: usize) -> TokenComparison {
    let (p, q) = (LogSoftmax::new(a), LogSoftmax::new(b));
    let divergence: f64 = (0..a.len())
        .map(|i| {
            let logprob = p.of(i);
            logprob.exp() * (logprob - q.of(i))
        })
        .sum();
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let tops = [top(a), top(b)];
    let best = [0, 1].map(|i| tops[i][0]);
    TokenComparison {
        position,
        token,
        // Rounding may leave a hair below zero.
        kl: divergence.max(0.0),
        logprobs: [p.of(token as usize), q.of(token as usize)],
        best,
        best_logprobs: [p.of(best[0] as usize), q.of(best[1] as usize)],
        overlap: tops[0].iter().filter(|token| tops[1].contains(token)).count(),
        logit_difference: differences.fold(0.0, f32::max),
    }
}

/// The most probable tokens, best first; of equal ones the first.
fn top(logits: &[f32]) -> Vec<u32> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(TOP + 1);
    for (token, &logit) in logits.iter().enumerate() {
        if best.len() < TOP || best.last().is_some_and(|(least, _)| logit > *least) {
            let at = best.partition_point(|(other, _)| *other >= logit);
            best.insert(at, (logit, token as u32));
            best.truncate(TOP);
        }
    }
    best.into_iter().map(|(_, token)| token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distributions() {
        // 1/2, 1/4, 1/4 and 1/4, 1/2, 1/4.
        let (a, b) = ([2f32.ln(), 0.0, 0.0], [0.0, 2f32.ln(), 0.0]);
        let same = compare_rows(&a, &a, 1, 7);
        assert_eq!((same.kl, same.logit_difference, same.overlap, same.position), (0.0, 0.0, 3, 7));
        assert!(same.agrees() && same.probability_difference() == 0.0);
        let other = compare_rows(&a, &b, 0, 0);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(other.kl, 0.25 * 2f64.ln());
        close(other.probability_difference(), -0.25);
        close(other.logit_difference.into(), 2f64.ln());
        close(other.best_logprobs[1].exp(), 0.5);
        assert_eq!((other.best, other.agrees()), ([0, 1], false));
    }

    #[test]
    fn the_best_come_first_and_equal_ones_in_order() {
        assert_eq!(top(&[1.0, 5.0, 5.0, 2.0, 3.0, 4.0, 5.0, 0.0]), [1, 2, 6, 5, 4]);
        assert_eq!(top(&[1.0, 2.0]), [1, 0]);
    }

    #[test]
    fn a_summary_of_known_tokens() {
        let token = |kl, logprobs, best, overlap| TokenComparison {
            position: 0,
            token: 0,
            kl,
            logprobs,
            best,
            best_logprobs: [0.0; 2],
            overlap,
            logit_difference: kl as f32,
        };
        let half = 0.5f64.ln();
        let tokens = vec![token(0.0, [half, half], [1, 1], 5), token(2.0, [half, 0.0], [1, 2], 2)];
        let comparison = Comparison { text: vec![0, 0], tokens, complete: true };
        let summary = comparison.summary().unwrap();
        assert_eq!((summary.kl.mean, summary.kl.max, summary.kl.standard_error), (1.0, 2.0, 1.0));
        assert_eq!((summary.top1, summary.top5, summary.logit_difference), (0.5, 0.7, 2.0));
        assert_eq!((summary.mean_difference, summary.rms_difference), (0.25, 0.125f64.sqrt()));
        assert!((summary.perplexity[0].value - 2.0).abs() < 1e-12);
        assert!(
            (summary.perplexity[1].value.ln() - summary.perplexity[0].value.ln() - summary.log_ratio).abs()
                < 1e-12
        );
        assert_eq!(comparison.most_different(9).len(), 1, "equal tokens are no difference");
    }
}
