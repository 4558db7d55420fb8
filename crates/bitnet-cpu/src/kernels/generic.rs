//! Float operations, written once over sixteen lanes and inlined into every kernel set.
//!
//! The order of every reduction is that of the oracle. Functions are `inline(always)` so that they are compiled with the
//! target features of the function that calls them. The hot ones work on a vector type, [`Lanes16`]; the others are
//! plain loops that compilers vectorise.

use bitnet_core::{DType, lanes};
use bitnet_model::Activation;
use bitnet_quant::absmax;

use super::lanes16::Lanes16;

/// What a kernel needs to know of a quantised row.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Quantized {
    /// What the activations were multiplied by.
    pub(crate) scale: f32,
    /// Sum of the int8 values.
    pub(crate) sum: i32,
}

/// Norms `x` (if `weight` is given) and quantises it to `q`, whose padding is set to 0. `h` is scratch of `x`'s length.
#[inline(always)]
pub(crate) fn norm_quantize(
    x: &[f32],
    weight: Option<&[f32]>,
    eps: f32,
    h: &mut [f32],
    q: &mut [i8],
) -> Quantized {
    let n = x.len();
    match weight {
        Some(weight) => lanes::rms_norm(x, weight, eps, h),
        None => h.copy_from_slice(x),
    }
    let scale = absmax::scale(lanes::amax(h));
    let (head, pad) = q.split_at_mut(n);
    let mut sum = 0i32;
    for (q, &h) in head.iter_mut().zip(h.iter()) {
        *q = absmax::round_to_i8(h * scale);
        sum += i32::from(*q);
    }
    pad.fill(0);
    Quantized { scale, sum }
}

/// `gate = act(gate) * up`, element by element.
#[inline(always)]
pub(crate) fn activate(activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Relu2 => {
            for (g, &u) in gate.iter_mut().zip(up) {
                *g = lanes::relu2(*g) * u;
            }
        }
        Activation::Silu => {
            for (g, &u) in gate.iter_mut().zip(up) {
                *g = lanes::silu(*g) * u;
            }
        }
        Activation::Gelu => {
            for (g, &u) in gate.iter_mut().zip(up) {
                *g = lanes::gelu_tanh(*g) * u;
            }
        }
    }
}

/// Rows that the dense product runs side by side, to hide the latency of multiply-adds.
const DENSE_ROWS: usize = 8;

/// `out[r] = dot(row r, h)` for consecutive rows of `h.len()` elements of `dtype` in `rows`.
///
/// # Safety
/// The processor can run `V`.
#[inline(always)]
pub(crate) unsafe fn dense<V: Lanes16>(dtype: DType, rows: &[u8], h: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * h.len() * dtype.size());
    // SAFETY: promised by the caller; the length was checked above.
    unsafe {
        match dtype {
            DType::BF16 => {
                dense_rows::<V, 2>(rows, h, out, |p| V::load_bf16(p), |b| bf16_to_f32([b[0], b[1]]));
            }
            DType::F16 => {
                dense_rows::<V, 2>(rows, h, out, |p| V::load_f16(p), |b| f16_to_f32([b[0], b[1]]));
            }
            DType::F32 => {
                let one = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                dense_rows::<V, 4>(rows, h, out, |p| V::load(p.cast()), one);
            }
        }
    }
}

/// bfloat16 to single, exact.
#[inline(always)]
pub(crate) fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// IEEE half to single, exact, without branches so that it vectorises without special instructions.
#[inline(always)]
pub(crate) fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    let h = u32::from(u16::from_le_bytes(bytes));
    // Exponent and mantissa moved to their place, then scaled by 2^112: right for normal and subnormal numbers.
    let scaled = f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let magnitude = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 | (h & 0x3ff) << 13 } else { scaled.to_bits() };
    f32::from_bits(magnitude | (h & 0x8000) << 16)
}

/// # Safety
/// As [`dense`]; `load` reads sixteen elements of `B` bytes.
#[inline(always)]
unsafe fn dense_rows<V: Lanes16, const B: usize>(
    rows: &[u8],
    h: &[f32],
    out: &mut [f32],
    load: impl Fn(*const u8) -> V + Copy,
    one: impl Fn(&[u8]) -> f32 + Copy,
) {
    let bytes = h.len() * B;
    let mut rows = rows.chunks_exact(bytes * DENSE_ROWS);
    let mut outs = out.chunks_exact_mut(DENSE_ROWS);
    // SAFETY: each block gets as many rows as outputs; the rest is promised by the caller.
    unsafe {
        for (rows, out) in rows.by_ref().zip(outs.by_ref()) {
            dense_block::<V, B, DENSE_ROWS>(rows, h, out, load, one);
        }
        for (row, out) in rows.remainder().chunks_exact(bytes).zip(outs.into_remainder()) {
            dense_block::<V, B, 1>(row, h, std::slice::from_mut(out), load, one);
        }
    }
}

/// # Safety
/// As [`dense_rows`], with `R` rows and outputs.
#[inline(always)]
unsafe fn dense_block<V: Lanes16, const B: usize, const R: usize>(
    rows: &[u8],
    h: &[f32],
    out: &mut [f32],
    load: impl Fn(*const u8) -> V + Copy,
    one: impl Fn(&[u8]) -> f32 + Copy,
) {
    let (bytes, whole) = (h.len() * B, h.len() / lanes::LANES * lanes::LANES);
    // SAFETY: sixteen elements from column `c` on are inside `h` and, in each of the `R` rows, inside `rows`.
    let mut acc = unsafe {
        let mut acc = [V::zero(); R];
        let mut c = 0;
        while c < whole {
            let x = V::load(h.as_ptr().add(c));
            for r in 0..R {
                acc[r] = x.fma(load(rows.as_ptr().add(r * bytes + c * B)), acc[r]);
            }
            c += lanes::LANES;
        }
        acc.map(|a| a.to_array())
    };
    for r in 0..R {
        let rest = &rows[r * bytes + whole * B..(r + 1) * bytes];
        for (l, (x, w)) in h[whole..].iter().zip(rest.chunks_exact(B)).enumerate() {
            acc[r][l] = x.mul_add(one(w), acc[r][l]);
        }
        out[r] = lanes::fold(acc[r]);
    }
}

/// Instantiates the float operations in a module: for a vector type, with the given attribute (target features) on each.
macro_rules! float_kernels {
    ($vector:ty, $(#[$attribute:meta])*) => {
        $(#[$attribute])*
        pub(super) fn norm_quantize(
            x: &[f32],
            weight: Option<&[f32]>,
            eps: f32,
            h: &mut [f32],
            q: &mut [i8],
        ) -> crate::kernels::Quantized {
            crate::kernels::generic::norm_quantize(x, weight, eps, h, q)
        }

        $(#[$attribute])*
        pub(super) fn int8_row(
            dtype: bitnet_core::DType,
            bytes: &[u8],
            row: &mut [f32],
            q: &mut [i8],
        ) -> crate::kernels::int8::Int8Row {
            crate::kernels::int8::int8_row(dtype, bytes, row, q)
        }

        $(#[$attribute])*
        pub(super) fn int8_hidden(
            h: &[f32],
            units: &mut [f32],
            q: &mut [i8],
        ) -> crate::kernels::int8::Hidden {
            crate::kernels::int8::int8_hidden(h, units, q)
        }

        $(#[$attribute])*
        pub(super) fn int8_intervals(
            sums: &crate::kernels::int8::PartSums,
            bounds: &crate::kernels::int8::PanelBounds,
            h: &crate::kernels::int8::Hidden,
            threshold: f32,
            out: &mut crate::kernels::int8::Intervals,
        ) -> u32 {
            crate::kernels::int8::int8_intervals(sums, bounds, h, threshold, out)
        }

        $(#[$attribute])*
        pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
            bitnet_core::lanes::rms_norm(x, weight, eps, out);
        }

        $(#[$attribute])*
        pub(super) fn activate(activation: bitnet_model::Activation, gate: &mut [f32], up: &[f32]) {
            crate::kernels::generic::activate(activation, gate, up);
        }

        $(#[$attribute])*
        pub(super) fn attend(
            a: &crate::kernels::attention::Attend<'_, '_>,
            scratch: &mut crate::kernels::attention::AttendScratch,
            states: &mut [f32],
        ) {
            // SAFETY: this function has the features of the vector type.
            unsafe { crate::kernels::attention::attend::<$vector>(a, scratch, states) }
        }

        $(#[$attribute])*
        pub(super) fn merge_states(state: &mut [f32], next: &[f32]) {
            crate::kernels::attention::merge(state, next);
        }

        $(#[$attribute])*
        pub(super) fn encode_kv(kv_type: bitnet_model::KvType, row: &[f32], out: &mut [u8]) -> f32 {
            crate::kernels::attention::encode(kv_type, row, out)
        }

        $(#[$attribute])*
        pub(super) fn dense(dtype: bitnet_core::DType, rows: &[u8], h: &[f32], out: &mut [f32]) {
            // SAFETY: this function has the features of the vector type.
            unsafe { crate::kernels::generic::dense::<$vector>(dtype, rows, h, out) }
        }
    };
}
pub(crate) use float_kernels;
