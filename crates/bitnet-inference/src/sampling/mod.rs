//! From logits to a token.
//!
//! Without other wishes the steps and their order are those of Hugging Face's generation: repetition penalty,
//! temperature, top-k, top-p, min-p, then one draw. [`SamplerOrder`] names all steps and changes their order. A temperature
//! of 0 takes the best token after bias, penalties and DRY.
//!
//! * [`SamplingParams`]: checked parameters, resolved from a model's defaults and a request's [`SamplingOverrides`].
//! * [`LogitBias`]: what a request adds to the logits of tokens.
//! * [`Sampler`]: applies them, without allocating once its buffers have grown.
//! * [`CustomSampler`]: a function of the user's own between bias and all else.
//! * [`Logprobs`]: how probable the tokens were.
//! * [`Rng`]: numbers that depend on nothing but a seed and a count.
//!
//! Where few logits decide, no others are asked of the executor: [`Sampler::decisive`] says how many, and the docs of
//! [`SamplingParams`] which parameters need all.
//!
//! All arithmetic is IEEE addition, multiplication, division, square root and comparison in a fixed order, with an `exp`
//! and `ln` of the engine's own; no step asks the platform's math library. So one seed gives one text, on every machine.

mod bias;
mod candidates;
mod custom;
mod dry;
mod logprobs;
mod math;
mod mirostat;
mod order;
mod params;
mod penalties;
mod places;
mod rng;
mod sampler;
#[cfg(test)]
mod tests;

pub use bias::{BiasTarget, LogitBias};
pub use custom::CustomSampler;
pub use dry::DRY_SEQUENCE_BREAKERS;
pub(crate) use logprobs::check_alternatives;
pub use logprobs::{Logprobs, LogprobsAt, TokenLogprob};
pub use order::{SamplerOrder, Step};
pub use params::{Mirostat, PenaltyWindow, SamplingOverrides, SamplingParams};
pub use rng::{Rng, random_seed};
pub use sampler::{Sampler, SamplingError};
