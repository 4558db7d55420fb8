//! `bitnet compare`.

use std::path::PathBuf;

use bitnet_inference::{Device, OnDeviceFailure};
use bitnet_model::KvType;
use clap::Args;

use super::model::{LmHeadName, WeightFormName};
use super::{DeviceArgs, FormatArgs, ModelArgs, StorageArgs, values};

const EXAMPLES: &str = "\
Examples:
  bitnet compare 2b4t-bf16 2b4t.gguf -f book.txt             two forms of a model
  bitnet compare MODEL --b-kv-type int8                      what int8 keys and values change
  bitnet compare MODEL --a-kernels scalar --b-kernels avx2   two kernel sets: no difference
  bitnet compare MODEL --b-lm-head int8 --html out.html      a page with plots
  bitnet compare A B --json | jq .kl.mean

Both predict the same text in the same windows. A is the reference: KL is the divergence of B's distribution from A's, in
nats a token, 0 for the same. 'same best token' counts where both think the same token most probable, 'top 5 in common' how
many of the five most probable they share; the probability difference is that of the text's own tokens, B less A. Intervals
are standard errors and take tokens for independent. Without B, B is the same model; weights are then in memory once.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArgs {
    /// The reference: model folder or file, or a name on the Hub [default: the bundled model]
    #[arg(value_name = "A", env = "BITNET_MODEL", hide_env_values = true)]
    pub(crate) a: Option<PathBuf>,
    /// What is compared with it [default: A]
    #[arg(value_name = "B")]
    pub(crate) b: Option<PathBuf>,
    /// Text to predict; `-` reads stdin [default: a short text of the program's own]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Tokens of a window, after the token that begins a text [default: 511, or what the context holds]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) window: Option<usize>,
    /// Compare the first N tokens only
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) limit: Option<usize>,
    /// Show so many of the tokens at which they differ most
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) worst: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Write one page with plots and tables
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Threads that compute [default: one for each core]
    #[arg(short, long, value_name = "N", env = "BITNET_THREADS", hide_env_values = true)]
    #[arg(value_parser = values::threads)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) sides: SideArgs,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// What may differ between the two.
#[derive(Debug, Args)]
#[command(next_help_heading = "A and B")]
pub(crate) struct SideArgs {
    /// Device of A: cpu, cuda, vulkan and so on
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    a_device: Device,
    /// Device of B
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    b_device: Device,
    /// Kernel set of A, as `bitnet devices` lists them [default: the fastest]
    #[arg(long, value_name = "SET")]
    a_kernels: Option<String>,
    /// Kernel set of B
    #[arg(long, value_name = "SET")]
    b_kernels: Option<String>,
    /// How A keeps keys and values: f32, f16 or int8
    #[arg(long, value_name = "TYPE", default_value_t = KvType::default())]
    a_kv_type: KvType,
    /// How B keeps keys and values
    #[arg(long, value_name = "TYPE", default_value_t = KvType::default())]
    b_kv_type: KvType,
    /// How A keeps the output layer
    #[arg(long, value_name = "KIND", value_enum, default_value_t = LmHeadName::Exact, hide_possible_values = true)]
    a_lm_head: LmHeadName,
    /// How B keeps the output layer: exact, int8 or f16
    #[arg(long, value_name = "KIND", value_enum, default_value_t = LmHeadName::Exact, hide_possible_values = true)]
    b_lm_head: LmHeadName,
    /// How A keeps ternary weights
    #[arg(long, value_name = "FORM", value_enum, default_value_t = WeightFormName::Auto, hide_possible_values = true)]
    a_weight_form: WeightFormName,
    /// How B keeps ternary weights: auto, 2bit or 1.6bit
    #[arg(long, value_name = "FORM", value_enum, default_value_t = WeightFormName::Auto, hide_possible_values = true)]
    b_weight_form: WeightFormName,
}

impl CompareArgs {
    /// The flags of A and of B as those of a model each.
    pub(crate) fn models(&self) -> [ModelArgs; 2] {
        let model = |model: &Option<PathBuf>, device, kernels: &Option<String>, storage| ModelArgs {
            model: model.clone(),
            threads: self.threads,
            kernels: kernels.clone(),
            ctx_size: None,
            // What is compared must not change on the way.
            device: DeviceArgs { device, gpu_memory: None, on_device_error: OnDeviceFailure::Fail },
            storage,
            format: self.format.clone(),
        };
        let s = &self.sides;
        let storage = |weight_form, lm_head, kv_type| StorageArgs { weight_form, lm_head, kv_type };
        let b = if self.b.is_some() { &self.b } else { &self.a };
        [
            model(&self.a, s.a_device, &s.a_kernels, storage(s.a_weight_form, s.a_lm_head, s.a_kv_type)),
            model(b, s.b_device, &s.b_kernels, storage(s.b_weight_form, s.b_lm_head, s.b_kv_type)),
        ]
    }
}
