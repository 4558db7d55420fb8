//! `bitnet inspect`.

use std::path::PathBuf;

use clap::Args;

use super::FormatArgs;

const EXAMPLES: &str = "\
Examples:
  bitnet inspect                          the bundled model
  bitnet inspect ./bitnet-b1.58-2B-4T
  bitnet inspect ggml-model-i2_s.gguf --tensors
  bitnet inspect MODEL --json | jq .parameters";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Model folder or file, or ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub [default: the bundled model]
    #[arg(value_name = "MODEL", env = "BITNET_MODEL", hide_env_values = true)]
    pub(crate) model: Option<PathBuf>,
    /// List every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
