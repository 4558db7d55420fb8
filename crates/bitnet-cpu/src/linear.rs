//! [`BitLinear`]: one quantised ternary layer on the calling thread, for benchmarks and for people who need just that.

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::ThreadPool;
use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

use crate::kernels::{self, KernelSet, Product};
use crate::layout::{Form, Packer, STRIP_ROWS, Strips};

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

impl BitLinear {
    /// Packs `matrix` in two bits a trit for the kernel set `kernels` (by default the fastest).
    ///
    /// # Errors
    /// If the matrix is damaged, the kernel set is not available or there is no memory.
    pub fn new(matrix: &TernaryMatrix, kernels: Option<&str>) -> Result<Self, ExecError> {
        Self::with_form(matrix, kernels, Form::TwoBit)
    }

    /// As [`BitLinear::new`], in the given form.
    ///
    /// # Errors
    /// As [`BitLinear::new`].
    pub fn with_form(matrix: &TernaryMatrix, kernels: Option<&str>, form: Form) -> Result<Self, ExecError> {
        let kernels =
            kernels::choose(kernels).map_err(|what| ExecError::Unsupported { backend: "cpu", what })?;
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
}

impl std::fmt::Debug for BitLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BitLinear([{}, {}], {})", self.rows, self.cols, self.kernels.name)
    }
}
