//! [`SamplingParams`]: the parameters of sampling, their defaults and their limits.

use bitnet_model::load::GenerationDefaults;

use crate::error::ParameterError;

/// Which of the tokens before are punished for being repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PenaltyWindow {
    /// The whole prompt and all that was generated, as Hugging Face does.
    #[default]
    All,
    /// The last so many tokens of prompt and generated text; 0 switches the penalty off.
    Last(usize),
}

/// Parameters that a request sets itself; what is `None` comes from the model's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SamplingOverrides {
    /// See [`SamplingParams::temperature`].
    pub temperature: Option<f32>,
    /// See [`SamplingParams::top_k`].
    pub top_k: Option<usize>,
    /// See [`SamplingParams::top_p`].
    pub top_p: Option<f32>,
    /// See [`SamplingParams::min_p`].
    pub min_p: Option<f32>,
    /// See [`SamplingParams::repeat_penalty`].
    pub repeat_penalty: Option<f32>,
    /// See [`SamplingParams::repeat_last_n`].
    pub repeat_last_n: Option<PenaltyWindow>,
    /// See [`SamplingParams::seed`].
    pub seed: Option<u64>,
}

impl SamplingOverrides {
    /// Always the best token, without any penalty.
    pub fn greedy() -> Self {
        Self { temperature: Some(0.0), repeat_penalty: Some(1.0), ..Self::default() }
    }
}

/// Checked parameters of sampling, in the order in which they act.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides positive and multiplies negative logits of tokens seen before; 1 does nothing. Greater than 0.
    pub repeat_penalty: f32,
    /// The tokens that `repeat_penalty` looks at.
    pub repeat_last_n: PenaltyWindow,
    /// Divides the logits; 0 always takes the best token (of equals the lowest id). 0 or greater.
    pub temperature: f32,
    /// Keeps the so many most probable tokens (of equals the lowest ids); 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most probable tokens that reach this probability together, at least one; 1 keeps all. 0 to 1.
    pub top_p: f32,
    /// Keeps tokens with at least this share of the best token's probability; 0 keeps all. 0 to 1.
    pub min_p: f32,
    /// Seed of the draws; `None` takes a random one.
    pub seed: Option<u64>,
}

/// What holds where neither the model nor the request says anything.
const FALLBACK: SamplingParams = SamplingParams {
    repeat_penalty: 1.0,
    repeat_last_n: PenaltyWindow::All,
    temperature: 0.8,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.0,
    seed: None,
};

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
        let params = Self {
            repeat_penalty: own
                .repeat_penalty
                .or(model.repetition_penalty)
                .unwrap_or(FALLBACK.repeat_penalty),
            repeat_last_n: own.repeat_last_n.unwrap_or(FALLBACK.repeat_last_n),
            temperature: own.temperature.or(temperature).unwrap_or(FALLBACK.temperature),
            top_k: own.top_k.or(model.top_k.map(|k| k as usize)).unwrap_or(FALLBACK.top_k),
            top_p: own.top_p.or(model.top_p).unwrap_or(FALLBACK.top_p),
            min_p: own.min_p.or(model.min_p).unwrap_or(FALLBACK.min_p),
            seed: own.seed,
        };
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
        let unit = |v: f32| (0.0..=1.0).contains(&v);
        let (t, r) = (self.temperature, self.repeat_penalty);
        check("repeat_penalty", r, r.is_finite() && r > 0.0, "a number greater than 0, 1 for none")?;
        check("temperature", t, t.is_finite() && t >= 0.0, "0 or greater")?;
        check("top_p", self.top_p, unit(self.top_p), "from 0 to 1")?;
        check("min_p", self.min_p, unit(self.min_p), "from 0 to 1")
    }
}
