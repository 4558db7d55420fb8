//! [`DeviceSelector`]: which devices this build and this machine offer, and which of them is the fastest.

use bitnet_core::cpu::CpuFeatures;
use bitnet_core::{MemorySize, process};

use super::{Device, gpu};
use crate::error::EngineError;

/// What a [`DeviceSelector`] knows of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The device.
    pub device: Device,
    /// What it is, for people.
    pub name: String,
    /// Its driver, where the system tells.
    pub driver: Option<String>,
    /// Its memory, where the system tells.
    pub memory: Option<MemorySize>,
    /// What of its memory nobody uses, where the system tells.
    pub free: Option<MemorySize>,
    /// Why models cannot run on it; `None` if they can.
    pub reason: Option<String>,
    /// Why it is not chosen unless it is named, though models can run on it.
    pub only_named: Option<String>,
}

impl DeviceStatus {
    /// A device that models can run on.
    pub(super) fn available(device: Device, name: String) -> Self {
        let (driver, memory, free, reason, only_named) = (None, None, None, None, None);
        Self { device, name, driver, memory, free, reason, only_named }
    }

    /// A kind of device that is not there.
    pub(super) fn missing(device: Device, name: &str, why: String) -> Self {
        Self { reason: Some(why), ..Self::available(device, name.to_owned()) }
    }

    /// Whether models can run on it.
    pub fn is_available(&self) -> bool {
        self.reason.is_none()
    }

    /// Whether it is chosen without being named.
    fn is_automatic(&self) -> bool {
        self.is_available() && self.only_named.is_none()
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

/// Knows which devices this build and this machine offer. See the [module's example](super).
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
    /// Looks at this machine: asks the drivers of GPUs, if there are any, and starts nothing on them.
    pub fn new() -> Self {
        let mut devices = vec![processor()];
        devices.extend(gpu::cuda());
        devices.push(gpu::mlx());
        devices.extend(gpu::wgpu());
        Self { devices }
    }

    /// The same for one kind of device only, so that drivers of others are left alone.
    pub(crate) fn only(wanted: Device) -> Self {
        let mut devices = vec![processor()];
        match wanted {
            Device::Auto => return Self::new(),
            Device::Cpu => {}
            Device::Cuda(_) => devices.extend(gpu::cuda()),
            Device::Mlx => devices.push(gpu::mlx()),
            Device::Metal | Device::Vulkan | Device::Dx12 | Device::Wgpu => devices.extend(gpu::wgpu()),
        }
        Self { devices }
    }

    /// The same, but spends no time on drivers of GPUs where nothing tells of a GPU.
    pub(crate) fn quick() -> Self {
        if gpu::may_be_there() { Self::new() } else { Self { devices: vec![processor()] } }
    }

    /// Every device, and every kind of which there is none; the processor first.
    pub fn devices(&self) -> &[DeviceStatus] {
        &self.devices
    }

    /// The devices that models can run on, those that are chosen first before the others.
    pub fn available(&self) -> Vec<Device> {
        let available = self.devices.iter().filter(|status| status.is_available());
        let mut all: Vec<&DeviceStatus> = available.collect();
        all.sort_by_key(|status| (!status.is_automatic(), rank(status.device)));
        all.iter().map(|status| status.device).collect()
    }

    /// The devices that may be chosen without being named, the fastest first; the processor is the last.
    pub(crate) fn automatic(&self) -> Vec<Device> {
        let mut all: Vec<Device> =
            self.devices.iter().filter(|status| status.is_automatic()).map(|status| status.device).collect();
        all.sort_by_key(|&device| rank(device));
        all
    }

    /// Whether models can run on NVIDIA GPUs.
    pub fn is_cuda_available(&self) -> bool {
        self.devices.iter().any(|s| matches!(s.device, Device::Cuda(_)) && s.is_available())
    }

    /// Whether models can run by Metal.
    pub fn is_metal_available(&self) -> bool {
        self.missing(Device::Metal).is_none()
    }

    /// Whether models can run by MLX.
    pub fn is_mlx_available(&self) -> bool {
        self.missing(Device::Mlx).is_none()
    }

    /// Whether models can run by Vulkan.
    pub fn is_vulkan_available(&self) -> bool {
        self.missing(Device::Vulkan).is_none()
    }

    /// Whether models can run by wgpu, whatever is below it.
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
            let why = |s: &DeviceStatus| s.reason.clone().or_else(|| s.only_named.clone());
            let reasons = gpus.filter_map(|s| Some(format!("{}: {}", s.device, why(s)?)));
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
        self.automatic().first().copied().unwrap_or(Device::Cpu)
    }

    /// What a device lacks.
    fn missing(&self, device: Device) -> Option<String> {
        let same = |status: &&DeviceStatus| match device {
            Device::Wgpu => matches!(status.device, Device::Vulkan | Device::Metal | Device::Dx12),
            _ => status.device == device,
        };
        let mut all = self.devices.iter().filter(same).peekable();
        if all.peek().is_none() {
            return Some(match device {
                Device::Cuda(number) if self.is_cuda_available() => format!("there is no GPU {number}"),
                Device::Cuda(_) => self.missing(Device::Cuda(0)).unwrap_or_default(),
                _ => "this system does not have it".to_owned(),
            });
        }
        let mut why = Vec::new();
        for status in all {
            why.push(status.reason.clone()?);
        }
        Some(why.join("; "))
    }
}

fn processor() -> DeviceStatus {
    let cpu = CpuFeatures::detect();
    DeviceStatus {
        memory: process::total_memory(),
        free: process::available_memory(),
        ..DeviceStatus::available(Device::Cpu, cpu.model.clone().unwrap_or_else(|| cpu.arch.to_owned()))
    }
}

/// The order in which devices are chosen: NVIDIA's GPUs, Apple's, others, the processor.
fn rank(device: Device) -> (u8, u32) {
    match device {
        Device::Cuda(index) => (0, index),
        Device::Mlx => (1, 0),
        Device::Metal => (2, 0),
        Device::Vulkan | Device::Wgpu => (3, 0),
        Device::Dx12 => (4, 0),
        Device::Cpu | Device::Auto => (5, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(devices: Vec<DeviceStatus>) -> DeviceSelector {
        DeviceSelector { devices }
    }

    fn there(device: Device) -> DeviceStatus {
        DeviceStatus::available(device, "a device".to_owned())
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
                assert!(status.reason.as_ref().is_some_and(|why| !why.is_empty()));
            }
        }
        assert_eq!(selector.select(Device::Cpu), Selection { device: Device::Cpu, fallback: None });
        assert!(selector.select(Device::Cuda(77)).fallback.is_some());
    }

    #[test]
    fn the_fastest_is_chosen_and_software_only_by_its_name() {
        let slow = DeviceStatus { only_named: Some("it is slow".to_owned()), ..there(Device::Vulkan) };
        let selector = of(vec![there(Device::Cpu), slow.clone()]);
        assert_eq!(selector.select(Device::Auto).device, Device::Cpu);
        assert_eq!(selector.select(Device::Vulkan).device, Device::Vulkan);
        assert_eq!(selector.available(), [Device::Cpu, Device::Vulkan]);
        assert!(selector.select_gpu().fallback.unwrap().contains("slow"));
        let all = [Device::Cpu, Device::Vulkan, Device::Metal, Device::Cuda(1), Device::Mlx, Device::Cuda(0)];
        let selector = of(all.map(there).to_vec());
        let expected =
            [Device::Cuda(0), Device::Cuda(1), Device::Mlx, Device::Metal, Device::Vulkan, Device::Cpu];
        assert_eq!(selector.available(), expected);
        assert_eq!(selector.automatic(), expected);
        assert_eq!(selector.select_gpu(), Selection { device: Device::Cuda(0), fallback: None });
        assert!(selector.is_wgpu_available() && selector.is_cuda_available());
        assert!(selector.select(Device::Cuda(2)).fallback.unwrap().contains("no GPU 2"));
    }
}
