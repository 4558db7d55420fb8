//! Flags of sampling; what is not given comes from the model's generation defaults.
//!
//! Each that takes one value is a setting too: an environment variable, and a line of `[sampling]` in the configuration file.

use bitnet_inference::{
    GenerateRequest, LogitBias, Mirostat, PenaltyWindow, SamplerOrder, SamplingOverrides,
};
use clap::Args;

use super::values;

/// How tokens are drawn.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling (defaults: the model's)")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 always takes the best token
    #[arg(long, visible_alias = "temperature", value_name = "T", value_parser = values::temperature)]
    #[arg(allow_negative_numbers = true)]
    #[arg(env = "BITNET_TEMP", hide_env = true)]
    pub(crate) temp: Option<f32>,
    /// Vary the temperature by up to X with the model's uncertainty; 0 for a fixed one
    #[arg(long, value_name = "X", value_parser = values::temperature, allow_negative_numbers = true)]
    #[arg(env = "BITNET_DYNATEMP_RANGE", hide_env = true)]
    pub(crate) dynatemp_range: Option<f32>,
    /// Exponent of the uncertainty in the dynamic temperature [default: 1]
    #[arg(long, value_name = "X", value_parser = values::positive_number, allow_negative_numbers = true)]
    #[arg(env = "BITNET_DYNATEMP_EXP", hide_env = true)]
    pub(crate) dynatemp_exp: Option<f32>,
    /// Draw among the K best tokens; 0 for all
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    #[arg(env = "BITNET_TOP_K", hide_env = true)]
    pub(crate) top_k: Option<usize>,
    /// Draw among the best tokens that reach probability P together; 1 for all
    #[arg(long, value_name = "P", value_parser = values::probability, allow_negative_numbers = true)]
    #[arg(env = "BITNET_TOP_P", hide_env = true)]
    pub(crate) top_p: Option<f32>,
    /// Draw among tokens with at least P times the best one's probability; 0 for all
    #[arg(long, value_name = "P", value_parser = values::probability, allow_negative_numbers = true)]
    #[arg(env = "BITNET_MIN_P", hide_env = true)]
    pub(crate) min_p: Option<f32>,
    /// Draw among the most typical tokens that reach probability P together; 1 for all
    #[arg(long, visible_alias = "typical-p", value_name = "P", value_parser = values::probability)]
    #[arg(allow_negative_numbers = true)]
    #[arg(env = "BITNET_TYPICAL", hide_env = true)]
    pub(crate) typical: Option<f32>,
    /// Draw among tokens at most N standard deviations below the best logit; -1 or 0 for all
    #[arg(long, visible_alias = "top-n-sigma", value_name = "N", value_parser = values::n_sigma)]
    #[arg(allow_negative_numbers = true)]
    #[arg(env = "BITNET_TOP_NSIGMA", hide_env = true)]
    pub(crate) top_nsigma: Option<f32>,
    /// With probability P, take the most probable tokens away but for the last of them (XTC); 0 for never
    #[arg(long, value_name = "P", value_parser = values::probability, allow_negative_numbers = true)]
    #[arg(env = "BITNET_XTC_PROBABILITY", hide_env = true)]
    pub(crate) xtc_probability: Option<f32>,
    /// Probability from which XTC takes tokens away; above 0.5 never [default: 0.1]
    #[arg(long, value_name = "P", value_parser = values::probability, allow_negative_numbers = true)]
    #[arg(env = "BITNET_XTC_THRESHOLD", hide_env = true)]
    pub(crate) xtc_threshold: Option<f32>,
    /// Steer the surprise of the text in place of all cuts: 1 or 2 for a version of mirostat, 0 for none
    #[arg(long, value_name = "N", value_parser = values::mirostat, allow_negative_numbers = true)]
    #[arg(env = "BITNET_MIROSTAT", hide_env = true)]
    pub(crate) mirostat: Option<Mirostat>,
    /// Surprise of a token that mirostat aims at, in bits [default: 5]
    #[arg(long, value_name = "X", value_parser = values::non_negative, allow_negative_numbers = true)]
    #[arg(env = "BITNET_MIROSTAT_ENT", hide_env = true)]
    pub(crate) mirostat_ent: Option<f32>,
    /// Share of its error that mirostat corrects at each token [default: 0.1]
    #[arg(long, value_name = "X", value_parser = values::probability, allow_negative_numbers = true)]
    #[arg(env = "BITNET_MIROSTAT_LR", hide_env = true)]
    pub(crate) mirostat_lr: Option<f32>,
    /// Penalty on tokens that occurred before; 1 for none
    #[arg(long, value_name = "X", value_parser = values::penalty, allow_negative_numbers = true)]
    #[arg(env = "BITNET_REPEAT_PENALTY", hide_env = true)]
    pub(crate) repeat_penalty: Option<f32>,
    /// Subtract X from the logit of tokens that occurred before; 0 for none
    #[arg(long, value_name = "X", value_parser = values::offset, allow_negative_numbers = true)]
    #[arg(env = "BITNET_PRESENCE_PENALTY", hide_env = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Subtract X from the logit of a token for each time it occurred; 0 for none
    #[arg(long, value_name = "X", value_parser = values::offset, allow_negative_numbers = true)]
    #[arg(env = "BITNET_FREQUENCY_PENALTY", hide_env = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Tokens that these penalties look back at; -1 for all, 0 for none [default: -1]
    #[arg(long, value_name = "N", value_parser = values::window, allow_negative_numbers = true)]
    #[arg(env = "BITNET_REPEAT_LAST_N", hide_env = true)]
    pub(crate) repeat_last_n: Option<PenaltyWindow>,
    /// Penalty on tokens that would continue a repeated sequence (DRY); 0 for none
    #[arg(long, value_name = "X", value_parser = values::dry_multiplier, allow_negative_numbers = true)]
    #[arg(env = "BITNET_DRY_MULTIPLIER", hide_env = true)]
    pub(crate) dry_multiplier: Option<f32>,
    /// Growth of the DRY penalty with each token of the sequence [default: 1.75]
    #[arg(long, value_name = "X", value_parser = values::dry_base, allow_negative_numbers = true)]
    #[arg(env = "BITNET_DRY_BASE", hide_env = true)]
    pub(crate) dry_base: Option<f32>,
    /// Sequences shorter than N tokens cost nothing under DRY [default: 2]
    #[arg(long, value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    #[arg(env = "BITNET_DRY_ALLOWED_LENGTH", hide_env = true)]
    pub(crate) dry_allowed_length: Option<usize>,
    /// Tokens among which DRY looks; -1 for all, 0 for none [default: -1]
    #[arg(long, value_name = "N", value_parser = values::window, allow_negative_numbers = true)]
    #[arg(env = "BITNET_DRY_PENALTY_LAST_N", hide_env = true)]
    pub(crate) dry_penalty_last_n: Option<PenaltyWindow>,
    /// Text over which no sequence of DRY reaches, \n for a line break; `none` for no such text (may be given several
    /// times) [default: \n : " *]
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) dry_sequence_breaker: Vec<String>,
    /// Add to a token's logit: ID+X, ID-X, ID-inf (never), or a text's tokens: TEXT+X (may be given several times)
    #[arg(short = 'l', long, value_name = "TOKEN±X", value_parser = values::logit_bias)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) logit_bias: Vec<LogitBias>,
    /// Text that is never generated (may be given several times)
    #[arg(long, visible_alias = "ban", value_name = "STR", allow_hyphen_values = true)]
    pub(crate) banned_string: Vec<String>,
    /// Steps of sampling in their order, as in llama.cpp:
    /// "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature" [default: the temperature before top_k]
    #[arg(long, value_name = "NAMES", value_parser = values::samplers)]
    pub(crate) samplers: Option<SamplerOrder>,
    /// The same by letters, as in llama.cpp: edskypmxt
    #[arg(long, visible_alias = "sampler-seq", value_name = "LETTERS", value_parser = values::sampling_seq)]
    #[arg(conflicts_with = "samplers")]
    pub(crate) sampling_seq: Option<SamplerOrder>,
    /// Seed of the draws: same seed, same text [default: random]
    #[arg(short, long)]
    #[arg(env = "BITNET_SEED", hide_env = true)]
    pub(crate) seed: Option<u64>,
}

impl SamplingArgs {
    /// As the engine takes them.
    pub(crate) fn overrides(&self) -> SamplingOverrides {
        SamplingOverrides {
            temperature: self.temp,
            dynatemp_range: self.dynatemp_range,
            dynatemp_exponent: self.dynatemp_exp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical,
            top_n_sigma: self.top_nsigma,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            mirostat: self.mirostat,
            mirostat_tau: self.mirostat_ent,
            mirostat_eta: self.mirostat_lr,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repeat_last_n: self.repeat_last_n,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: self.dry_penalty_last_n,
            samplers: self.samplers.or(self.sampling_seq),
            seed: self.seed,
        }
    }

    /// Puts what is not a number into a request: biases, banned strings, sequence breakers.
    pub(crate) fn complete(&self, request: &mut GenerateRequest) {
        request.logit_bias.clone_from(&self.logit_bias);
        request.banned.clone_from(&self.banned_string);
        if !self.dry_sequence_breaker.is_empty() {
            let breakers = self.dry_sequence_breaker.iter().filter(|text| *text != "none");
            request.dry_sequence_breakers = Some(breakers.map(|text| text.replace("\\n", "\n")).collect());
        }
    }
}
