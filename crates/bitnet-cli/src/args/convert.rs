//! `bitnet convert` and `bitnet quantize`.

use std::path::PathBuf;

use bitnet_convert::{OnnxWeights, TableType, Target};
use bitnet_core::MemorySize;
use clap::{Args, ValueEnum};

use super::FormatArgs;

const CONVERT_EXAMPLES: &str = "\
Examples:
  bitnet convert ./bitnet-b1.58-2B-4T-bf16 2b4t.gguf
  bitnet convert ggml-model-i2_s.gguf ./2b4t --to safetensors-packed
  bitnet convert ./model model.tq2_0.gguf --tables q8_0
  bitnet convert ./model ./model-onnx --to onnx          a folder with model.onnx and all it needs
  bitnet convert ./model model.gguf --verify-only        compare with what is there

The output is read back and compared with the original, weight by weight and text by text, before it gets its name. The
exit code is 0 if all is equal but for the roundings that are told, else 1, and then there is no output.";

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  bitnet quantize ./llama-bf16 ./llama-ternary --to safetensors-packed
  bitnet quantize ./checkpoint out.gguf --json | jq .relative_error

A model that was not trained with ternary weights does not speak after this, whatever the error.";

/// Forms of models by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetName {
    /// A folder with two-bit weights, as bitnet-b1.58-2B-4T is published; loads in transformers
    SafetensorsPacked,
    /// A folder with bf16 masters from which absmean gives the weights; loads in transformers
    SafetensorsBf16,
    /// One file with I2_S weights, lossless
    #[value(name = "gguf-i2_s")]
    GgufI2s,
    /// One file with TQ1_0 weights; scales are rounded to f16
    #[value(name = "gguf-tq1_0")]
    GgufTq1,
    /// One file with TQ2_0 weights; scales are rounded to f16
    #[value(name = "gguf-tq2_0")]
    GgufTq2,
    /// A folder with an ONNX graph and all that belongs to it, lossless; runs in any ONNX runtime
    Onnx,
}

impl From<TargetName> for Target {
    fn from(name: TargetName) -> Self {
        match name {
            TargetName::SafetensorsPacked => Self::SafetensorsPacked,
            TargetName::SafetensorsBf16 => Self::SafetensorsBf16,
            TargetName::GgufI2s => Self::GgufI2s,
            TargetName::GgufTq1 => Self::GgufTq1,
            TargetName::GgufTq2 => Self::GgufTq2,
            TargetName::Onnx => Self::Onnx,
        }
    }
}

/// Types of embedding and output layer by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableName {
    /// As they are
    Keep,
    /// Half precision
    F16,
    /// bfloat16
    Bf16,
    /// int8 with a scale for 32 values; GGUF files only
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<TableName> for TableType {
    fn from(name: TableName) -> Self {
        match name {
            TableName::Keep => Self::Keep,
            TableName::F16 => Self::F16,
            TableName::Bf16 => Self::Bf16,
            TableName::Q8_0 => Self::Q8_0,
        }
    }
}

/// Forms of ternary weights in ONNX graphs by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnnxWeightsName {
    /// One byte a weight, exact products by operators that every runtime has
    Int8,
    /// Two bits a weight, by MatMulNBits of ONNX Runtime, which computes with floats
    #[value(name = "2bit")]
    Bits2,
}

impl From<OnnxWeightsName> for OnnxWeights {
    fn from(name: OnnxWeightsName) -> Self {
        match name {
            OnnxWeightsName::Int8 => Self::Int8,
            OnnxWeightsName::Bits2 => Self::Bits2,
        }
    }
}

/// Where from, where to and how.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Model folder, or a file of weights: GGUF, safetensors, PyTorch or ONNX
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// Folder or file to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Form to write [default: by the ending of OUT, if that tells]
    #[arg(long, value_name = "FORM", value_enum)]
    pub(crate) to: Option<TargetName>,
    /// Type of embedding and output layer
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = TableName::Keep)]
    pub(crate) tables: TableName,
    /// Ternary weights in ONNX graphs
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = OnnxWeightsName::Int8)]
    pub(crate) onnx_weights: OnnxWeightsName,
    /// Replace a model that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Room on the disk that must stay free
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub(crate) keep_free: MemorySize,
    /// Threads that pack and compare [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = super::values::threads)]
    pub(crate) threads: Option<usize>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Debug, Args)]
#[command(after_help = CONVERT_EXAMPLES)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Write nothing: compare IN with OUT, which is there
    #[arg(long, conflicts_with_all = ["force", "tables", "onnx_weights"])]
    pub(crate) verify_only: bool,
}

#[derive(Debug, Args)]
#[command(after_help = QUANTIZE_EXAMPLES)]
pub(crate) struct QuantizeArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// List every projection, not only the layers
    #[arg(long)]
    pub(crate) tensors: bool,
}
