//! Flags about models on the Hub, and the commands that keep the cache.

use std::path::PathBuf;

use bitnet_core::MemorySize;
use clap::Args;

/// How models on the Hub are reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Models on the Hub")]
pub(crate) struct HubArgs {
    /// Use only models on this machine (also HF_HUB_OFFLINE=1)
    #[arg(long)]
    pub(crate) offline: bool,
    /// Token for gated and private models [default: HF_TOKEN, else the one that `hf auth login` stored]
    #[arg(long, alias = "hf-token", value_name = "TOKEN")]
    pub(crate) token: Option<String>,
}

const PULL_EXAMPLES: &str = "\
Examples:
  bitnet pull microsoft/bitnet-b1.58-2B-4T
  bitnet pull microsoft/bitnet-b1.58-2B-4T-gguf:i2_s     one GGUF file, by quantisation
  bitnet pull org/model@v1.0                             a branch, tag or commit
  bitnet pull org/model:onnx/model_q4.onnx               a file
  bitnet generate -m \"$(bitnet pull -q org/model)\" \"Hi\"

Prints where the model is. Only what a model needs is fetched: safetensors before .bin, one GGUF
file, ONNX if there is nothing else. Files lie in the cache that Python's huggingface_hub uses
(HF_HOME, HF_HUB_CACHE) and are shared with it. HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT,
HF_HUB_OFFLINE, HTTPS_PROXY and SSL_CERT_FILE are obeyed. A pull that was interrupted goes on from
where it was.";

#[derive(Debug, Args)]
#[command(after_help = PULL_EXAMPLES)]
pub(crate) struct PullArgs {
    /// Model: ORG/NAME[@REVISION][:FILE-OR-QUANT]
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Branch, tag or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Print JSON: where the model is and which files it has
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

const LIST_EXAMPLES: &str = "\
Examples:
  bitnet list                                     models in the cache
  bitnet list --json | jq -r '.[] | select(.loadable) | .name'

Whether a model loads is told from its configuration and the heads of its files; the weights are
not read.";

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  bitnet show microsoft/bitnet-b1.58-2B-4T        a model in the cache
  bitnet show ./model.gguf                        a file or folder
  bitnet show org/model --template                the chat template alone
  bitnet show org/model --json | jq .license";

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct ShowArgs {
    /// Model in the cache, or a path
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Print the chat template alone
    #[arg(long, conflicts_with = "json")]
    pub(crate) template: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const RM_EXAMPLES: &str = "\
Examples:
  bitnet rm org/model                             all of it
  bitnet rm org/model@v1.0                        one revision; what others need stays
  bitnet rm org/model:tq1_0 --yes                 one GGUF file, without being asked";

#[derive(Debug, Args)]
#[command(after_help = RM_EXAMPLES)]
pub(crate) struct RmArgs {
    /// Models in the cache: ORG/NAME[@REVISION][:FILE-OR-QUANT]
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const DU_EXAMPLES: &str = "\
Examples:
  bitnet du                                       what the cache holds
  bitnet du --budget 20GB                         what would go to keep within 20 GB: the longest unused first
  bitnet du --budget 20GB --prune                 removes that, after asking

A budget counts the models that this program can load; --all counts all models in the cache.";

#[derive(Debug, Args)]
#[command(after_help = DU_EXAMPLES)]
pub(crate) struct DuArgs {
    /// Say what would go to keep within this size
    #[arg(long, value_name = "SIZE")]
    pub(crate) budget: Option<MemorySize>,
    /// Remove what would go
    #[arg(long, requires = "budget")]
    pub(crate) prune: bool,
    /// Do not ask
    #[arg(short, long, requires = "prune")]
    pub(crate) yes: bool,
    /// Count models of other programs too
    #[arg(long, requires = "budget")]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
