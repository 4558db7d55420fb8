//! [`WgpuOptions`]: which adapter, how much of its memory, and how.

use bitnet_core::MemorySize;
use bitnet_model::KvType;

/// The environment variable that names an adapter where the options do not: its index or a part of its name.
pub const ADAPTER_VARIABLE: &str = "BITNET_WGPU_ADAPTER";

/// An interface through which adapters are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WgpuBackend {
    /// Vulkan: Linux, Windows, Android.
    Vulkan,
    /// Metal: macOS.
    Metal,
    /// Direct3D 12: Windows.
    Dx12,
}

impl WgpuBackend {
    /// Its name, lower case.
    pub const fn name(self) -> &'static str {
        match self {
            WgpuBackend::Vulkan => "vulkan",
            WgpuBackend::Metal => "metal",
            WgpuBackend::Dx12 => "dx12",
        }
    }
}

impl std::fmt::Display for WgpuBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How to run through wgpu.
#[derive(Debug, Clone, Default)]
pub struct WgpuOptions {
    /// The adapter: its index in [`adapters`](crate::adapters), or a part of its name; by default that of
    /// [`ADAPTER_VARIABLE`], else the most capable one.
    pub adapter: Option<String>,
    /// Adapters of this interface only.
    pub backend: Option<WgpuBackend>,
    /// Whether adapters that compute on the CPU (lavapipe, WARP) may be chosen without being named. They are far slower
    /// than the CPU executor; tests want them.
    pub allow_software: bool,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Most memory of the device that buffers may take together; by default what the device gives.
    pub memory_budget: Option<MemorySize>,
    /// Most bytes of a weight buffer, where that is to be less than the adapter allows; tables are cut accordingly.
    pub max_binding: Option<u64>,
    /// Most tokens that are computed in one pass; by default [`MAX_BATCH_TOKENS`].
    pub max_batch_tokens: Option<usize>,
    /// Does without subgroup operations, even if the adapter has them.
    pub no_subgroups: bool,
    /// Does without packed dot products, even if the adapter has them.
    pub no_packed_dot: bool,
    /// Measures the time of each kernel, where the adapter can: see [`WgpuExecutor::take_times`](crate::WgpuExecutor::take_times).
    /// Passes take longer then.
    pub profile: bool,
}

/// Tokens that are computed in one pass by default.
pub const MAX_BATCH_TOKENS: usize = 512;
