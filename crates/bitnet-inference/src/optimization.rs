//! [`OptimizationLevel`]: one word for settings that go together.

use bitnet_cpu::OutputStorage;
use bitnet_model::KvType;

use crate::scheduler::{SchedulerOptions, Speculation};

/// How an engine trades memory and time against closeness to the original models. What the builder is told explicitly
/// ([`kv_type`](crate::EngineBuilder::kv_type), [`output_storage`](crate::EngineBuilder::output_storage),
/// [`scheduler`](crate::EngineBuilder::scheduler), [`batch_size`](crate::EngineBuilder::batch_size)) counts more.
///
/// | level | keys and values | output layer | speculation | requests together |
/// |---|---|---|---|---|
/// | conservative | f32, the arithmetic of the original models | full precision, read whole | off | 16 |
/// | balanced | f16 | exact logits, read as far as needed | where it pays | 64 |
/// | aggressive | int8: half the memory, quicker long contexts | as balanced | up to 8 tokens, always | 128 |
///
/// Conservative and balanced give the same logits for the same keys and values; f32, f16 and int8 keys and values
/// differ by rounding. Speculation never changes a text.
///
/// ```
/// use bitnet_inference::{KvType, OptimizationLevel};
/// # use bitnet_inference::InferenceEngine;
///
/// let level = OptimizationLevel::Aggressive;
/// assert_eq!(level.kv_type(), KvType::Int8);
/// # let engine = InferenceEngine::bundled().threads(1).optimization_level(level).build()?;
/// assert_eq!(engine.info().kv_type, KvType::Int8);
/// # Ok::<(), bitnet_inference::EngineError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OptimizationLevel {
    /// As close to the original models as it gets.
    Conservative,
    /// What suits most.
    #[default]
    Balanced,
    /// Memory and throughput first.
    Aggressive,
}

impl OptimizationLevel {
    /// How keys and values are kept.
    pub fn kv_type(self) -> KvType {
        match self {
            Self::Conservative => KvType::F32,
            Self::Balanced => KvType::default(),
            Self::Aggressive => KvType::Int8,
        }
    }

    /// How the output layer is kept.
    pub fn output_storage(self) -> OutputStorage {
        match self {
            Self::Conservative => OutputStorage::Full,
            Self::Balanced | Self::Aggressive => OutputStorage::Exact,
        }
    }

    /// How requests run together.
    pub fn scheduler(self) -> SchedulerOptions {
        let options = SchedulerOptions::default();
        match self {
            Self::Conservative => {
                SchedulerOptions { max_running: 16, speculation: Speculation::Off, ..options }
            }
            Self::Balanced => options,
            Self::Aggressive => {
                SchedulerOptions { max_running: 128, speculation: Speculation::Always(8), ..options }
            }
        }
    }
}
