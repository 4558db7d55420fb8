//! Tokens where they stand in the text.

use bitnet_inference::InferenceEngine;
use bitnet_inference::evaluate::compare::TokenComparison;

use super::Report;

/// Tokens shown before the one in question.
const BEFORE: usize = 12;

/// A token at which the two differ.
pub(super) struct Difference {
    pub(super) token: TokenComparison,
    /// The text before it, on one line.
    pub(super) before: String,
    /// The token of the text.
    pub(super) text: String,
    /// The token that each thinks most probable.
    pub(super) best: [String; 2],
}

/// The tokens at which they differ most.
pub(super) fn differences(report: &Report<'_>, count: usize) -> Vec<Difference> {
    let engine = &report.engines[0];
    let show = |token: TokenComparison| {
        let start = token.position.saturating_sub(BEFORE);
        Difference {
            token,
            before: visible(engine, &report.comparison.text[start..token.position]),
            text: visible(engine, &[token.token]),
            best: token.best.map(|best| visible(engine, &[best])),
        }
    };
    report.comparison.most_different(count).into_iter().map(show).collect()
}

/// The text of tokens with line breaks and other control characters spelled out.
fn visible(engine: &InferenceEngine, tokens: &[u32]) -> String {
    let text = engine.tokenizer().map_or(String::new(), |tokenizer| tokenizer.decode(tokens, false));
    let spell = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(spell).collect()
}
