//! [`GpuMemoryManager`]: the memory of the GPU that an engine runs on.

use std::fmt;

use bitnet_core::{MemorySize, MemoryStats};

use crate::InferenceEngine;

/// Watches the memory of the GPU that an engine runs on: weights, keys and values, and a pool of buffers in size classes
/// that forward calls share. Its budget is [`gpu_memory`](crate::EngineBuilder::gpu_memory).
///
/// ```
/// use bitnet_inference::InferenceEngine;
///
/// let engine = InferenceEngine::bundled().build()?;
/// match engine.gpu_memory() {
///     Some(memory) => println!("{memory}"),
///     None => println!("{} needs no GPU", engine.info().description),
/// }
/// # Ok::<(), bitnet_inference::EngineError>(())
/// ```
#[derive(Debug, Clone)]
pub struct GpuMemoryManager {
    engine: InferenceEngine,
}

impl InferenceEngine {
    /// The memory of the GPU that it runs on now; `None` if it runs on the processor.
    pub fn gpu_memory(&self) -> Option<GpuMemoryManager> {
        let on_gpu = self.backend().executor().device_memory().is_some();
        on_gpu.then(|| GpuMemoryManager { engine: self.clone() })
    }
}

impl GpuMemoryManager {
    /// How the memory is used now, and how the pool does: [`hit_rate`](MemoryStats::hit_rate),
    /// [`fragmentation`](MemoryStats::fragmentation), peak, and the bandwidth where it was measured. All zero once the
    /// processor has taken over from a GPU that failed.
    pub fn stats(&self) -> MemoryStats {
        self.engine.backend().executor().device_memory().unwrap_or_default()
    }

    /// Most memory that may be used; `None` if there is no limit but the device's.
    pub fn budget(&self) -> Option<MemorySize> {
        let budget = self.stats().budget;
        (budget.as_bytes() < u64::MAX).then_some(budget)
    }
}

impl fmt::Display for GpuMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        write!(f, "{} in use, {} at most so far", stats.in_use, stats.peak)?;
        if let Some(budget) = self.budget() {
            write!(f, ", of {budget}")?;
        }
        write!(f, "; {:.0} % of buffers were there already", 100.0 * stats.hit_rate())?;
        write!(f, ", {:.0} % of the memory is rounding", 100.0 * stats.fragmentation())
    }
}
