//! What is asked for: [`Target`], [`ConvertOptions`], and the [`Progress`] that is told.

use std::ops::ControlFlow;
use std::path::Path;

use bitnet_model::LoadOptions;
use bitnet_model::export::OnnxWeights;

/// A form that models can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A folder with two-bit weights in safetensors, as bitnet-b1.58-2B-4T is published. The scale of each tensor is
    /// rounded to bf16.
    SafetensorsPacked,
    /// A folder with bf16 masters in safetensors, from which absmean gives trits and scales back.
    SafetensorsBf16,
    /// One GGUF file with I2_S weights, two bits each. Lossless.
    GgufI2s,
    /// One GGUF file with TQ1_0 weights, 1.69 bits each. Scales are rounded to f16.
    GgufTq1,
    /// One GGUF file with TQ2_0 weights, 2.06 bits each. Scales are rounded to f16.
    GgufTq2,
    /// A folder with an ONNX graph that any runtime runs, its weights int8 or of two bits ([`OnnxWeights`]). Lossless.
    Onnx,
}

impl Target {
    /// All targets.
    pub const ALL: [Self; 6] = [
        Self::SafetensorsPacked,
        Self::SafetensorsBf16,
        Self::GgufI2s,
        Self::GgufTq1,
        Self::GgufTq2,
        Self::Onnx,
    ];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SafetensorsPacked => "safetensors-packed",
            Self::SafetensorsBf16 => "safetensors-bf16",
            Self::GgufI2s => "gguf-i2_s",
            Self::GgufTq1 => "gguf-tq1_0",
            Self::GgufTq2 => "gguf-tq2_0",
            Self::Onnx => "onnx",
        }
    }

    /// Whether it is a folder, not a file.
    pub const fn is_folder(self) -> bool {
        matches!(self, Self::SafetensorsPacked | Self::SafetensorsBf16 | Self::Onnx)
    }

    /// Whether it is a GGUF file.
    pub const fn is_gguf(self) -> bool {
        matches!(self, Self::GgufI2s | Self::GgufTq1 | Self::GgufTq2)
    }

    /// The target that the ending of a path tells: `.gguf` with the type in its name, else the lossless one; `.onnx`,
    /// although that one is written to folders only and refuses such a path.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        match name.rsplit_once('.')?.1 {
            "onnx" => Some(Self::Onnx),
            "gguf" if name.contains("tq1_0") => Some(Self::GgufTq1),
            "gguf" if name.contains("tq2_0") => Some(Self::GgufTq2),
            "gguf" => Some(Self::GgufI2s),
            _ => None,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How embedding and output layer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TableType {
    /// As they are, if the target has their type.
    #[default]
    Keep,
    /// Rounded to f16.
    F16,
    /// Rounded to bf16.
    Bf16,
    /// Rounded to q8_0, for GGUF files only.
    Q8_0,
}

/// How a model is converted.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// How the source is read.
    pub load: LoadOptions,
    /// How embedding and output layer are written.
    pub tables: TableType,
    /// How ternary weights are stored in ONNX graphs.
    pub onnx_weights: OnnxWeights,
    /// Whether a model that is there may be replaced.
    pub overwrite: bool,
    /// Bytes of the disk that must stay free.
    pub keep_free: u64,
    /// Threads that pack and compare; by default one for each core.
    pub threads: Option<usize>,
}

impl ConvertOptions {
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Masters are compared with their trits.
    Measure,
    /// Tensors are written.
    Write,
    /// What was written is read back and compared.
    Verify,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes done: of the output for [`Stage::Write`], else of the source.
    pub done: u64,
    /// Bytes there are.
    pub total: u64,
}

/// Told how far it is; answers whether to go on.
pub(crate) type Callback<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;
