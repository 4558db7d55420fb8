//! [`devices`]: which GPUs there are.

use std::ffi::c_int;

use bitnet_core::MemorySize;
use cudarc::driver::{result, sys};

use super::failed;
use crate::CudaError;

/// What `cuDriverGetVersion` gives at least, so that all calls are there and PTX is understood: CUDA 12.1.
const LOWEST_DRIVER: c_int = 12_010;

/// A GPU that the driver knows.
#[derive(Debug, Clone, PartialEq)]
pub struct CudaDevice {
    /// Its number.
    pub index: usize,
    /// Its name: `NVIDIA H200`.
    pub name: String,
    /// All of its memory.
    pub total_memory: MemorySize,
    /// Memory that nobody uses, if the device could be asked.
    pub free_memory: Option<MemorySize>,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// The CUDA version of the driver, major and minor.
    pub driver: (u32, u32),
}

impl CudaDevice {
    /// Compute capability times ten.
    pub(crate) fn capability_number(&self) -> u32 {
        10 * self.capability.0 + self.capability.1
    }
}

/// Starts the driver; returns its CUDA version.
pub(super) fn start() -> Result<c_int, CudaError> {
    // SAFETY: looks for a library that has no effects when it is loaded.
    if !unsafe { sys::is_culib_present() } {
        let reason = "no NVIDIA driver: its library (libcuda.so.1, nvcuda.dll) was not found".to_owned();
        return Err(CudaError::Unavailable { reason });
    }
    result::init().map_err(|e| {
        // A driver without any GPU.
        let reason = format!("the NVIDIA driver does not start: {}", super::text(e));
        CudaError::Unavailable { reason }
    })?;
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    if version < LOWEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let reason = format!("the NVIDIA driver is for CUDA {major}.{minor}; 12.1 or later is needed");
        return Err(CudaError::Unavailable { reason });
    }
    Ok(version)
}

/// All GPUs, in the driver's order. Takes no memory of them that stays.
///
/// # Errors
/// [`CudaError::Unavailable`] if there is no driver or it does not start, at once and silently.
pub fn devices() -> Result<Vec<CudaDevice>, CudaError> {
    let version = start()?;
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    (0..count).map(|index| describe(index, version)).collect()
}

pub(super) fn describe(index: c_int, version: c_int) -> Result<CudaDevice, CudaError> {
    use sys::CUdevice_attribute as Attribute;
    let device = result::device::get(index).map_err(failed("cuDeviceGet"))?;
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    let attribute = |which| attribute(device, which);
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // SAFETY: the device is one that the driver gave.
    let total = unsafe { result::device::total_mem(device) }.map_err(failed("cuDeviceTotalMem"))?;
    Ok(CudaDevice {
        index: index.unsigned_abs() as usize,
        name,
        total_memory: MemorySize::bytes(total as u64),
        free_memory: free_memory(device),
        capability,
        multiprocessors,
        driver: (version.unsigned_abs() / 1000, version.unsigned_abs() % 1000 / 10),
    })
}

/// A fact about a device, which the driver gave.
fn attribute(device: sys::CUdevice, which: sys::CUdevice_attribute) -> Result<u32, CudaError> {
    // SAFETY: the device is one that the driver gave.
    let value = unsafe { result::device::get_attribute(device, which) };
    value.map(c_int::unsigned_abs).map_err(failed("cuDeviceGetAttribute"))
}

/// Whether the device reaches pinned memory of the host.
pub(super) fn maps_host_memory(device: sys::CUdevice) -> Result<bool, CudaError> {
    Ok(attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)? != 0)
}

/// Bytes of shared memory that a block of threads can have, and of a multiprocessor.
pub(super) fn shared_memory(device: sys::CUdevice) -> Result<[u32; 2], CudaError> {
    use sys::CUdevice_attribute as Attribute;
    let attribute = |which| attribute(device, which);
    Ok([
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
    ])
}

/// Free memory of a device, which needs its primary context for a moment.
fn free_memory(device: sys::CUdevice) -> Option<MemorySize> {
    let before = result::ctx::get_current().ok()?;
    // SAFETY: the device is one that the driver gave; the context is current only while it is retained.
    let free = unsafe {
        let context = result::primary_ctx::retain(device).ok()?;
        let free = result::ctx::set_current(context).and_then(|()| result::mem_get_info()).ok();
        let _ = result::ctx::set_current(before.unwrap_or(std::ptr::null_mut()));
        let _ = result::primary_ctx::release(device);
        free
    };
    free.map(|(free, _)| MemorySize::bytes(free as u64))
}
