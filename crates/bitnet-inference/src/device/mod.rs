//! Where models run: [`Device`], what there is of them ([`DeviceSelector`]), and the way back to the processor.
//!
//! Nothing is pretended: a device is available if this build has a backend for it *and* the machine has the hardware. For
//! all others the selector says what is missing.
//!
//! ```
//! use bitnet_inference::{Device, DeviceSelector};
//!
//! let selector = DeviceSelector::new();
//! assert_eq!(selector.select(Device::Auto).device, Device::Cpu);
//! let wanted = selector.select("cuda:1".parse()?);
//! if let Some(why) = wanted.fallback {
//!     assert_eq!(wanted.device, Device::Cpu);
//!     assert!(why.contains("CUDA"));
//! }
//! for status in selector.devices() {
//!     println!("{}: {}", status.device, status.reason.as_deref().unwrap_or("available"));
//! }
//! # Ok::<(), bitnet_inference::EngineError>(())
//! ```

mod standby;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bitnet_core::cpu::CpuFeatures;
use bitnet_core::{MemorySize, process};

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
    /// Any GPU that wgpu reaches (Vulkan, Metal, DX12).
    Wgpu,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal => f.write_str("metal"),
            Self::Mlx => f.write_str("mlx"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

impl FromStr for Device {
    type Err = EngineError;

    /// Reads `auto`, `cpu`, `cuda`, `cuda:1`, `metal`, `mlx`, `wgpu`.
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
            ("wgpu", None) => Some(Self::Wgpu),
            _ => None,
        };
        device.ok_or_else(|| {
            let allowed = "auto, cpu, cuda, cuda:<number>, metal, mlx or wgpu";
            ParameterError { name: "device", value: text.to_owned(), allowed }.into()
        })
    }
}

/// What a [`DeviceSelector`] knows of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The device.
    pub device: Device,
    /// What it is, for people.
    pub name: String,
    /// Its memory, where the system tells.
    pub memory: Option<MemorySize>,
    /// Why models cannot run on it; `None` if they can.
    pub reason: Option<String>,
}

impl DeviceStatus {
    /// Whether models can run on it.
    pub fn is_available(&self) -> bool {
        self.reason.is_none()
    }
}

/// A choice of a [`DeviceSelector`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The device to run on; never [`Device::Auto`].
    pub device: Device,
    /// Why it is not the one asked for, if it is not.
    pub fallback: Option<String>,
}

/// Knows which devices this build and this machine offer. See the [module's example](self).
#[derive(Debug, Clone)]
pub struct DeviceSelector {
    devices: Vec<DeviceStatus>,
}

impl Default for DeviceSelector {
    fn default() -> Self {
        Self::new()
    }
}

impl DeviceSelector {
    /// Looks at this machine. Takes a few small files, starts nothing.
    pub fn new() -> Self {
        let cpu = CpuFeatures::detect();
        let cpu = DeviceStatus {
            device: Device::Cpu,
            name: cpu.model.clone().unwrap_or_else(|| cpu.arch.to_owned()),
            memory: process::total_memory(),
            reason: None,
        };
        let gpu = |device, name: &str, backend: &str, hardware: Result<(), String>| {
            let lacking = format!("this build has no {backend} backend");
            let reason = match hardware {
                Ok(()) => lacking,
                Err(missing) => format!("{missing}, and {lacking}"),
            };
            DeviceStatus { device, name: name.to_owned(), memory: None, reason: Some(reason) }
        };
        let devices = vec![
            cpu,
            gpu(Device::Cuda(0), "NVIDIA GPU", "CUDA", nvidia()),
            gpu(Device::Metal, "Apple GPU (Metal)", "Metal", apple("macos")),
            gpu(Device::Mlx, "Apple GPU (MLX)", "MLX", apple("macos on aarch64")),
            gpu(Device::Wgpu, "GPU (wgpu)", "wgpu", Ok(())),
        ];
        Self { devices }
    }

    /// Every kind of device, the processor first.
    pub fn devices(&self) -> &[DeviceStatus] {
        &self.devices
    }

    /// The devices that models can run on, the fastest first.
    pub fn available(&self) -> Vec<Device> {
        let available = self.devices.iter().filter(|status| status.is_available());
        let mut all: Vec<Device> = available.map(|status| status.device).collect();
        // Whatever there is beside the processor is there because it is faster.
        all.sort_by_key(|device| *device == Device::Cpu);
        all
    }

    /// Whether models can run on NVIDIA GPUs.
    pub fn is_cuda_available(&self) -> bool {
        self.missing(Device::Cuda(0)).is_none()
    }

    /// Whether models can run by Metal.
    pub fn is_metal_available(&self) -> bool {
        self.missing(Device::Metal).is_none()
    }

    /// Whether models can run by MLX.
    pub fn is_mlx_available(&self) -> bool {
        self.missing(Device::Mlx).is_none()
    }

    /// Whether models can run by wgpu.
    pub fn is_wgpu_available(&self) -> bool {
        self.missing(Device::Wgpu).is_none()
    }

    /// The device asked for, or the processor with the reason.
    pub fn select(&self, wanted: Device) -> Selection {
        if wanted == Device::Auto {
            return Selection { device: self.best(), fallback: None };
        }
        match self.missing(wanted) {
            None => Selection { device: wanted, fallback: None },
            Some(why) => Selection { device: Device::Cpu, fallback: Some(format!("{wanted}: {why}")) },
        }
    }

    /// The fastest GPU, or the processor with the reasons.
    pub fn select_gpu(&self) -> Selection {
        let device = self.best();
        let none = || {
            let gpus = self.devices.iter().filter(|status| status.device != Device::Cpu);
            let reasons = gpus.filter_map(|s| s.reason.as_ref().map(|why| format!("{}: {why}", s.device)));
            reasons.collect::<Vec<_>>().join("; ")
        };
        Selection { device, fallback: (device == Device::Cpu).then(none) }
    }

    /// The device asked for, or nothing.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] that says what is missing.
    pub fn require(&self, wanted: Device) -> Result<Device, EngineError> {
        let Selection { device, fallback } = self.select(wanted);
        match fallback {
            None => Ok(device),
            Some(why) => {
                Err(EngineError::Unsupported { what: format!("running on the device {wanted}"), why })
            }
        }
    }

    fn best(&self) -> Device {
        self.available().first().copied().unwrap_or(Device::Cpu)
    }

    /// What a device lacks.
    fn missing(&self, device: Device) -> Option<String> {
        let same = |a: Device| match (a, device) {
            (Device::Cuda(_), Device::Cuda(_)) => true,
            _ => a == device,
        };
        match self.devices.iter().find(|status| same(status.device)) {
            Some(status) => status.reason.clone(),
            None => Some("it is not known".to_owned()),
        }
    }
}

/// Whether the driver of NVIDIA GPUs is there.
fn nvidia() -> Result<(), String> {
    let places = ["/proc/driver/nvidia/version", "/dev/nvidiactl", "C:\\Windows\\System32\\nvcuda.dll"];
    match places.iter().any(|place| Path::new(place).exists()) {
        true => Ok(()),
        false => Err("no NVIDIA driver was found".to_owned()),
    }
}

/// Whether this is a system that `needed` names.
fn apple(needed: &str) -> Result<(), String> {
    let fits = cfg!(target_os = "macos") && (needed == "macos" || cfg!(target_arch = "aarch64"));
    if fits { Ok(()) } else { Err(format!("it needs {needed}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in ["auto", "cpu", "cuda:3", "metal", "mlx", "wgpu"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!(" CUDA ".parse::<Device>().unwrap(), Device::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:-1", "cpu:0"] {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_not_available_has_a_reason_and_falls_back() {
        let selector = DeviceSelector::new();
        assert!(selector.available().contains(&Device::Cpu));
        for status in selector.devices() {
            let selection = selector.select(status.device);
            assert_eq!(selection.fallback.is_none(), status.is_available());
            assert_eq!(selector.require(status.device).is_ok(), status.is_available());
            if !status.is_available() {
                assert_eq!(selection.device, Device::Cpu);
                assert!(status.reason.as_ref().is_some_and(|why| why.contains("backend")));
            }
        }
        assert_eq!(selector.select(Device::Cpu), Selection { device: Device::Cpu, fallback: None });
        assert_eq!(selector.is_cuda_available(), selector.select(Device::Cuda(7)).fallback.is_none());
    }
}
