//! `bitnet chat`.

use clap::Args;

use super::values::{self, Limit};
use super::{ConstraintArgs, ModelArgs, SamplingArgs};

const EXAMPLES: &str = "\
Examples:
  bitnet chat
  bitnet chat -m ./bitnet-b1.58-2B-4T --system \"You are a patient teacher.\"
  printf 'Hello\\nTell me more\\n' | bitnet chat -q      each line is a turn
  bitnet chat --choice yes --choice no                 each answer is one of these

In the chat: /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends. BITNET_HISTORY names the history file
(empty for none).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    /// System message
    #[arg(long, visible_alias = "sys", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Most tokens of one answer; -1 until the model stops or the context is full [default: the model's, else -1]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = values::limit)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) predict: Option<Limit>,
    /// End an answer before STR (may be given several times)
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Print statistics after each answer
    #[arg(long)]
    pub(crate) stats: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) constraint: ConstraintArgs,
}
