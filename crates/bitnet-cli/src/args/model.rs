//! Flags that name a model and how to run it.

use std::path::PathBuf;

use bitnet_core::MemorySize;
use bitnet_cpu::Form;
use bitnet_inference::{Device, OnDeviceFailure, OutputStorage};
use bitnet_model::{Activation, KvType};
use bitnet_quant::I2sLayout;
use clap::{Args, ValueEnum};

use super::{HubArgs, values};

/// Byte orders of I2_S by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum I2sLayoutName {
    /// Blocks of 128 weights, as in the official files
    Group128,
    /// Blocks of 64 weights, from quantisers run on ARM
    Group64,
    /// Four rows to a byte
    Rows4,
}

impl From<I2sLayoutName> for I2sLayout {
    fn from(name: I2sLayoutName) -> Self {
        match name {
            I2sLayoutName::Group128 => Self::Group128,
            I2sLayoutName::Group64 => Self::Group64,
            I2sLayoutName::Rows4 => Self::Rows4,
        }
    }
}

/// Activations by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ActivationName {
    /// As in bitnet-b1.58-2B-4T
    Relu2,
    /// As in the first BitNet b1.58 models
    Silu,
}

impl From<ActivationName> for Activation {
    fn from(name: ActivationName) -> Self {
        match name {
            ActivationName::Relu2 => Self::Relu2,
            ActivationName::Silu => Self::Silu,
        }
    }
}

/// Forms of ternary weights in memory by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WeightFormName {
    /// Whichever a short measurement finds faster
    Auto,
    /// Two bits a weight
    #[value(name = "2bit")]
    TwoBit,
    /// Five weights in eight bits
    #[value(name = "1.6bit")]
    FiveTrits,
}

impl From<WeightFormName> for Option<Form> {
    fn from(name: WeightFormName) -> Self {
        match name {
            WeightFormName::Auto => None,
            WeightFormName::TwoBit => Some(Form::TwoBit),
            WeightFormName::FiveTrits => Some(Form::FiveTrits),
        }
    }
}

/// Ways to keep the output layer by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LmHeadName {
    /// int8 rows find the tokens that matter, full-precision rows in the model's file compute them: exact
    Exact,
    /// int8 rows alone: approximate, and nothing is read from the model's file
    Int8,
    /// Full-precision rows as they are in the file, read whole for every token
    F16,
}

impl From<LmHeadName> for OutputStorage {
    fn from(name: LmHeadName) -> Self {
        match name {
            LmHeadName::Exact => Self::Exact,
            LmHeadName::Int8 => Self::Int8,
            LmHeadName::F16 => Self::Full,
        }
    }
}

/// Where the model is and how to read it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model format")]
pub(crate) struct FormatArgs {
    /// Tokenizer to use instead of the model's own (tokenizer.json or tiktoken file)
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Chat template to use instead of the model's own (a Jinja file)
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Byte order of I2_S tensors in a GGUF file, which the file does not tell
    #[arg(long, value_name = "LAYOUT", value_enum, default_value_t = I2sLayoutName::Group128)]
    pub(crate) i2s_layout: I2sLayoutName,
    /// Activation of the feed-forward part in GGUF files of the architecture `bitnet`, which stands for two models
    #[arg(long, value_name = "NAME", value_enum)]
    pub(crate) activation: Option<ActivationName>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// Where the model runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct DeviceArgs {
    /// auto, cpu, cuda, cuda:N, metal, vulkan, dx12 or mlx; `bitnet devices` says what there is
    #[arg(long, value_name = "DEVICE", env = "BITNET_DEVICE", hide_env_values = true, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Most memory of a GPU to use, such as 6GB [default: nearly all that is free]
    #[arg(long, value_name = "SIZE", env = "BITNET_GPU_MEMORY", hide_env_values = true)]
    pub(crate) gpu_memory: Option<MemorySize>,
    /// When a GPU fails: go on with the processor (cpu), or end with its error (fail)
    #[arg(long, value_name = "WHAT", env = "BITNET_ON_DEVICE_ERROR", hide_env_values = true)]
    #[arg(default_value_t = OnDeviceFailure::FallBack)]
    pub(crate) on_device_error: OnDeviceFailure,
}

/// How weights and context are kept in memory.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory")]
pub(crate) struct StorageArgs {
    /// How ternary weights are kept in memory; the text is the same
    #[arg(long, value_name = "FORM", value_enum, default_value_t = WeightFormName::Auto)]
    #[arg(env = "BITNET_WEIGHT_FORM", hide_env_values = true)]
    pub(crate) weight_form: WeightFormName,
    /// How the output layer is kept
    #[arg(long, value_name = "KIND", value_enum, default_value_t = LmHeadName::Exact)]
    #[arg(env = "BITNET_LM_HEAD", hide_env_values = true)]
    pub(crate) lm_head: LmHeadName,
    /// How keys and values of the context are kept: f32, f16 or int8 (also called q8_0)
    #[arg(long, alias = "cache-type", value_name = "TYPE", env = "BITNET_KV_TYPE", hide_env_values = true)]
    #[arg(default_value_t = KvType::default())]
    pub(crate) kv_type: KvType,
}

/// A model to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// Model folder or file, or ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub [default: the bundled model]
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL", hide_env_values = true)]
    pub(crate) model: Option<PathBuf>,
    /// Threads that compute [default: one for each core]
    #[arg(short, long, value_name = "N", env = "BITNET_THREADS", hide_env_values = true)]
    #[arg(value_parser = values::threads)]
    pub(crate) threads: Option<usize>,
    /// Kernel set, as `bitnet devices` lists them [default: the fastest]
    #[arg(long, value_name = "SET", env = "BITNET_KERNELS", hide_env_values = true)]
    pub(crate) kernels: Option<String>,
    /// Most tokens of prompt and answer together [default: what the model was made for]
    #[arg(short, long, value_name = "N", value_parser = values::positive)]
    #[arg(env = "BITNET_CTX_SIZE", hide_env_values = true)]
    pub(crate) ctx_size: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
