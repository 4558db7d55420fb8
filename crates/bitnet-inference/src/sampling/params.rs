//! [`SamplingParams`]: the parameters of sampling, their defaults and their limits.

use bitnet_model::load::GenerationDefaults;

use super::SamplerOrder;
use crate::error::ParameterError;

/// Which of the tokens before a penalty looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PenaltyWindow {
    /// The whole prompt and all that was generated, as Hugging Face does.
    #[default]
    All,
    /// The last so many tokens of prompt and generated text; 0 switches the penalty off.
    Last(usize),
}

impl PenaltyWindow {
    /// The part of `history` that is looked at.
    pub(super) fn of(self, history: &[u32]) -> &[u32] {
        match self {
            Self::All => history,
            Self::Last(n) => &history[history.len().saturating_sub(n)..],
        }
    }
}

/// Which mirostat controls the surprise of the text, if any (Basu et al., "Mirostat: A Neural Text Decoding Algorithm
/// that Directly Controls Perplexity", 2021). It takes the place of all cuts and of XTC; penalties, DRY and the
/// temperature act before it. Needs all logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirostat {
    /// None.
    #[default]
    Off,
    /// The paper's algorithm 1: keeps as many tokens as a Zipf distribution, fitted to the 100 best, would need.
    V1,
    /// The authors' second version: keeps the tokens whose surprise is within the bound.
    V2,
}

/// Declares the two structures of parameters from one list, so that they cannot differ.
macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $neutral:expr;)*) => {
        /// Parameters that a request sets itself; what is `None` comes from the model's defaults, else the engine's.
        #[derive(Debug, Clone, Copy, PartialEq, Default)]
        pub struct SamplingOverrides {
            $(
                #[doc = concat!("See [`SamplingParams::", stringify!($name), "`].")]
                pub $name: Option<$type>,
            )*
            /// See [`SamplingParams::seed`].
            pub seed: Option<u64>,
        }

        impl SamplingOverrides {
            /// `self`, and where it says nothing, what `base` says.
            #[must_use]
            pub fn over(self, base: &Self) -> Self {
                Self { $($name: self.$name.or(base.$name),)* seed: self.seed.or(base.seed) }
            }
        }

        /// Checked parameters of sampling. Which of the steps act in which order says [`samplers`](Self::samplers).
        ///
        /// "Needs all logits" at a parameter means: while it acts, the whole output layer is read for each token. Without
        /// such a parameter, and with a temperature of 0 or a `top_k`, the executor computes the few decisive logits only.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct SamplingParams {
            $($(#[$doc])* pub $name: $type,)*
            /// Seed of the draws; `None` takes a random one.
            pub seed: Option<u64>,
        }

        impl SamplingParams {
            /// Draws from the model's own distribution: no step changes anything.
            pub const NEUTRAL: Self = Self { $($name: $neutral,)* seed: None };

            /// `self` where `own` says nothing.
            fn overridden(self, own: &SamplingOverrides) -> Self {
                Self { $($name: own.$name.unwrap_or(self.$name),)* seed: own.seed }
            }
        }
    };
}

parameters! {
    /// Divides positive and multiplies negative logits of tokens seen before (Keskar et al., "CTRL", 2019); 1 does
    /// nothing. Greater than 0. Below 1 it lifts tokens and needs all logits.
    repeat_penalty: f32 = 1.0;
    /// Subtracted from the logit of each token seen before, as in OpenAI's API; 0 does nothing. -100 to 100. Below 0 it
    /// needs all logits.
    presence_penalty: f32 = 0.0;
    /// Subtracted from the logit of a token for each time it was seen, as in OpenAI's API; 0 does nothing. -100 to 100.
    /// Below 0 it needs all logits.
    frequency_penalty: f32 = 0.0;
    /// The tokens that `repeat_penalty`, `presence_penalty` and `frequency_penalty` look at.
    repeat_last_n: PenaltyWindow = PenaltyWindow::All;
    /// Strength of DRY, "don't repeat yourself" (p-e-w, text-generation-webui pull request 5677, 2024): a token that would
    /// continue a repetition of `n` tokens loses `dry_multiplier * dry_base^(n - dry_allowed_length)` of its logit. 0
    /// switches it off. 0 to 1e6. The few logits suffice.
    dry_multiplier: f32 = 0.0;
    /// Growth of DRY's penalty with each token of the repetition. 1 or greater.
    dry_base: f32 = 1.75;
    /// Repetitions shorter than this cost nothing under DRY. At least 1.
    dry_allowed_length: usize = 2;
    /// The tokens among which DRY looks for repetitions.
    dry_penalty_last_n: PenaltyWindow = PenaltyWindow::All;
    /// Divides the logits; 0 always takes the best token (of equals the lowest id), after bias, penalties and DRY and
    /// whatever the other parameters say. 0 or greater. The few logits suffice.
    temperature: f32 = 1.0;
    /// Dynamic temperature (kalomaze, "entropy sampling", 2023): the temperature lies within `temperature` -/+ this, at
    /// the lower end where the model is certain, at the upper one where all tokens are alike. 0 keeps it fixed. 0 or
    /// greater. Needs all logits, unless `top_k` acts before the temperature.
    dynatemp_range: f32 = 0.0;
    /// Exponent of the share of the greatest possible entropy, by which the dynamic temperature rises. Greater than 0.
    dynatemp_exponent: f32 = 1.0;
    /// Keeps the tokens whose logit is at most so many standard deviations of all logits below the best (Tang et al.,
    /// "Top-n-sigma: Not All Logits Are You Need", 2024); 0 keeps all. 0 or greater. Needs all logits, unless `top_k`
    /// acts before it.
    top_n_sigma: f32 = 0.0;
    /// Keeps the so many most probable tokens (of equals the lowest ids; Fan et al., "Hierarchical Neural Story
    /// Generation", 2018); 0 keeps all. The few logits suffice.
    top_k: usize = 0;
    /// Locally typical sampling (Meister et al., 2022): keeps the fewest tokens that reach this probability together,
    /// those first whose information is nearest to the entropy; 1 keeps all. 0 to 1. Needs all logits, unless `top_k`
    /// acts before it.
    typical_p: f32 = 1.0;
    /// Keeps the fewest most probable tokens that reach this probability together, at least one (Holtzman et al., "The
    /// Curious Case of Neural Text Degeneration", 2020); 1 keeps all. 0 to 1. Needs all logits, unless `top_k` acts
    /// before it.
    top_p: f32 = 1.0;
    /// Keeps tokens with at least this share of the best token's probability (Nguyen et al., "Turning Up the Heat: Min-p
    /// Sampling", 2024); 0 keeps all. 0 to 1. Needs all logits, unless `top_k` acts before it.
    min_p: f32 = 0.0;
    /// Probability with which XTC, "exclude top choices" (p-e-w, text-generation-webui pull request 6335, 2024), acts on a
    /// token: it removes the most probable tokens, all of those that reach `xtc_threshold` but the least probable. 0
    /// switches it off. 0 to 1. Needs all logits, unless `top_k` acts before it.
    xtc_probability: f32 = 0.0;
    /// Probability that makes a token a top choice to XTC; above 0.5 there cannot be two and nothing happens. 0 to 1.
    xtc_threshold: f32 = 0.1;
    /// Mirostat, in place of all cuts. Needs all logits.
    mirostat: Mirostat = Mirostat::Off;
    /// The surprise of a token that mirostat aims at, in bits. 0 or greater.
    mirostat_tau: f32 = 5.0;
    /// How much of the last token's error mirostat corrects. 0 to 1.
    mirostat_eta: f32 = 0.1;
    /// The steps and their order.
    samplers: SamplerOrder = SamplerOrder::DEFAULT;
}

impl SamplingOverrides {
    /// Always the best token, without any penalty.
    pub fn greedy() -> Self {
        Self { temperature: Some(0.0), repeat_penalty: Some(1.0), ..Self::default() }
    }
}

/// What holds where neither the model nor the request says anything.
const FALLBACK: SamplingParams =
    SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, ..SamplingParams::NEUTRAL };

impl Default for SamplingParams {
    fn default() -> Self {
        FALLBACK
    }
}

impl SamplingParams {
    /// Combines a request's own values, the model's defaults and the engine's, in this order of precedence.
    /// A model whose defaults say `do_sample: false` is sampled at temperature 0 unless the request sets one.
    ///
    /// # Errors
    /// [`ParameterError`] naming the first value out of range, NaN included.
    pub fn resolve(own: &SamplingOverrides, model: &GenerationDefaults) -> Result<Self, ParameterError> {
        let temperature = if model.do_sample == Some(false) { Some(0.0) } else { model.temperature };
        let defaults = Self {
            repeat_penalty: model.repetition_penalty.unwrap_or(FALLBACK.repeat_penalty),
            temperature: temperature.unwrap_or(FALLBACK.temperature),
            top_k: model.top_k.map_or(FALLBACK.top_k, |k| k as usize),
            top_p: model.top_p.unwrap_or(FALLBACK.top_p),
            min_p: model.min_p.unwrap_or(FALLBACK.min_p),
            ..FALLBACK
        };
        let params = defaults.overridden(own);
        params.validate()?;
        Ok(params)
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`ParameterError`] naming the first that is outside.
    pub fn validate(&self) -> Result<(), ParameterError> {
        let check = |name, value: f32, ok: bool, allowed| {
            if ok { Ok(()) } else { Err(ParameterError { name, value: value.to_string(), allowed }) }
        };
        let unit = |name, v: f32| check(name, v, (0.0..=1.0).contains(&v), "from 0 to 1");
        let at_least =
            |name, v: f32, least: f32, allowed| check(name, v, v.is_finite() && v >= least, allowed);
        let above_0 = |name, v: f32, allowed| check(name, v, v.is_finite() && v > 0.0, allowed);
        let offset = |name, v: f32| check(name, v, v.abs() <= 100.0, "from -100 to 100, 0 for none");
        above_0("repeat_penalty", self.repeat_penalty, "a number greater than 0, 1 for none")?;
        offset("presence_penalty", self.presence_penalty)?;
        offset("frequency_penalty", self.frequency_penalty)?;
        let strength = (0.0..=1e6).contains(&self.dry_multiplier);
        check("dry_multiplier", self.dry_multiplier, strength, "from 0 (off) to 1e6")?;
        at_least("dry_base", self.dry_base, 1.0, "1 or greater")?;
        if self.dry_allowed_length == 0 {
            let (name, allowed) = ("dry_allowed_length", "1 or more");
            return Err(ParameterError { name, value: "0".to_owned(), allowed });
        }
        at_least("temperature", self.temperature, 0.0, "0 or greater")?;
        at_least("dynatemp_range", self.dynatemp_range, 0.0, "0 (off) or greater")?;
        above_0("dynatemp_exponent", self.dynatemp_exponent, "greater than 0")?;
        at_least("top_n_sigma", self.top_n_sigma, 0.0, "0 (off) or greater")?;
        unit("typical_p", self.typical_p)?;
        unit("top_p", self.top_p)?;
        unit("min_p", self.min_p)?;
        unit("xtc_probability", self.xtc_probability)?;
        unit("xtc_threshold", self.xtc_threshold)?;
        at_least("mirostat_tau", self.mirostat_tau, 0.0, "0 or greater")?;
        unit("mirostat_eta", self.mirostat_eta)
    }
}
