//! MLX's C API: [`raw`] has the declarations, the other modules safe wrappers of what is used. The only `unsafe` code of
//! the crate.
//!
//! An error handler that keeps the message for the thread is installed before the first call, so MLX neither prints nor
//! ends the process: a failed call is an [`MlxError`].

mod array;
mod ops;
mod pages;
mod raw;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Once;

use bitnet_core::MemorySize;

pub(crate) use self::array::{Array, eval};
pub(crate) use self::ops::{Codes, Stream};
pub(crate) use self::pages::Pages;
pub(crate) use self::raw::Dtype;
use crate::error::MlxError;
use crate::options::{MlxDevice, MlxWhere};

thread_local! {
    /// What MLX said of the last failure on this thread.
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps a message. MLX calls it on the thread whose call fails.
extern "C" fn keep(message: *const c_char, _: *mut c_void) {
    if message.is_null() {
        return;
    }
    // SAFETY: MLX gives a string that ends with 0 and lives during this call.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    MESSAGE.with_borrow_mut(|kept| *kept = Some(text));
}

/// Installs the error handler; every entrance to the library comes by here.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler takes what the header says and lives as long as the program; there is no data to release.
        unsafe { raw::mlx_set_error_handler(keep, std::ptr::null_mut(), None) }
    });
}

/// The error of a call that failed.
fn failure() -> MlxError {
    let kept = MESSAGE.with_borrow_mut(Option::take);
    kept.map_or_else(
        || MlxError::Device("a call failed without a message".to_owned()),
        |text| MlxError::from_message(&text),
    )
}

/// What the result of a call means.
fn check(code: c_int) -> Result<(), MlxError> {
    if code == 0 { Ok(()) } else { Err(failure()) }
}

/// A `mlx_device`.
struct Device(raw::RawDevice);

impl Device {
    fn new(kind: c_int) -> Result<Self, MlxError> {
        prepare();
        // SAFETY: any kind and index may be given; what is not there is told by `is_available`.
        let device = unsafe { raw::mlx_device_new_type(kind, 0) };
        if device.0.is_null() { Err(failure()) } else { Ok(Self(device)) }
    }

    fn is_available(&self) -> Result<bool, MlxError> {
        let mut out = false;
        // SAFETY: a live device, and a place for the answer.
        check(unsafe { raw::mlx_device_is_available(&mut out, self.0) })?;
        Ok(out)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and not used again.
        unsafe { raw::mlx_device_free(self.0) };
    }
}

/// The device that is wanted, and whether it is a GPU.
fn device(wanted: MlxWhere) -> Result<(Device, bool), MlxError> {
    if wanted != MlxWhere::Cpu {
        let gpu = Device::new(raw::GPU)?;
        if gpu.is_available()? {
            return Ok((gpu, true));
        }
        if wanted == MlxWhere::Gpu {
            return Err(MlxError::NoDevice("GPU"));
        }
    }
    let cpu = Device::new(raw::CPU)?;
    if cpu.is_available()? { Ok((cpu, false)) } else { Err(MlxError::NoDevice("processor")) }
}

/// What MLX computes on: the GPU if it has one, else the processor.
///
/// # Errors
/// [`MlxError`]: the library fails, or was built for no device.
pub fn device_info() -> Result<MlxDevice, MlxError> {
    describe(MlxWhere::Auto)
}

/// What there is of what is wanted.
///
/// # Errors
/// As [`device_info`].
pub(crate) fn describe(wanted: MlxWhere) -> Result<MlxDevice, MlxError> {
    let (device, is_gpu) = device(wanted)?;
    let info = Info::of(&device)?;
    let name = info.text(c"device_name")?.or(info.text(c"architecture")?);
    let memory = match info.size(c"max_recommended_working_set_size")? {
        Some(size) => Some(size),
        None => info.size(c"memory_size")?,
    };
    Ok(MlxDevice {
        name: name.unwrap_or_else(|| if is_gpu { "GPU" } else { "processor" }.to_owned()),
        is_gpu,
        memory: memory.filter(|&size| size > 0).map(|size| MemorySize::bytes(size as u64)),
        version: version()?,
    })
}

fn version() -> Result<String, MlxError> {
    prepare();
    // SAFETY: no arguments.
    let mut string = unsafe { raw::mlx_string_new() };
    // SAFETY: a place for the answer, which is an owned string.
    let result = check(unsafe { raw::mlx_version(&mut string) }).map(|()| {
        // SAFETY: a live string.
        let data = unsafe { raw::mlx_string_data(string) };
        // SAFETY: as `text_of` demands: data of a live string.
        unsafe { text_of(data) }
    });
    // SAFETY: the handle is owned and not used again.
    unsafe { raw::mlx_string_free(string) };
    result
}

/// The text at an address, nothing at null.
///
/// # Safety
/// The address is null or that of a live string that ends with 0.
unsafe fn text_of(data: *const c_char) -> String {
    if data.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(data) }.to_string_lossy().into_owned()
}

/// A `mlx_device_info`.
struct Info(raw::RawDeviceInfo);

impl Info {
    fn of(device: &Device) -> Result<Self, MlxError> {
        // SAFETY: no arguments.
        let mut info = Self(unsafe { raw::mlx_device_info_new() });
        // SAFETY: a live device, and an owned place for the answer.
        check(unsafe { raw::mlx_device_info_get(&mut info.0, device.0) })?;
        Ok(info)
    }

    /// Whether there is a value, and whether it is a text.
    fn kind(&self, key: &CStr) -> Result<Option<bool>, MlxError> {
        let (mut exists, mut is_text) = (false, false);
        // SAFETY: a live info, a key that ends with 0, a place for the answer.
        check(unsafe { raw::mlx_device_info_has_key(&mut exists, self.0, key.as_ptr()) })?;
        if !exists {
            return Ok(None);
        }
        // SAFETY: as above.
        check(unsafe { raw::mlx_device_info_is_string(&mut is_text, self.0, key.as_ptr()) })?;
        Ok(Some(is_text))
    }

    fn text(&self, key: &CStr) -> Result<Option<String>, MlxError> {
        if self.kind(key)? != Some(true) {
            return Ok(None);
        }
        let mut data = std::ptr::null();
        // SAFETY: a live info that has a text by this key, a place for its address.
        check(unsafe { raw::mlx_device_info_get_string(&mut data, self.0, key.as_ptr()) })?;
        // SAFETY: a string of the live info.
        let text = unsafe { text_of(data) };
        Ok((!text.trim().is_empty()).then(|| text.trim().to_owned()))
    }

    fn size(&self, key: &CStr) -> Result<Option<usize>, MlxError> {
        if self.kind(key)? != Some(false) {
            return Ok(None);
        }
        let mut size = 0;
        // SAFETY: a live info that has a number by this key, a place for it.
        check(unsafe { raw::mlx_device_info_get_size(&mut size, self.0, key.as_ptr()) })?;
        Ok(Some(size))
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and not used again.
        unsafe { raw::mlx_device_info_free(self.0) };
    }
}

/// Memory that MLX holds in this process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Of live arrays.
    pub(crate) active: usize,
    /// Kept for later arrays.
    pub(crate) cached: usize,
    /// The most that was ever active.
    pub(crate) peak: usize,
}

/// What MLX holds.
///
/// # Errors
/// [`MlxError`].
pub(crate) fn memory() -> Result<Memory, MlxError> {
    prepare();
    let mut now = Memory::default();
    // SAFETY: places for the answers.
    unsafe {
        check(raw::mlx_get_active_memory(&mut now.active))?;
        check(raw::mlx_get_cache_memory(&mut now.cached))?;
        check(raw::mlx_get_peak_memory(&mut now.peak))?;
    }
    Ok(now)
}

/// Gives memory back that is only kept for later.
///
/// # Errors
/// [`MlxError`].
pub(crate) fn clear_cache() -> Result<(), MlxError> {
    prepare();
    // SAFETY: no arguments.
    check(unsafe { raw::mlx_clear_cache() })
}

/// A name for MLX.
fn c_text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
