//! `bitnet inspect`.

use std::path::PathBuf;

use clap::Args;

use super::{FormatArgs, values};

const EXAMPLES: &str = "\
Examples:
  bitnet inspect                            the bundled model
  bitnet inspect ./bitnet-b1.58-2B-4T
  bitnet inspect ggml-model-i2_s.gguf --tensors
  bitnet inspect MODEL --json | jq .parameters
  bitnet inspect --layers                   weights and activations of every projection
  bitnet inspect --layers --sample-file notes.txt --sample-tokens 200
  bitnet inspect MODEL --html layers.html   a page with plots

--layers tells of each projection the shares of the weights -1, 0 and +1, how many bits a weight a code needs that
codes each weight by itself ('bits') or five neighbours together ('of 5'), and the scale. From a sample text it tells
what goes into the projection: the largest magnitude, the mean magnitude, and the shares of values that become 0 or
an end of the range in int8. The largest value of every token is at an end. Activations are computed by the scalar
reference, which takes about a second a token for two billion weights.

JSON: 'layers' is a list of {layer, weights, projections}; a projection is {name, rows, cols, scale, weights, input};
'weights' is {count, minus, zero, plus, bits, bits_in_fives}, the three in the middle shares; 'input' is {absmax,
least_row_absmax, mean, mean_magnitude, zero_share, saturated_share} or null. 'ternary' has the weights of all layers,
'sample' is {tokens, text}. A tensor is {name, type, shape, bytes, file, offset}.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Model folder or file, or ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub [default: the bundled model]
    #[arg(value_name = "MODEL", env = "BITNET_MODEL", hide_env_values = true)]
    pub(crate) model: Option<PathBuf>,
    /// The same, for hands that are used to the flag of other commands
    #[arg(short, long = "model", value_name = "MODEL", hide = true)]
    pub(crate) model_flag: Option<PathBuf>,
    /// List every tensor with its type, shape, size, and place in its file
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Tell what is in every layer: weights and activations
    #[arg(long)]
    pub(crate) layers: bool,
    /// Write a page with plots of the layers instead of a table
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sample: SampleArgs,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// The text whose activations are looked at.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sample of --layers and --html")]
pub(crate) struct SampleArgs {
    /// Text whose activations are looked at [default: a short one]
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["sample_file", "no_sample"], allow_hyphen_values = true)]
    pub(crate) sample_text: Option<String>,
    /// The same, from a file; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with = "no_sample")]
    pub(crate) sample_file: Option<PathBuf>,
    /// Most tokens of the text that are used
    #[arg(long, value_name = "N", default_value = "64", value_parser = values::positive)]
    pub(crate) sample_tokens: usize,
    /// Look at the weights alone
    #[arg(long)]
    pub(crate) no_sample: bool,
}

impl SampleArgs {
    /// Whether a text was given.
    pub(crate) fn is_given(&self) -> bool {
        self.sample_text.is_some() || self.sample_file.is_some()
    }
}
