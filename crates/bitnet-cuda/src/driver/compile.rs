//! Kernels become a module: PTX of the program through the driver's compiler, or for developers the sources through NVRTC.

use std::ffi::{CStr, CString, c_char, c_void};

use cudarc::driver::sys;
use cudarc::nvrtc::sys as nvrtc;

use super::failed;
use crate::CudaError;
use crate::ptx::{SOURCES, Target, targets};

/// The variable that asks for the sources.
const FROM_SOURCE: &str = "BITNET_CUDA_NVRTC";
/// Bytes of the compiler's words that are kept.
const LOG: usize = 8192;

/// The kernels for a device: the best ones, or those of a name.
pub(super) fn choose(capability: u32, name: Option<&str>) -> Result<&'static Target, CudaError> {
    let possible = || targets().iter().filter(|target| target.capability <= capability);
    let found = match name {
        None => possible().next_back(),
        Some(name) => possible().find(|target| target.name == name),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = possible().map(|target| target.name).collect();
        let what = format!("there are no {} ones; this device runs {names:?}", name.unwrap_or("fitting"));
        CudaError::Kernels { what }
    })
}

/// Loads the kernels into the current context.
pub(super) fn load(target: &Target) -> Result<sys::CUmodule, CudaError> {
    let from_source = std::env::var_os(FROM_SOURCE).is_some_and(|value| value == "1");
    let ptx = if from_source { compile(target)? } else { target.ptx()? };
    let broken = |_| CudaError::Kernels { what: "PTX with a zero byte".to_owned() };
    let ptx = CString::new(ptx).map_err(broken)?;
    let mut log = vec![0u8; LOG];
    let mut module = std::ptr::null_mut();
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG)];
    // SAFETY: PTX ends with a zero; the log is as long as its option says and outlives the call.
    let loaded = unsafe {
        sys::cuModuleLoadDataEx(
            &raw mut module,
            ptx.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    match loaded.result() {
        Ok(()) => Ok(module),
        Err(error) => {
            let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned());
            let what = format!("{} {}", super::text(error), log.unwrap_or_default());
            Err(CudaError::Kernels { what })
        }
    }
}

/// The address of a kernel, which gets the right to `shared` bytes of shared memory.
pub(super) fn function(
    module: sys::CUmodule,
    name: &'static str,
    shared: u32,
) -> Result<sys::CUfunction, CudaError> {
    let c_name = CString::new(name).map_err(|_| CudaError::Kernels { what: name.to_owned() })?;
    // SAFETY: the module is loaded.
    let found = unsafe { cudarc::driver::result::module::get_function(module, c_name) };
    let function = found.map_err(failed("cuModuleGetFunction"))?;
    // Blocks that hold rows or values: as many as possible at a time, rather than a larger first cache.
    let carveout = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
    // SAFETY: the function was just found; the attribute is advice, whose refusal changes no result.
    unsafe {
        let _ = cudarc::driver::result::function::set_function_attribute(function, carveout, 100);
    }
    let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function was just found.
    unsafe { cudarc::driver::result::function::set_function_attribute(function, most, shared as i32) }
        .map_err(failed("cuFuncSetAttribute"))?;
    Ok(function)
}

/// PTX of the sources in the program.
fn compile(target: &Target) -> Result<String, CudaError> {
    // SAFETY: looks for a library that has no effects when it is loaded.
    if !unsafe { nvrtc::is_culib_present() } {
        let what = format!("{FROM_SOURCE} is set, but there is no NVRTC library (libnvrtc.so.13 or .12)");
        return Err(CudaError::Kernels { what });
    }
    let strings = |texts: Vec<String>| -> Result<Vec<CString>, CudaError> {
        let broken = |_| CudaError::Kernels { what: "a source with a zero byte".to_owned() };
        texts.into_iter().map(|text| CString::new(text).map_err(broken)).collect()
    };
    let names = strings(SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect())?;
    let texts = strings(SOURCES.iter().map(|(_, text)| (*text).to_owned()).collect())?;
    let options = strings(vec![
        format!("--gpu-architecture={}", target.architecture),
        "--std=c++17".to_owned(),
        "--fmad=false".to_owned(),
    ])?;
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();
    let (name_pointers, text_pointers) = (pointers(&names), pointers(&texts));
    let option_pointers = pointers(&options);
    let mut program = std::ptr::null_mut();
    let (mut log, mut ptx) = (Vec::new(), Vec::new());
    // SAFETY: all strings outlive the calls; buffers are as long as NVRTC says.
    let result = unsafe {
        let created = nvrtc::nvrtcCreateProgram(
            &raw mut program,
            text_pointers[0],
            name_pointers[0],
            names.len() as i32 - 1,
            text_pointers[1..].as_ptr(),
            name_pointers[1..].as_ptr(),
        );
        if created != nvrtc::nvrtcResult::NVRTC_SUCCESS {
            return Err(CudaError::Kernels { what: format!("NVRTC: {created:?}") });
        }
        let result =
            nvrtc::nvrtcCompileProgram(program, option_pointers.len() as i32, option_pointers.as_ptr());
        let mut size = 0;
        nvrtc::nvrtcGetProgramLogSize(program, &raw mut size);
        log.resize(size.max(1), 0u8);
        nvrtc::nvrtcGetProgramLog(program, log.as_mut_ptr().cast());
        nvrtc::nvrtcGetPTXSize(program, &raw mut size);
        ptx.resize(size.max(1), 0u8);
        nvrtc::nvrtcGetPTX(program, ptx.as_mut_ptr().cast());
        nvrtc::nvrtcDestroyProgram(&raw mut program);
        result
    };
    if result != nvrtc::nvrtcResult::NVRTC_SUCCESS {
        let log = String::from_utf8_lossy(&log);
        return Err(CudaError::Kernels { what: format!("NVRTC: {result:?}: {log}") });
    }
    ptx.pop();
    String::from_utf8(ptx).map_err(|_| CudaError::Kernels { what: "NVRTC gave no text".to_owned() })
}
