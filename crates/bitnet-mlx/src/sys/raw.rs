//! The declarations of mlx-c 0.7 that this crate uses, as its headers have them.
//!
//! Functions give 0, or something else after calling the error handler. Handles are pointers to C++ objects, null for none;
//! a function that gives a handle through its first argument replaces what that had.

use std::ffi::{c_char, c_int, c_void};

/// Elements of arrays: `mlx_dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
#[allow(dead_code, reason = "the numbers of all types are those of the header")]
pub(crate) enum Dtype {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
    Bf16,
    Complex64,
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[repr(C)]
        pub(super) struct $name(pub(super) *mut c_void);
    )*};
}

handles! {
    /// `mlx_array`.
    RawArray,
    /// `mlx_vector_array`.
    RawVector,
    /// `mlx_stream`.
    RawStream,
    /// `mlx_device`.
    RawDevice,
    /// `mlx_device_info`.
    RawDeviceInfo,
    /// `mlx_string`.
    RawString
}

impl RawArray {
    /// No array.
    pub(super) const NULL: Self = Self(std::ptr::null_mut());
}

/// `mlx_optional_int`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct OptionalInt {
    pub(super) value: c_int,
    pub(super) has_value: bool,
}

/// `MLX_CPU` and `MLX_GPU`.
pub(super) const CPU: c_int = 0;
pub(super) const GPU: c_int = 1;

pub(super) type Handler = extern "C" fn(*const c_char, *mut c_void);
type Release = extern "C" fn(*mut c_void);

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        unsafe extern "C" {
            $(pub(super) fn $name($($argument: $type),*) $(-> $result)?;)*
        }
    };
}

functions! {
    mlx_set_error_handler(handler: Handler, data: *mut c_void, release: Option<Release>);
    mlx_version(out: *mut RawString) -> c_int;
    mlx_string_new() -> RawString;
    mlx_string_data(string: RawString) -> *const c_char;
    mlx_string_free(string: RawString) -> c_int;

    mlx_device_new_type(kind: c_int, index: c_int) -> RawDevice;
    mlx_device_free(device: RawDevice) -> c_int;
    mlx_device_is_available(out: *mut bool, device: RawDevice) -> c_int;
    mlx_device_info_new() -> RawDeviceInfo;
    mlx_device_info_get(out: *mut RawDeviceInfo, device: RawDevice) -> c_int;
    mlx_device_info_free(info: RawDeviceInfo) -> c_int;
    mlx_device_info_has_key(out: *mut bool, info: RawDeviceInfo, key: *const c_char) -> c_int;
    mlx_device_info_is_string(out: *mut bool, info: RawDeviceInfo, key: *const c_char) -> c_int;
    mlx_device_info_get_string(out: *mut *const c_char, info: RawDeviceInfo, key: *const c_char) -> c_int;
    mlx_device_info_get_size(out: *mut usize, info: RawDeviceInfo, key: *const c_char) -> c_int;
    mlx_stream_new_thread_unsafe(device: RawDevice) -> RawStream;

    mlx_clear_cache() -> c_int;
    mlx_get_active_memory(out: *mut usize) -> c_int;
    mlx_get_cache_memory(out: *mut usize) -> c_int;
    mlx_get_peak_memory(out: *mut usize) -> c_int;

    mlx_array_free(array: RawArray) -> c_int;
    mlx_array_new_data(data: *const c_void, shape: *const c_int, dims: c_int, dtype: Dtype) -> RawArray;
    mlx_array_new_data_managed_payload(data: *mut c_void, shape: *const c_int, dims: c_int, dtype: Dtype,
        payload: *mut c_void, release: Release) -> RawArray;
    mlx_array_set(out: *mut RawArray, from: RawArray) -> c_int;
    mlx_array_nbytes(array: RawArray) -> usize;
    mlx_array_ndim(array: RawArray) -> usize;
    mlx_array_dim(array: RawArray, dim: c_int) -> c_int;
    mlx_array_dtype(array: RawArray) -> c_int;
    mlx_array_eval(array: RawArray) -> c_int;
    mlx_array_data_uint8(array: RawArray) -> *const u8;
    _mlx_array_is_row_contiguous(out: *mut bool, array: RawArray) -> c_int;
    mlx_vector_array_new_data(data: *const RawArray, size: usize) -> RawVector;
    mlx_vector_array_free(vector: RawVector) -> c_int;
    mlx_eval(outputs: RawVector) -> c_int;

    mlx_abs(out: *mut RawArray, a: RawArray, s: RawStream) -> c_int;
    mlx_isfinite(out: *mut RawArray, a: RawArray, s: RawStream) -> c_int;
    mlx_sigmoid(out: *mut RawArray, a: RawArray, s: RawStream) -> c_int;
    mlx_square(out: *mut RawArray, a: RawArray, s: RawStream) -> c_int;
    mlx_add(out: *mut RawArray, a: RawArray, b: RawArray, s: RawStream) -> c_int;
    mlx_divide(out: *mut RawArray, a: RawArray, b: RawArray, s: RawStream) -> c_int;
    mlx_matmul(out: *mut RawArray, a: RawArray, b: RawArray, s: RawStream) -> c_int;
    mlx_maximum(out: *mut RawArray, a: RawArray, b: RawArray, s: RawStream) -> c_int;
    mlx_minimum(out: *mut RawArray, a: RawArray, b: RawArray, s: RawStream) -> c_int;
    mlx_multiply(out: *mut RawArray, a: RawArray, b: RawArray, s: RawStream) -> c_int;
    mlx_where(out: *mut RawArray, condition: RawArray, a: RawArray, b: RawArray, s: RawStream) -> c_int;
    mlx_round(out: *mut RawArray, a: RawArray, decimals: c_int, s: RawStream) -> c_int;
    mlx_astype(out: *mut RawArray, a: RawArray, dtype: Dtype, s: RawStream) -> c_int;
    mlx_contiguous(out: *mut RawArray, a: RawArray, allow_col_major: bool, s: RawStream) -> c_int;
    mlx_max_axis(out: *mut RawArray, a: RawArray, axis: c_int, keep: bool, s: RawStream) -> c_int;
    mlx_sum_axis(out: *mut RawArray, a: RawArray, axis: c_int, keep: bool, s: RawStream) -> c_int;
    mlx_softmax_axis(out: *mut RawArray, a: RawArray, axis: c_int, precise: bool, s: RawStream) -> c_int;
    mlx_concatenate_axis(out: *mut RawArray, arrays: RawVector, axis: c_int, s: RawStream) -> c_int;
    mlx_take_axis(out: *mut RawArray, a: RawArray, indices: RawArray, axis: c_int, s: RawStream) -> c_int;
    mlx_scatter_single(out: *mut RawArray, a: RawArray, indices: RawArray, updates: RawArray, axis: c_int,
        s: RawStream) -> c_int;
    mlx_zeros(out: *mut RawArray, shape: *const c_int, dims: usize, dtype: Dtype, s: RawStream) -> c_int;
    mlx_reshape(out: *mut RawArray, a: RawArray, shape: *const c_int, dims: usize, s: RawStream) -> c_int;
    mlx_transpose_axes(out: *mut RawArray, a: RawArray, axes: *const c_int, count: usize, s: RawStream) -> c_int;
    mlx_slice(out: *mut RawArray, a: RawArray, start: *const c_int, starts: usize, stop: *const c_int,
        stops: usize, strides: *const c_int, steps: usize, s: RawStream) -> c_int;
    mlx_fast_rms_norm(out: *mut RawArray, x: RawArray, weight: RawArray, eps: f32, s: RawStream) -> c_int;
    mlx_quantized_matmul(out: *mut RawArray, x: RawArray, w: RawArray, scales: RawArray, biases: RawArray,
        transpose: bool, group_size: OptionalInt, bits: OptionalInt, mode: *const c_char, s: RawStream) -> c_int;
}
