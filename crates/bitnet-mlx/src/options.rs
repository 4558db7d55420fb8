//! [`MlxOptions`]: what to run on and how; [`MlxDevice`]: what there is.

use bitnet_core::MemorySize;
use bitnet_model::KvType;

/// Tokens that are computed in one pass by default.
pub const MAX_BATCH_TOKENS: usize = 512;

/// What of a machine MLX is to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MlxWhere {
    /// The GPU if MLX has one, else the processor.
    #[default]
    Auto,
    /// The GPU.
    Gpu,
    /// The processor: for tests, since the CPU executor is far faster.
    Cpu,
}

/// How to run through MLX.
#[derive(Debug, Clone, Default)]
pub struct MlxOptions {
    /// What to compute on.
    pub device: MlxWhere,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Most memory that weights, keys and values may take together; by default what there is.
    pub memory: Option<MemorySize>,
    /// Most tokens that are computed in one pass; by default [`MAX_BATCH_TOKENS`].
    pub max_batch_tokens: Option<usize>,
}

/// What MLX computes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlxDevice {
    /// Its name, as MLX gives it.
    pub name: String,
    /// Whether it is a GPU; else it is the processor.
    pub is_gpu: bool,
    /// Memory that it may use well, where MLX tells.
    pub memory: Option<MemorySize>,
    /// MLX's version.
    pub version: String,
}
