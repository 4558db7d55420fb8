//! [`LogitBias`]: what a request adds to the logits of tokens.

use bitnet_text::{EncodeOptions, Tokenizer};

use crate::error::{EngineError, ParameterError};

/// The tokens that a bias changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BiasTarget {
    /// One token.
    Token(u32),
    /// All tokens of a text, as it is encoded on its own.
    Text(String),
}

/// A number added to logits before all else. The few logits suffice while no bias is greater than 0.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitBias {
    /// Whose logits.
    pub target: BiasTarget,
    /// -1e6 to 1e6, or minus infinity, which excludes the tokens.
    pub bias: f32,
}

impl LogitBias {
    /// The biases by token, ascending, each token once with the sum of its biases.
    ///
    /// # Errors
    /// [`ParameterError`] for a bias out of range or a token outside the vocabulary, and the tokenizer's errors.
    pub(crate) fn resolve<'t>(
        list: &[Self],
        vocab_size: usize,
        tokenizer: impl Fn() -> Result<&'t Tokenizer, EngineError>,
    ) -> Result<Vec<(u32, f32)>, EngineError> {
        let mut biases = Vec::new();
        for Self { target, bias } in list {
            let refused = |value: String, allowed| ParameterError { name: "logit_bias", value, allowed };
            if !(bias.abs() <= 1e6 || *bias == f32::NEG_INFINITY) {
                return Err(refused(bias.to_string(), "from -1e6 to 1e6, or -inf").into());
            }
            match target {
                BiasTarget::Token(token) if *token as usize >= vocab_size => {
                    return Err(refused(
                        format!("token {token}"),
                        "of a token within the model's vocabulary",
                    )
                    .into());
                }
                BiasTarget::Token(token) => biases.push((*token, *bias)),
                BiasTarget::Text(text) => {
                    let plain = EncodeOptions { add_bos: false, parse_special: true };
                    let tokens = tokenizer()?.encode(text, plain)?;
                    if tokens.is_empty() {
                        return Err(refused(format!("{text:?}"), "of a text that is not empty").into());
                    }
                    biases.extend(tokens.into_iter().map(|token| (token, *bias)));
                }
            }
        }
        Ok(summed(biases))
    }
}

/// Sorted by token, with one entry a token: the sum.
pub(super) fn summed(mut biases: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
    biases.sort_by_key(|bias| bias.0);
    biases.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    biases
}
