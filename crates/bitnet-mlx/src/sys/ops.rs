//! [`Stream`]: where arrays are computed, and the operations on them. Each gives a node of a graph at once; [`eval`] computes.
//!
//! Shapes are checked by MLX: those that do not fit are [`MlxError::Device`] with its words.
//!
//! [`eval`]: super::eval

use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};

use super::array::{Array, Vector};
use super::raw::{self, Dtype, OptionalInt, RawArray, RawStream};
use super::{c_text, check, device, failure};
use crate::error::MlxError;
use crate::options::MlxWhere;

/// A queue of a device that works on one graph at a time. When it is dropped, the next executor gets it: MLX never ends one.
#[derive(Debug)]
pub(crate) struct Stream {
    raw: RawStream,
    is_gpu: bool,
}

// SAFETY: the stream is one that any thread may use, one at a time, which `Stream` being owned ensures.
unsafe impl Send for Stream {}

/// A stream that nobody uses.
struct Idle(RawStream, bool);

// SAFETY: as for `Stream`.
unsafe impl Send for Idle {}

static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

impl Drop for Stream {
    fn drop(&mut self) {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(Idle(self.raw, self.is_gpu));
    }
}

/// A ternary matrix as MLX's quantised product takes it.
#[derive(Debug)]
pub(crate) struct Codes {
    /// Codes trit + 1 of two bits, `[rows, columns / 16]` words, the first column in the lowest bits.
    pub(crate) words: Array,
    /// Ones, `[rows, columns / group]`.
    pub(crate) scales: Array,
    /// Minus ones, `[rows, columns / group]`.
    pub(crate) biases: Array,
    /// Columns that share a scale: 32, 64 or 128.
    pub(crate) group: i32,
}

impl Stream {
    /// A stream on what is wanted.
    ///
    /// # Errors
    /// [`MlxError::NoDevice`]; [`MlxError::Device`].
    pub(crate) fn new(wanted: MlxWhere) -> Result<Self, MlxError> {
        let (device, is_gpu) = device(wanted)?;
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = idle.iter().position(|known| known.1 == is_gpu) {
            return Ok(Self { raw: idle.swap_remove(place).0, is_gpu });
        }
        // SAFETY: a live device.
        let raw = unsafe { raw::mlx_stream_new_thread_unsafe(device.0) };
        if raw.0.is_null() { Err(failure()) } else { Ok(Self { raw, is_gpu }) }
    }

    /// Whether it is a GPU's.
    pub(crate) fn is_gpu(&self) -> bool {
        self.is_gpu
    }

    /// Runs a call that fills a handle.
    fn fill(&self, call: impl FnOnce(*mut RawArray, RawStream) -> c_int) -> Result<Array, MlxError> {
        let mut out = Array::none();
        check(call(&mut out.0, self.raw))?;
        Ok(out)
    }
}

macro_rules! of_one {
    ($($(#[$doc:meta])* $name:ident = $raw:ident;)*) => {impl Stream {$(
        $(#[$doc])*
        pub(crate) fn $name(&self, a: &Array) -> Result<Array, MlxError> {
            // SAFETY: a live array and stream, and a place for the result.
            self.fill(|out, s| unsafe { raw::$raw(out, a.0, s) })
        }
    )*}};
}

macro_rules! of_two {
    ($($(#[$doc:meta])* $name:ident = $raw:ident;)*) => {impl Stream {$(
        $(#[$doc])*
        pub(crate) fn $name(&self, a: &Array, b: &Array) -> Result<Array, MlxError> {
            // SAFETY: live arrays and stream, and a place for the result.
            self.fill(|out, s| unsafe { raw::$raw(out, a.0, b.0, s) })
        }
    )*}};
}

of_one! {
    /// Magnitudes.
    abs = mlx_abs;
    /// Whether elements are finite.
    is_finite = mlx_isfinite;
    /// `1 / (1 + exp(-a))`.
    sigmoid = mlx_sigmoid;
    /// Squares.
    square = mlx_square;
}

of_two! {
    /// Sums.
    add = mlx_add;
    /// Quotients.
    divide = mlx_divide;
    /// The product of matrices, the last two dimensions: `[.., m, k]` and `[.., k, n]`.
    matmul = mlx_matmul;
    /// The larger ones.
    maximum = mlx_maximum;
    /// The smaller ones.
    minimum = mlx_minimum;
    /// Products, element by element.
    multiply = mlx_multiply;
}

impl Stream {
    /// `a` where the condition holds, else `b`.
    pub(crate) fn choose(&self, condition: &Array, a: &Array, b: &Array) -> Result<Array, MlxError> {
        // SAFETY: live arrays and stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_where(out, condition.0, a.0, b.0, s) })
    }

    /// Whole numbers, halves to the even one.
    pub(crate) fn round(&self, a: &Array) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_round(out, a.0, 0, s) })
    }

    /// The same numbers in another type.
    pub(crate) fn cast(&self, a: &Array, dtype: Dtype) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_astype(out, a.0, dtype, s) })
    }

    /// The same numbers, in rows.
    pub(crate) fn in_rows(&self, a: &Array) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_contiguous(out, a.0, false, s) })
    }

    /// The largest of the last dimension, which stays with the length 1.
    pub(crate) fn max_last(&self, a: &Array) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_max_axis(out, a.0, -1, true, s) })
    }

    /// The sum over a dimension, which goes.
    pub(crate) fn sum(&self, a: &Array, axis: i32) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_sum_axis(out, a.0, axis, false, s) })
    }

    /// The softmax of the last dimension.
    pub(crate) fn softmax_last(&self, a: &Array) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_softmax_axis(out, a.0, -1, true, s) })
    }

    /// Arrays one behind the other along a dimension.
    pub(crate) fn concatenate(&self, arrays: &[&Array], axis: i32) -> Result<Array, MlxError> {
        let vector = Vector::new(arrays)?;
        // SAFETY: a live vector of live arrays, a live stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_concatenate_axis(out, vector.0, axis, s) })
    }

    /// Those elements of a dimension that have these numbers, `[..]`, in their place: `[.., rest]` for the first dimension.
    pub(crate) fn take(&self, a: &Array, numbers: &Array, axis: i32) -> Result<Array, MlxError> {
        // SAFETY: live arrays and stream, and a place for the result. The numbers are of the dimension: executors check
        // blocks and tokens first.
        self.fill(|out, s| unsafe { raw::mlx_take_axis(out, a.0, numbers.0, axis, s) })
    }

    /// `a`, `[rows, width]`, with the rows of these numbers `[n]` replaced by `updates` `[n, 1, width]`. `a`'s memory is used
    /// if nobody else has it.
    pub(crate) fn replace_rows(
        &self,
        a: &Array,
        numbers: &Array,
        updates: &Array,
    ) -> Result<Array, MlxError> {
        // SAFETY: live arrays and stream, and a place for the result. The numbers are of rows: executors check blocks first.
        self.fill(|out, s| unsafe { raw::mlx_scatter_single(out, a.0, numbers.0, updates.0, 0, s) })
    }

    /// Zeros.
    pub(crate) fn zeros(&self, shape: &[i32], dtype: Dtype) -> Result<Array, MlxError> {
        // SAFETY: a shape of so many dimensions, a live stream, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_zeros(out, shape.as_ptr(), shape.len(), dtype, s) })
    }

    /// The same elements in another shape.
    pub(crate) fn reshape(&self, a: &Array, shape: &[i32]) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, a shape of so many dimensions, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_reshape(out, a.0, shape.as_ptr(), shape.len(), s) })
    }

    /// The dimensions in another order.
    pub(crate) fn transpose(&self, a: &Array, axes: &[i32]) -> Result<Array, MlxError> {
        // SAFETY: a live array and stream, so many dimensions, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_transpose_axes(out, a.0, axes.as_ptr(), axes.len(), s) })
    }

    /// A part of one dimension, all of the others.
    pub(crate) fn part(
        &self,
        a: &Array,
        axis: usize,
        range: std::ops::Range<i32>,
    ) -> Result<Array, MlxError> {
        let mut stop = a.shape();
        let dims = stop.len();
        let (mut start, steps) = (vec![0; dims], vec![1; dims]);
        let (Some(first), Some(last)) = (start.get_mut(axis), stop.get_mut(axis)) else {
            return Err(MlxError::Device(format!("an array of {dims} dimensions has no dimension {axis}")));
        };
        (*first, *last) = (range.start, range.end);
        // SAFETY: a live array and stream, three lists of so many numbers, and a place for the result.
        self.fill(|out, s| unsafe {
            let (start, stop, steps) = (start.as_ptr(), stop.as_ptr(), steps.as_ptr());
            raw::mlx_slice(out, a.0, start, dims, stop, dims, steps, dims, s)
        })
    }

    /// The root-mean-square norm of the last dimension, times `weight` if there is one.
    pub(crate) fn rms_norm(&self, x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array, MlxError> {
        let weight = weight.map_or(RawArray::NULL, |weight| weight.0);
        // SAFETY: a live array and stream, a live weight or none, and a place for the result.
        self.fill(|out, s| unsafe { raw::mlx_fast_rms_norm(out, x.0, weight, eps, s) })
    }

    /// The product of rows `[n, columns]` and a ternary matrix, `[n, rows]`.
    pub(crate) fn ternary(&self, x: &Array, codes: &Codes) -> Result<Array, MlxError> {
        let some = |value| OptionalInt { value, has_value: true };
        let (group, bits, mode) = (some(codes.group), some(2), c_text("affine"));
        let (words, scales, biases) = (codes.words.0, codes.scales.0, codes.biases.0);
        // SAFETY: live arrays and stream, a name that ends with 0, and a place for the result.
        self.fill(|out, s| unsafe {
            raw::mlx_quantized_matmul(out, x.0, words, scales, biases, true, group, bits, mode.as_ptr(), s)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_an_error_in_the_words_of_mlx() {
        let stream = Stream::new(MlxWhere::Cpu).unwrap();
        let [a, b] = [3, 4].map(|n| Array::from_f32(&vec![1.0; n], &[n as i32]).unwrap());
        let error = stream.add(&a, &b).unwrap_err();
        assert!(matches!(&error, MlxError::Device(text) if text.contains("broadcast")), "{error:?}");
        assert!(matches!(Array::from_f32(&[1.0], &[2]), Err(MlxError::Unsupported(_))));
        assert!(matches!(Array::from_f32(&[1.0], &[-1]), Err(MlxError::Unsupported(_))));
        assert_eq!(stream.add(&a, &a).unwrap().f32s().unwrap(), [2.0; 3]);
        assert!(stream.transpose(&a, &[1]).is_err() && stream.part(&a, 1, 0..1).is_err());
        let other = std::thread::spawn(move || stream.square(&a).unwrap().f32s().unwrap().to_vec());
        assert_eq!(other.join().unwrap(), [1.0; 3], "a stream works on any thread");
    }

    /// Rows are replaced where they lie, if nobody else has the array: caches are never copied.
    #[test]
    fn rows_are_replaced_in_place() {
        let stream = Stream::new(MlxWhere::Cpu).unwrap();
        let mut rows = stream.zeros(&[64, 8], Dtype::F16).unwrap();
        super::super::eval(&[&rows]).unwrap();
        let place = rows.data().unwrap().as_ptr();
        for row in [5, 6] {
            let numbers = Array::from_i32(&[row], &[1]).unwrap();
            let updates = stream.cast(&Array::from_f32(&[1.0; 8], &[1, 1, 8]).unwrap(), Dtype::F16).unwrap();
            rows = stream.replace_rows(&rows, &numbers, &updates).unwrap();
            let taken = stream.take(&rows, &numbers, 0).unwrap();
            super::super::eval(&[&rows, &taken]).unwrap();
            assert_eq!(rows.data().unwrap().as_ptr(), place, "the rows were copied");
            assert_eq!(rows.data().unwrap()[16 * row as usize..][..2], [0, 0x3c]);
        }
    }

    #[test]
    fn pages_become_arrays_and_numbers_round_half_to_even() {
        let stream = Stream::new(MlxWhere::Cpu).unwrap();
        let mut pages = super::super::Pages::zeroed(64).unwrap();
        let values = [0.5f32, 1.5, -2.5, 3.49];
        pages.bytes_mut()[..16].copy_from_slice(bytemuck::cast_slice(&values));
        let all = Array::adopt(pages, Dtype::F32).unwrap();
        let few = stream.part(&all, 0, 0..4).unwrap();
        drop(all);
        assert_eq!(stream.round(&few).unwrap().f32s().unwrap(), [0.0, 2.0, -2.0, 3.0]);
    }
}
