//! Flags that name a model and how to run it.

use std::path::PathBuf;

use clap::Args;

use super::values;

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
    /// Byte order of I2_S tensors in a GGUF file, where it cannot be told
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) i2s_layout: Option<String>,
    /// Activation of the feed-forward part, where the file tells it wrongly
    #[arg(long, value_name = "NAME")]
    pub(crate) activation: Option<String>,
}

/// A model to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// Model folder, .gguf or .safetensors file [default: the bundled model]
    #[arg(short, long, value_name = "PATH", env = "BITNET_MODEL", hide_env_values = true)]
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
    pub(crate) ctx_size: Option<usize>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
