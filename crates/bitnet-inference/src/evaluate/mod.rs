//! How good a model is: how well it predicts texts, how it answers tasks, and how two of them differ.
//!
//! * [`InferenceEngine::perplexity`](crate::InferenceEngine::perplexity): how well a text is predicted, in windows that may
//!   overlap ([`TextWindows`]).
//! * [`InferenceEngine::log_likelihoods`](crate::InferenceEngine::log_likelihoods): how probable continuations of a prompt
//!   are; what they have in common is computed once.
//! * [`task`]: questions with choices or with an answer to be written, accuracy with its interval.
//! * [`mod@compare`]: two engines over the same text: divergence, agreement, and the tokens at which they differ.
//!
//! Log-likelihoods are natural logarithms, sums in double precision over all logits of a row.
//!
//! ```
//! # use bitnet_inference::{EngineError, InferenceEngine};
//! # fn main() -> Result<(), EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! let texts = engine.continuations("Once upon a", &[" time", " keyboard"])?;
//! let scores = engine.log_likelihoods(&texts)?.texts;
//! assert!(scores[0].sum > scores[1].sum);
//! # Ok(())
//! # }
//! ```

pub mod compare;
mod likelihood;
mod perplexity;
mod rows;
pub mod task;
mod windows;

pub use likelihood::{LogLikelihood, LogLikelihoods, ScoredText};
pub use perplexity::{Perplexity, WindowScore};
pub use windows::{TextStart, TextWindows};
