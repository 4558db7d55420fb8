//! `bitnet perplexity`.

use std::path::PathBuf;

use bitnet_inference::TextStart;
use clap::{Args, ValueEnum};

use super::{ModelArgs, values};

const EXAMPLES: &str = "\
Examples:
  bitnet perplexity text.txt
  bitnet perplexity text.txt -m ./bitnet-b1.58-2B-4T -c 2048 --stride 512
  bitnet perplexity a.txt b.txt --json
  bitnet perplexity text.txt --csv > windows.csv
  cat text.txt | bitnet perplexity -

Method: the text is tokenized whole, without special tokens, and cut into windows of --window tokens, each beginning
--stride tokens behind the one before. Each token is scored once, in the first window that has it, with all that stands before
it there; perplexity is exp of the mean negative log-likelihood. Without --stride windows stand side by side; with one,
tokens have at least window - stride tokens before them, which gives a lower and truer figure and takes longer. --bos says
where the token that begins a text is put: before each window (each), before the text (once; with a stride this is the method
of Hugging Face's documentation, but that every token counts the same), or nowhere (never).
The figure behind ± is the standard error; it takes tokens for independent. Bits per byte compare models of different
vocabularies. Several files are scored each by itself and together.";

/// Where the token that begins a text is put, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BosName {
    /// Before each window
    Each,
    /// Before the text
    Once,
    /// Nowhere
    Never,
}

impl From<BosName> for TextStart {
    fn from(name: BosName) -> Self {
        match name {
            BosName::Each => Self::EachWindow,
            BosName::Once => Self::Once,
            BosName::Never => Self::Never,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PerplexityArgs {
    /// Texts to predict; `-` reads stdin
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Tokens of a window; a token that is put before each comes on top [default: 511, or what -c leaves]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) window: Option<usize>,
    /// Tokens from the begin of one window to that of the next [default: those of a window]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) stride: Option<usize>,
    /// Where the token that begins a text is put, if the model has one
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = BosName::Each)]
    pub(crate) bos: BosName,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a line of comma-separated values for each window
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
