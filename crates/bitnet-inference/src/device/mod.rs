//! Where models run: [`Device`], what there is of them ([`DeviceSelector`]), and the way back to the processor
//! ([`Standby`]).
//!
//! Nothing is pretended: a device is available if this build has a backend for it *and* the machine has the hardware. For
//! all others the selector says what is missing.
//!
//! ```
//! use bitnet_inference::{Device, DeviceSelector};
//!
//! let selector = DeviceSelector::new();
//! assert!(selector.available().contains(&Device::Cpu));
//! let wanted = selector.select("cuda:1".parse()?);
//! if let Some(why) = wanted.fallback {
//!     assert_eq!(wanted.device, Device::Cpu);
//!     assert!(why.starts_with("cuda:1: "));
//! }
//! for status in selector.devices() {
//!     println!("{}: {}", status.device, status.reason.as_deref().unwrap_or("available"));
//! }
//! # Ok::<(), bitnet_inference::EngineError>(())
//! ```

mod gpu;
mod memory;
mod selector;
mod standby;

use std::fmt;
use std::str::FromStr;

pub(crate) use self::gpu::{GpuOptions, open};
pub use self::memory::GpuMemoryManager;
pub use self::selector::{DeviceSelector, DeviceStatus, Selection};
pub use self::standby::{Reserve, Standby};
use crate::error::{EngineError, ParameterError};

/// Something that models can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Device {
    /// The fastest that is available.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU by its number.
    Cuda(u32),
    /// The GPU of an Apple machine, by Metal.
    Metal,
    /// The GPU of an Apple machine, by MLX.
    Mlx,
    /// A GPU by Vulkan.
    Vulkan,
    /// A GPU by Direct3D 12.
    Dx12,
    /// Any GPU that wgpu reaches: by Vulkan, Metal or DX12.
    Wgpu,
}

/// What to do when a GPU fails that a model runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnDeviceFailure {
    /// Go on with the processor; what requests had computed is computed again.
    #[default]
    FallBack,
    /// Requests end with the error of the device.
    Fail,
}

impl fmt::Display for OnDeviceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FallBack => "cpu",
            Self::Fail => "fail",
        })
    }
}

impl FromStr for OnDeviceFailure {
    type Err = EngineError;

    /// Reads `cpu` and `fail`.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text.trim() {
            "cpu" => Ok(Self::FallBack),
            "fail" => Ok(Self::Fail),
            other => {
                let (name, value, allowed) = ("on_device_error", other.to_owned(), "cpu or fail");
                Err(ParameterError { name, value, allowed }.into())
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal => f.write_str("metal"),
            Self::Mlx => f.write_str("mlx"),
            Self::Vulkan => f.write_str("vulkan"),
            Self::Dx12 => f.write_str("dx12"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

impl FromStr for Device {
    type Err = EngineError;

    /// Reads `auto`, `cpu`, `cuda`, `cuda:1`, `metal`, `mlx`, `vulkan`, `dx12`, `wgpu`.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let lower = text.trim().to_ascii_lowercase();
        let (name, index) =
            lower.split_once(':').map_or((&*lower, None), |(name, index)| (name, Some(index)));
        let device = match (name, index) {
            ("auto", None) => Some(Self::Auto),
            ("cpu", None) => Some(Self::Cpu),
            ("cuda", None) => Some(Self::Cuda(0)),
            ("cuda", Some(index)) => index.parse().ok().map(Self::Cuda),
            ("metal", None) => Some(Self::Metal),
            ("mlx", None) => Some(Self::Mlx),
            ("vulkan", None) => Some(Self::Vulkan),
            ("dx12", None) => Some(Self::Dx12),
            ("wgpu", None) => Some(Self::Wgpu),
            _ => None,
        };
        device.ok_or_else(|| {
            let allowed = "auto, cpu, cuda, cuda:<number>, metal, mlx, vulkan, dx12 or wgpu";
            ParameterError { name: "device", value: text.to_owned(), allowed }.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in ["auto", "cpu", "cuda:3", "metal", "mlx", "vulkan", "dx12", "wgpu"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!(" CUDA ".parse::<Device>().unwrap(), Device::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:-1", "cpu:0"] {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }
}
