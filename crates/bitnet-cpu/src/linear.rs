//! [`BitLinear`]: one quantised ternary layer on the calling thread, for benchmarks and for people who need just that.
//! Whole models go through [`crate::CpuExecutor`].

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::ThreadPool;
use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

use crate::kernels::{self, KernelSet, Product, Quantized, RowLayout, code_bytes};
use crate::layout::{Form, Packer, STRIP_ROWS, Strips};
use crate::shared::Shared;

/// `y = W x` with ternary `W` and `x` quantised to int8 on the way: the arithmetic of a BitLinear layer.
pub struct BitLinear {
    strips: Strips,
    rows: usize,
    cols: usize,
    kernels: &'static KernelSet,
    q: AlignedBuf<i8>,
    h: AlignedBuf<f32>,
    out: AlignedBuf<f32>,
}

/// Activation rows as a product reads them, with the scratch that it needs.
pub(crate) struct QuantizedRows {
    q: AlignedBuf<i8>,
    layout: RowLayout,
    row_sums: Vec<i32>,
    factors: Vec<f32>,
    codes: AlignedBuf<u8>,
}

impl BitLinear {
    /// Packs `matrix` in two bits a trit for the kernel set `kernels` (by default the fastest), as that set likes it best.
    ///
    /// # Errors
    /// If the matrix is damaged, the kernel set is not available or there is no memory.
    pub fn new(matrix: &TernaryMatrix, kernels: Option<&str>) -> Result<Self, ExecError> {
        let set = find(kernels)?;
        let form = if set.four_rows { Form::FourRows } else { Form::TwoBit };
        Self::with_form(matrix, Some(set.name), form)
    }

    /// As [`BitLinear::new`], in the given form.
    ///
    /// # Errors
    /// As [`BitLinear::new`].
    pub fn with_form(matrix: &TernaryMatrix, kernels: Option<&str>, form: Form) -> Result<Self, ExecError> {
        let kernels = find(kernels)?;
        let mut packer = Packer::new(form);
        packer.add("matrix".to_owned(), &[matrix]);
        let mut packed = packer.pack(&mut ThreadPool::new(1)?, &mut |_, _| {})?;
        let strips = packed.swap_remove(0);
        Ok(Self {
            rows: matrix.rows(),
            cols: matrix.cols(),
            kernels,
            q: AlignedBuf::zeroed(strips.padded_cols())?,
            h: AlignedBuf::zeroed(matrix.cols())?,
            out: AlignedBuf::zeroed(strips.strips() * STRIP_ROWS)?,
            strips,
        })
    }

    /// Name of the kernel set in use.
    pub fn kernel_set_name(&self) -> &'static str {
        self.kernels.name
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.strips.bytes()
    }

    /// Multiplies one activation row `[cols]`; the result is `[rows]`.
    ///
    /// # Panics
    /// If `x` is not `[cols]`.
    pub fn forward(&mut self, x: &[f32]) -> &[f32] {
        assert_eq!(x.len(), self.cols, "one activation for each column");
        // SAFETY: the kernel set is available, `out` has room for all strips and belongs to this call.
        unsafe {
            let done = (self.kernels.norm_quantize)(x, None, 0.0, &mut self.h, &mut self.q);
            let product = Product {
                form: self.strips.form(),
                strips: self.strips.range(0..self.strips.strips()),
                strip_bytes: self.strips.strip_bytes(),
                q: &self.q,
                layout: RowLayout::Single,
                row_sums: &[done.sum],
                factors: &[self.strips.parts()[0].scale / done.scale],
                out: self.out.as_mut_ptr(),
                stride: self.out.len(),
                accumulate: false,
            };
            (self.kernels.product)(&product, &mut []);
        }
        &self.out[..self.rows]
    }

    /// Multiplies several activation rows, `[count, cols]`, into `out`, `[count, padded_rows]`: the weights are read
    /// once for all of them. Same bits as row by row.
    ///
    /// # Errors
    /// If there is no memory for scratch.
    ///
    /// # Panics
    /// If `x` is not whole rows of `cols`, or `out` has not a row of [`BitLinear::padded_rows`] for each.
    pub fn forward_rows(&mut self, x: &[f32], out: &mut [f32]) -> Result<(), ExecError> {
        let (count, stride) = (x.len() / self.cols, self.padded_rows());
        assert_eq!((x.len(), out.len()), (count * self.cols, count * stride), "whole rows");
        if count == 0 {
            return Ok(());
        }
        if count == 1 {
            out[..self.rows].copy_from_slice(self.forward(x));
            return Ok(());
        }
        let mut rows = self.quantize_rows(x)?;
        self.multiply(&mut rows, out);
        Ok(())
    }

    /// Quantises activation rows, `[count, cols]`, at least one, and lays them out for [`BitLinear::multiply`].
    pub(crate) fn quantize_rows(&mut self, x: &[f32]) -> Result<QuantizedRows, ExecError> {
        let (count, padded) = (x.len() / self.cols, self.strips.padded_cols());
        let layout = self.kernels.row_layout_of(self.strips.form(), count);
        let codes = if count == 1 { 0 } else { code_bytes(count, padded) };
        let mut q = AlignedBuf::<i8>::zeroed(layout.len(count, padded))?;
        let rows = Shared::new(&mut q);
        let mut done = vec![Quantized::default(); count];
        for (i, (x, done)) in x.chunks_exact(self.cols).zip(&mut done).enumerate() {
            // SAFETY: the kernel set is available; the rows belong to this call.
            unsafe {
                *done = (self.kernels.norm_quantize)(x, None, 0.0, &mut self.h, &mut self.q);
                layout.place(&self.q, i, rows);
            }
        }
        let scale = self.strips.parts()[0].scale;
        Ok(QuantizedRows {
            q,
            layout,
            row_sums: done.iter().map(|d| d.sum).collect(),
            factors: done.iter().map(|d| scale / d.scale).collect(),
            codes: AlignedBuf::zeroed(codes)?,
        })
    }

    /// The product alone: `rows`, which this layer quantised, into `out`, `[count, padded_rows]`.
    ///
    /// # Panics
    /// If `out` has not a row for each, or `rows` are those of a layer of another shape.
    pub(crate) fn multiply(&self, rows: &mut QuantizedRows, out: &mut [f32]) {
        let stride = self.padded_rows();
        assert_eq!(out.len(), rows.row_sums.len() * stride, "whole rows");
        let product = Product {
            form: self.strips.form(),
            strips: self.strips.range(0..self.strips.strips()),
            strip_bytes: self.strips.strip_bytes(),
            q: &rows.q,
            layout: rows.layout,
            row_sums: &rows.row_sums,
            factors: &rows.factors,
            out: out.as_mut_ptr(),
            stride,
            accumulate: false,
        };
        // SAFETY: the kernel set is available, and `out` has room for all rows and strips.
        unsafe { (self.kernels.product)(&product, &mut rows.codes) };
    }

    /// Rows of the matrix, padded to whole strips: the length of an output row of [`BitLinear::forward_rows`].
    pub fn padded_rows(&self) -> usize {
        self.strips.strips() * STRIP_ROWS
    }
}

fn find(kernels: Option<&str>) -> Result<&'static KernelSet, ExecError> {
    kernels::choose(kernels).map_err(|what| ExecError::Unsupported { backend: "cpu", what })
}

impl std::fmt::Debug for BitLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BitLinear([{}, {}], {})", self.rows, self.cols, self.kernels.name)
    }
}

#[cfg(test)]
mod tests {
    use bitnet_core::bytes::ByteView;
    use bitnet_quant::codec::pack_hf;
    use bitnet_quant::{RowOrder, TritCodec};

    use super::*;

    #[test]
    fn several_rows_give_the_bits_of_one_row_in_every_form_and_set() {
        let (rows, cols, count) = (100, 300, 20);
        let trits: Vec<i8> = (0..rows * cols).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
        let bytes = ByteView::from_vec(pack_hf(&trits, rows, cols).unwrap());
        let matrix =
            TernaryMatrix::new(rows, cols, 0.7, TritCodec::HfPacked, RowOrder::Natural, bytes).unwrap();
        let x: Vec<f32> = (0..count * cols).map(|i| (i as f32 * 0.37).sin() * (i % 13) as f32).collect();
        let mut reference: Option<Vec<f32>> = None;
        for set in kernels::kernel_sets().into_iter().filter(|s| s.available) {
            for form in Form::ALL {
                let mut layer = BitLinear::with_form(&matrix, Some(set.name), form).unwrap();
                let stride = layer.padded_rows();
                let mut out = vec![f32::NAN; count * stride];
                layer.forward_rows(&x, &mut out).unwrap();
                let mut all = Vec::new();
                for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact(stride)) {
                    assert_eq!(layer.forward(x), &out[..rows], "{}, {form:?}", set.name);
                    all.extend_from_slice(&out[..rows]);
                }
                assert_eq!(reference.get_or_insert_with(|| all.clone()), &all, "{}, {form:?}", set.name);
            }
        }
    }
}
