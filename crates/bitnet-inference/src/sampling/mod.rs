//! From logits to a token.
//!
//! The steps and their order are those of Hugging Face's generation: repetition penalty, temperature, top-k, top-p,
//! min-p, then one draw. A temperature of 0 takes the best token after the penalty.
//!
//! * [`SamplingParams`]: checked parameters, resolved from a model's defaults and a request's [`SamplingOverrides`].
//! * [`Sampler`]: applies them, without allocating once its buffers have grown.
//! * [`Rng`]: numbers that depend on nothing but a seed and a count.
//!
//! All arithmetic is IEEE addition, multiplication, division and comparison in a fixed order, with the engine's own
//! `exp`; no step asks the platform's math library. So one seed gives one text, on every machine.

mod candidates;
mod params;
mod rng;
mod sampler;
#[cfg(test)]
mod tests;

pub use params::{PenaltyWindow, SamplingOverrides, SamplingParams};
pub use rng::{Rng, random_seed};
pub use sampler::{Sampler, SamplingError};
