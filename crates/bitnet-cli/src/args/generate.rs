//! `bitnet generate`.

use std::path::PathBuf;

use clap::Args;

use super::values::{self, Limit};
use super::{ConstraintArgs, ModelArgs, SamplingArgs};

const EXAMPLES: &str = "\
Examples:
  bitnet generate \"Once upon a time\"
  bitnet generate -n 50 --temp 0 --stats \"The sky is\"
  bitnet generate --chat -sys \"Be brief.\" \"Why is the sky blue?\"
  echo \"Dear diary\" | bitnet generate --seed 7
  bitnet generate -m ./bitnet-b1.58-2B-4T -f story.txt --json
  bitnet generate --choices 2 --best-of 8 \"The moon\"
  bitnet generate --json --logprobs=5 --ban \"fox\" -l \" the-2\" \"Once upon a time\"
  bitnet generate --json-schema person.json -n 200 \"A person: \"
  bitnet generate --regex \"[0-9]{4}-[0-9]{2}-[0-9]{2}\" \"The day was \"
  bitnet generate --grammar 'root ::= (\"yes\" | \"no\") \"!\"?' \"Do foxes fly? \"
  bitnet generate --choice cat --choice dog \"It was a \"";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// Text to continue; `-` reads stdin, as does nothing at all when stdin is no terminal
    #[arg(value_name = "PROMPT", conflicts_with_all = ["prompt_flag", "file"])]
    pub(crate) prompt: Option<String>,
    /// The same, as a flag
    #[arg(id = "prompt_flag", short = 'p', long = "prompt", value_name = "TEXT", conflicts_with = "file")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) prompt_flag: Option<String>,
    /// Read the prompt from a file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Most tokens to generate; -1 until the model stops or the context is full [default: the model's, else -1]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = values::limit)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) predict: Option<Limit>,
    /// Continue the text as it is (the default)
    #[arg(long, conflicts_with = "chat")]
    pub(crate) raw: bool,
    /// Answer the prompt, in the form of the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
    /// System message; implies --chat
    #[arg(long, visible_alias = "sys", value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// End the text before STR (may be given several times)
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Go on after the model's stop tokens
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Write the prompt to stdout before its continuation
    #[arg(long)]
    pub(crate) echo: bool,
    /// Print more statistics: load time, memory, kernels
    #[arg(long)]
    pub(crate) stats: bool,
    /// Give N completions, the seed of each one greater than that before
    #[arg(long, value_name = "N", value_parser = values::positive, default_value_t = 1)]
    pub(crate) choices: usize,
    /// Make M completions and give the best of them: those of the highest mean log probability of a token
    #[arg(long, value_name = "M", value_parser = values::positive)]
    pub(crate) best_of: Option<usize>,
    /// With --json, tell the log probability of each token and of the K most probable ones
    #[arg(long, value_name = "K", num_args = 0..=1, default_missing_value = "0", requires = "json")]
    #[arg(require_equals = true)]
    pub(crate) logprobs: Option<usize>,
    /// Print one JSON object at the end instead of streaming
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) constraint: ConstraintArgs,
}
