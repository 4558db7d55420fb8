//! [`Array`]: a handle to an array of MLX, evaluated or still a node of a graph.

use std::ffi::{c_int, c_void};

use super::pages::Pages;
use super::raw::{self, Dtype, RawArray, RawVector};
use super::{check, failure, prepare};
use crate::error::MlxError;

/// An array. Clones share it.
#[derive(Debug)]
pub(crate) struct Array(pub(super) RawArray);

// SAFETY: arrays are counted by atomics and belong to no thread. They are not shared among threads here.
unsafe impl Send for Array {}

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and not used again; null is allowed.
        unsafe { raw::mlx_array_free(self.0) };
    }
}

/// Frees what an array was made of, when MLX does not need it any longer.
extern "C" fn release(payload: *mut c_void) {
    // SAFETY: the payload is the box that `Array::adopt` gave away, and MLX calls this once.
    drop(unsafe { Box::from_raw(payload.cast::<Pages>()) });
}

/// Elements of a shape.
fn elements(shape: &[i32]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
}

impl Array {
    /// An empty handle, for a call to fill.
    pub(super) fn none() -> Self {
        Self(RawArray::NULL)
    }

    fn owned(raw: RawArray) -> Result<Self, MlxError> {
        if raw.0.is_null() { Err(failure()) } else { Ok(Self(raw)) }
    }

    /// A copy of bytes as an array.
    ///
    /// # Errors
    /// [`MlxError`]: a shape with other than so many elements, no memory.
    pub(crate) fn from_bytes(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Result<Self, MlxError> {
        prepare();
        fits(bytes.len(), shape, dtype)?;
        // SAFETY: `bytes` has all elements, as was checked; MLX copies them during the call.
        let raw = unsafe {
            raw::mlx_array_new_data(bytes.as_ptr().cast(), shape.as_ptr(), shape.len() as c_int, dtype)
        };
        Self::owned(raw)
    }

    /// A copy of numbers.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub(crate) fn from_f32(values: &[f32], shape: &[i32]) -> Result<Self, MlxError> {
        Self::from_bytes(bytemuck::cast_slice(values), shape, Dtype::F32)
    }

    /// A copy of whole numbers.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub(crate) fn from_i32(values: &[i32], shape: &[i32]) -> Result<Self, MlxError> {
        Self::from_bytes(bytemuck::cast_slice(values), shape, Dtype::I32)
    }

    /// Pages as one row of 32-bit elements, without a copy where the device shares the host's memory.
    ///
    /// # Errors
    /// [`MlxError`]: too many elements, no memory.
    pub(crate) fn adopt(pages: Pages, dtype: Dtype) -> Result<Self, MlxError> {
        prepare();
        let count = c_int::try_from(pages.len() / 4)
            .map_err(|_| MlxError::Unsupported(format!("matrices of {} bytes", pages.len())))?;
        fits(pages.len(), &[count], dtype)?;
        let data = pages.address();
        let payload = Box::into_raw(Box::new(pages));
        // SAFETY: `data` has so many elements and lives until MLX calls `release`, which frees the box once.
        let raw = unsafe {
            raw::mlx_array_new_data_managed_payload(data.cast(), &count, 1, dtype, payload.cast(), release)
        };
        Self::owned(raw)
    }

    /// The length of each dimension.
    pub(crate) fn shape(&self) -> Vec<i32> {
        // SAFETY: a live array.
        let dims = unsafe { raw::mlx_array_ndim(self.0) };
        // SAFETY: a live array, and a dimension that it has.
        (0..dims as c_int).map(|dim| unsafe { raw::mlx_array_dim(self.0, dim) }).collect()
    }

    /// The length of one dimension.
    pub(crate) fn dim(&self, dim: i32) -> i32 {
        // SAFETY: a live array; for a dimension that it has not, MLX gives 0 and keeps a message.
        unsafe { raw::mlx_array_dim(self.0, dim) }
    }

    /// Bytes of all elements.
    pub(crate) fn bytes(&self) -> usize {
        // SAFETY: a live array.
        unsafe { raw::mlx_array_nbytes(self.0) }
    }

    /// The elements as bytes, computed first if they must be.
    ///
    /// # Errors
    /// [`MlxError`] if that fails, or elements do not lie one behind the other.
    pub(crate) fn data(&self) -> Result<&[u8], MlxError> {
        let mut contiguous = false;
        // SAFETY: a live array; the flag has a place. Once evaluated, flags and data are those of the result.
        unsafe {
            check(raw::mlx_array_eval(self.0))?;
            check(raw::_mlx_array_is_row_contiguous(&mut contiguous, self.0))?;
        }
        if !contiguous {
            return Err(MlxError::Device("an array does not lie in rows".to_owned()));
        }
        // SAFETY: a live array that is evaluated.
        let data = unsafe { raw::mlx_array_data_uint8(self.0) };
        if data.is_null() {
            return Err(failure());
        }
        // SAFETY: the elements lie there one behind the other, and nothing writes to them while this handle lives: MLX
        // reuses memory of arrays that only a graph refers to.
        Ok(unsafe { std::slice::from_raw_parts(data, self.bytes()) })
    }

    /// The elements of an array of single precision.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub(crate) fn f32s(&self) -> Result<&[f32], MlxError> {
        // SAFETY: a live array.
        let dtype = unsafe { raw::mlx_array_dtype(self.0) };
        match bytemuck::try_cast_slice(self.data()?) {
            Ok(values) if dtype == Dtype::F32 as c_int => Ok(values),
            _ => Err(MlxError::Device(format!("an array of the type {dtype} instead of single precision"))),
        }
    }
}

impl Clone for Array {
    fn clone(&self) -> Self {
        let mut copy = Self::none();
        // SAFETY: a live array, and an empty place for another handle. It fails without memory only; an empty handle
        // is refused by every other call.
        unsafe { raw::mlx_array_set(&mut copy.0, self.0) };
        copy
    }
}

/// Checks that bytes are the elements of a shape.
fn fits(bytes: usize, shape: &[i32], dtype: Dtype) -> Result<(), MlxError> {
    let size = match dtype {
        Dtype::Bool | Dtype::U8 | Dtype::I8 => 1,
        Dtype::U16 | Dtype::I16 | Dtype::F16 | Dtype::Bf16 => 2,
        Dtype::U32 | Dtype::I32 | Dtype::F32 => 4,
        Dtype::U64 | Dtype::I64 | Dtype::F64 | Dtype::Complex64 => 8,
    };
    if elements(shape).and_then(|count| count.checked_mul(size)) == Some(bytes) {
        return Ok(());
    }
    Err(MlxError::Unsupported(format!("an array of {shape:?} from {bytes} bytes")))
}

/// Several arrays for a call.
pub(super) struct Vector(pub(super) RawVector);

impl Vector {
    pub(super) fn new(arrays: &[&Array]) -> Result<Self, MlxError> {
        let handles: Vec<RawArray> = arrays.iter().map(|array| array.0).collect();
        // SAFETY: so many live handles, of which the vector has its own.
        let vector = unsafe { raw::mlx_vector_array_new_data(handles.as_ptr(), handles.len()) };
        if vector.0.is_null() { Err(failure()) } else { Ok(Self(vector)) }
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and not used again.
        unsafe { raw::mlx_vector_array_free(self.0) };
    }
}

/// Computes arrays, all at once, and waits.
///
/// # Errors
/// [`MlxError`].
pub(crate) fn eval(arrays: &[&Array]) -> Result<(), MlxError> {
    if arrays.is_empty() {
        return Ok(());
    }
    let vector = Vector::new(arrays)?;
    // SAFETY: a live vector of live arrays.
    check(unsafe { raw::mlx_eval(vector.0) })
}
