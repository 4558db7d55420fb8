//! `bitnet synth`.

use std::path::PathBuf;

use bitnet_model::synth::{self, ShapePreset};
use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bitnet synth --shape 2b4t /tmp/2b4t          the size of bitnet-b1.58-2B-4T
  bitnet synth --shape 2b4t --format gguf /tmp/2b4t.gguf
  bitnet generate -m /tmp/2b4t -n 64 --stats \"speed\"

The weights are random: the text is noise, the speed is that of a real model of this shape.";

/// Shapes of published models.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shape {
    /// For tests: 4 layers of 256
    Tiny,
    /// 1bitLLM/bitnet_b1_58-large
    #[value(name = "700m", alias = "1bitllm-large")]
    B700M,
    /// 1bitLLM/bitnet_b1_58-xl
    #[value(name = "1.3b", alias = "1bitllm-xl")]
    B1_3B,
    /// microsoft/bitnet-b1.58-2B-4T
    #[value(name = "2b4t", alias = "2b-4t")]
    B2_4T,
    /// 1bitLLM/bitnet_b1_58-3B
    #[value(name = "3b", alias = "1bitllm-3b")]
    B3B,
    /// HF1BitLLM/Llama3-8B-1.58
    #[value(name = "8b")]
    B8B,
    /// For tests, like 1bitLLM's: 2 layers, heads of 100
    #[value(name = "tiny-1bitllm")]
    TinyFirst,
}

impl From<Shape> for ShapePreset {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Tiny => Self::Tiny,
            Shape::B700M => Self::B700M,
            Shape::B2_4T => Self::B2_4T,
            Shape::B3B => Self::B3B,
            Shape::B8B => Self::B8B,
            Shape::B1_3B => Self::B1_3B,
            Shape::TinyFirst => Self::TinyFirst,
        }
    }
}

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
#[command(after_help = EXAMPLES)]
pub(crate) struct SynthArgs {
    /// Folder (or .gguf file) to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Shape of the model
    #[arg(long, value_enum)]
    pub(crate) shape: Shape,
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
