//! `bitnet synth`.

use std::path::PathBuf;

use bitnet_model::synth::{self, ShapePreset};
use clap::{Args, ValueEnum};

/// Examples, then the shapes that there are.
fn help() -> String {
    let width = ShapePreset::ALL.map(|shape| shape.name().len()).into_iter().max().unwrap_or(0);
    let line = |shape: ShapePreset| format!("\n  {:width$}  {}", shape.name(), shape.description());
    format!("{EXAMPLES}\n\nShapes:{}", ShapePreset::ALL.map(line).concat())
}

const EXAMPLES: &str = "\
Examples:
  bitnet synth --shape 2b4t /tmp/2b4t          the size of bitnet-b1.58-2B-4T
  bitnet synth --shape 2b4t --format gguf /tmp/2b4t.gguf
  bitnet synth --shape embedding-0.6b --format safetensors-bf16 /tmp/embedding
  bitnet generate -m /tmp/2b4t -n 64 --stats \"speed\"

The weights are random: the text is noise, the speed is that of a real model of this shape.";

/// Forms of model files.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SynthFormat {
    /// A folder with packed ternary weights
    Safetensors,
    /// A folder with bf16 masters, quantised while loading
    SafetensorsBf16,
    /// One GGUF file with I2_S weights
    Gguf,
}

impl From<SynthFormat> for synth::SynthFormat {
    fn from(format: SynthFormat) -> Self {
        match format {
            SynthFormat::Safetensors => Self::SafetensorsPacked,
            SynthFormat::SafetensorsBf16 => Self::SafetensorsBf16,
            SynthFormat::Gguf => Self::GgufI2s,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = help())]
pub(crate) struct SynthArgs {
    /// Folder (or .gguf file) to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Shape of the model, one of those below
    #[arg(long, value_parser = ShapePreset::parse)]
    pub(crate) shape: ShapePreset,
    /// Form of the files
    #[arg(long, value_enum, default_value_t = SynthFormat::Safetensors)]
    pub(crate) format: SynthFormat,
    /// tokenizer.json or tiktoken file to use [default: a made-up vocabulary]
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Seed of the weights
    #[arg(short, long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write over what is there
    #[arg(long)]
    pub(crate) force: bool,
}
