//! `bitnet embed`.

use std::path::PathBuf;

use bitnet_inference::Pooling;
use clap::{Args, ValueEnum};

use super::ModelArgs;

const EXAMPLES: &str = "\
Examples:
  bitnet embed -m ./bitnet-embedding-0.6b \"The sky is blue.\"
  bitnet embed -m MODEL -f lines.txt --format jsonl > vectors.jsonl
  bitnet embed -m MODEL --similarity \"a cat\" \"a kitten\" \"a bridge\"
  bitnet embed -m MODEL --instruct \"Find passages that answer the question\" \"Why is the sky blue?\"
  cat lines.txt | bitnet embed -m MODEL --format raw > vectors.f32

Any model gives vectors; useful ones come of models that were made for embeddings.";

/// Forms of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmbedFormat {
    /// One JSON object with all vectors
    Json,
    /// One JSON object a line, one line a text
    Jsonl,
    /// One line of numbers a text
    Csv,
    /// Nothing but the numbers, 32-bit floats, little-endian, text after text
    Raw,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EmbedArgs {
    /// Texts; without any and without --file, the lines of stdin
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// Read the texts from a file, one a line; `-` reads stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How the states of a text become one vector: last, mean or cls [default: as the model says, else last]
    #[arg(long, value_name = "HOW")]
    pub(crate) pooling: Option<Pooling>,
    /// Leave vectors at the length they have instead of scaling them to length one
    #[arg(long)]
    pub(crate) no_normalize: bool,
    /// A sentence that says what the texts are queries for, put before each
    #[arg(long, value_name = "SENTENCE")]
    pub(crate) instruct: Option<String>,
    /// Cut texts that are longer than the context instead of refusing them
    #[arg(long)]
    pub(crate) truncate: bool,
    /// Form of the result [default: json]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) format: Option<EmbedFormat>,
    /// Print how similar the texts are to each other, the cosines of all pairs, instead of their vectors
    #[arg(long)]
    pub(crate) similarity: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
