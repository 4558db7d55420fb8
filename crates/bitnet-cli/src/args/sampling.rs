//! Flags of sampling; what is not given comes from the model's generation defaults.

use bitnet_inference::{PenaltyWindow, SamplingOverrides};
use clap::Args;

use super::values;

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Sampling (defaults: the model's)")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 always takes the best token
    #[arg(long, visible_alias = "temperature", value_name = "T", value_parser = values::temperature)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) temp: Option<f32>,
    /// Draw among the K best tokens; 0 for all
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) top_k: Option<usize>,
    /// Draw among the best tokens that reach probability P together; 1 for all
    #[arg(long, value_name = "P", value_parser = values::probability, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Draw among tokens with at least P times the best one's probability; 0 for all
    #[arg(long, value_name = "P", value_parser = values::probability, allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,
    /// Penalty on tokens that occurred before; 1 for none
    #[arg(long, value_name = "X", value_parser = values::penalty, allow_negative_numbers = true)]
    pub(crate) repeat_penalty: Option<f32>,
    /// Tokens that the penalty looks back at; -1 for all, 0 for none [default: -1]
    #[arg(long, value_name = "N", value_parser = values::window, allow_negative_numbers = true)]
    pub(crate) repeat_last_n: Option<PenaltyWindow>,
    /// Seed of the draws: same seed, same text [default: random]
    #[arg(short, long)]
    pub(crate) seed: Option<u64>,
}

impl SamplingArgs {
    /// As the engine takes them.
    pub(crate) fn overrides(&self) -> SamplingOverrides {
        SamplingOverrides {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
            seed: self.seed,
        }
    }
}
