//! GPUs: which there are, and executors on them. What this build has no backend for is not available, and says so.

use bitnet_core::MemorySize;
use bitnet_model::{ExecError, Executor, KvType, ModelSpec, Weights};

use super::{Device, DeviceStatus};

/// How an executor on a GPU is to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct GpuOptions {
    /// How keys and values are kept.
    pub(crate) kv_type: KvType,
    /// Most memory of the device that may be used; by default nearly all that is free.
    pub(crate) memory: Option<MemorySize>,
}

/// What of the free memory of a GPU is not touched: drivers, displays and other programs need some.
#[cfg(feature = "cuda")]
const SPARE: f64 = 0.06;

/// Prepares a model on a GPU.
///
/// # Errors
/// [`ExecError`]: no such device, too little memory, a model that its kernels do not support.
pub(crate) fn open(
    device: Device,
    spec: ModelSpec,
    weights: &Weights,
    options: &GpuOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Executor>, ExecError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => {
            let memory = options.memory.or_else(|| free_of_cuda(index));
            let (device, kv_type) = (index as usize, options.kv_type);
            let cuda = bitnet_cuda::CudaOptions { device, kv_type, memory, ..Default::default() };
            Ok(Box::new(bitnet_cuda::CudaExecutor::new(spec, weights, &cuda, progress)?))
        }
        #[cfg(feature = "wgpu")]
        Device::Vulkan | Device::Metal | Device::Dx12 | Device::Wgpu => {
            let wgpu = bitnet_wgpu::WgpuOptions {
                backend: wgpu_backend(device),
                // Somebody named it, or it is none.
                allow_software: true,
                kv_type: options.kv_type,
                memory_budget: options.memory,
                ..Default::default()
            };
            Ok(Box::new(bitnet_wgpu::WgpuExecutor::new(spec, weights, &wgpu, progress)?))
        }
        #[cfg(feature = "mlx")]
        Device::Mlx => {
            let (kv_type, memory) = (options.kv_type, options.memory);
            // Somebody named it, or it is a GPU.
            let mlx = bitnet_mlx::MlxOptions { kv_type, memory, ..Default::default() };
            Ok(Box::new(bitnet_mlx::MlxExecutor::new(spec, weights, &mlx, progress)?))
        }
        device => {
            let _ = (spec, weights, options, progress);
            let what = format!("this build has no backend for {device}");
            Err(ExecError::Unsupported { backend: "this build", what })
        }
    }
}

/// Whether anything tells of a GPU, so that its driver is worth being asked.
pub(super) fn may_be_there() -> bool {
    // Elsewhere a GPU is the rule, and asking is quick.
    if !cfg!(target_os = "linux") {
        return true;
    }
    let nodes = |folder: &str, beginning: &str| {
        std::fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        })
    };
    nodes("/dev/dri", "renderD") || nodes("/dev", "nvidia") || nodes("/dev", "dxg")
}

/// NVIDIA's GPUs.
#[cfg(feature = "cuda")]
pub(super) fn cuda() -> Vec<DeviceStatus> {
    let missing = |why| vec![DeviceStatus::missing(Device::Cuda(0), "NVIDIA GPU", why)];
    match bitnet_cuda::devices() {
        Ok(devices) if devices.is_empty() => missing("the driver finds no GPU".to_owned()),
        Ok(devices) => devices.into_iter().map(cuda_device).collect(),
        Err(error) => missing(error.to_string()),
    }
}

#[cfg(feature = "cuda")]
fn cuda_device(device: bitnet_cuda::CudaDevice) -> DeviceStatus {
    let (major, minor) = device.driver;
    let number = u32::try_from(device.index).unwrap_or(u32::MAX);
    let mut status = DeviceStatus::available(Device::Cuda(number), device.name);
    status.driver = Some(format!("CUDA {major}.{minor}"));
    (status.memory, status.free) = (Some(device.total_memory), device.free_memory);
    let (major, minor) = device.capability;
    if (major, minor) < (7, 5) {
        let why = format!("its compute capability is {major}.{minor}; kernels need 7.5 (Turing) or newer");
        status.reason = Some(why);
    }
    status
}

/// What a GPU has free, without what others need.
#[cfg(feature = "cuda")]
fn free_of_cuda(index: u32) -> Option<MemorySize> {
    let devices = bitnet_cuda::devices().ok()?;
    let free = devices.into_iter().find(|device| device.index == index as usize)?.free_memory?;
    Some(MemorySize::bytes((free.as_bytes() as f64 * (1.0 - SPARE)) as u64))
}

/// NVIDIA's GPUs, for which this build has no backend.
#[cfg(not(feature = "cuda"))]
pub(super) fn cuda() -> Vec<DeviceStatus> {
    vec![DeviceStatus::missing(Device::Cuda(0), "NVIDIA GPU", "this build has no CUDA backend".to_owned())]
}

/// What MLX computes on.
#[cfg(feature = "mlx")]
pub(super) fn mlx() -> DeviceStatus {
    match bitnet_mlx::device_info() {
        Ok(device) => {
            let mut status = DeviceStatus::available(Device::Mlx, format!("{} (MLX)", device.name));
            status.driver = Some(format!("MLX {}", device.version));
            status.memory = device.memory;
            if !device.is_gpu {
                let why = "MLX has no GPU here and computes on the processor, slower than the device cpu";
                status.only_named = Some(why.to_owned());
            }
            status
        }
        Err(error) => DeviceStatus::missing(Device::Mlx, "Apple GPU (MLX)", error.to_string()),
    }
}

/// Apple's GPUs through MLX, for which this build has no backend.
#[cfg(not(feature = "mlx"))]
pub(super) fn mlx() -> DeviceStatus {
    let fits = cfg!(all(target_os = "macos", target_arch = "aarch64"));
    let lacking = "this build has no MLX backend";
    let why =
        if fits { lacking.to_owned() } else { format!("it needs macOS on Apple silicon, and {lacking}") };
    DeviceStatus::missing(Device::Mlx, "Apple GPU (MLX)", why)
}

/// The interfaces that wgpu reaches GPUs by on this system, and their names.
const INTERFACES: &[(Device, &str)] = if cfg!(target_vendor = "apple") {
    &[(Device::Metal, "GPU (Metal)")]
} else if cfg!(windows) {
    &[(Device::Vulkan, "GPU (Vulkan)"), (Device::Dx12, "GPU (DX12)")]
} else {
    &[(Device::Vulkan, "GPU (Vulkan)")]
};

/// GPUs through wgpu: the best adapter of each interface.
#[cfg(feature = "wgpu")]
pub(super) fn wgpu() -> Vec<DeviceStatus> {
    let adapters = bitnet_wgpu::adapters();
    let best = |&(device, name): &(Device, &str)| {
        let of_interface = adapters.iter().filter(|a| Some(a.backend) == wgpu_backend(device));
        let last =
            |a: &&bitnet_wgpu::WgpuAdapter| (a.lacks.is_some(), a.kind == bitnet_wgpu::AdapterKind::Software);
        let Some(adapter) = of_interface.min_by_key(last) else {
            return DeviceStatus::missing(device, name, "no driver was found".to_owned());
        };
        let mut status = DeviceStatus::available(device, adapter.name.clone());
        status.driver = Some(adapter.driver.clone());
        status.reason.clone_from(&adapter.lacks);
        if adapter.kind == bitnet_wgpu::AdapterKind::Software {
            status.only_named = Some("it computes on the processor, slower than the device cpu".to_owned());
        }
        status
    };
    INTERFACES.iter().map(best).collect()
}

#[cfg(feature = "wgpu")]
fn wgpu_backend(device: Device) -> Option<bitnet_wgpu::WgpuBackend> {
    match device {
        Device::Vulkan => Some(bitnet_wgpu::WgpuBackend::Vulkan),
        Device::Metal => Some(bitnet_wgpu::WgpuBackend::Metal),
        Device::Dx12 => Some(bitnet_wgpu::WgpuBackend::Dx12),
        _ => None,
    }
}

/// GPUs through wgpu, which this build has not got.
#[cfg(not(feature = "wgpu"))]
pub(super) fn wgpu() -> Vec<DeviceStatus> {
    let missing = |&(device, name): &(Device, &str)| {
        DeviceStatus::missing(device, name, "this build has no wgpu backend".to_owned())
    };
    INTERFACES.iter().map(missing).collect()
}
