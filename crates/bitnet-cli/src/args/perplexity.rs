//! `bitnet perplexity`.

use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, values};

const EXAMPLES: &str = "\
Examples:
  bitnet perplexity text.txt
  bitnet perplexity text.txt -m ./bitnet-b1.58-2B-4T --window 1024 --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PerplexityArgs {
    /// Text to predict; `-` reads stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Tokens of a window, after the token that begins a text
    #[arg(long, value_name = "N", value_parser = values::positive, default_value = "511")]
    pub(crate) window: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
