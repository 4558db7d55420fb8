//! Float operations, written once over sixteen lanes and inlined into every kernel set.
//!
//! The order of every reduction is that of the oracle. Functions are `inline(always)` so that they are compiled with the
//! target features of the function that calls them. The hot ones work on a vector type, [`Lanes16`]; the others are
//! plain loops that compilers vectorise.

use bitnet_core::{DType, lanes};
use bitnet_model::Activation;
use bitnet_quant::absmax;

use super::lanes16::Lanes16;
use crate::kv::BLOCK_SIZE;

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
    }
}

/// Attention of one token for `heads` query heads that share one key/value head.
pub(crate) struct Attend<'a> {
    /// Rotated queries, `[heads][head_dim]`.
    pub(crate) query: &'a [f32],
    /// Query heads, 1, 2 or 4.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Positions to attend to.
    pub(crate) positions: usize,
    /// For each block of positions: keys of the head, `[head_dim][BLOCK_SIZE]`, and values, `[BLOCK_SIZE][head_dim]`.
    pub(crate) blocks: &'a dyn Fn(usize) -> (&'a [f32], &'a [f32]),
}

/// Runs `a`. `scores` is scratch of `heads * positions` rounded up to blocks, `out` is `[heads][head_dim]`.
///
/// # Safety
/// The processor can run `V`.
#[inline(always)]
pub(crate) unsafe fn attend<V: Lanes16>(a: &Attend<'_>, scores: &mut [f32], out: &mut [f32]) {
    let stride = a.positions.next_multiple_of(BLOCK_SIZE);
    assert!(
        a.query.len() == a.heads * a.head_dim
            && out.len() == a.query.len()
            && scores.len() >= a.heads * stride
    );
    // SAFETY: promised by the caller; the lengths were checked above.
    unsafe {
        match a.heads {
            4 => attend_heads::<V, 4>(a, scores, out),
            2 => attend_heads::<V, 2>(a, scores, out),
            _ => {
                for (h, out) in out.chunks_exact_mut(a.head_dim).enumerate() {
                    let query = &a.query[h * a.head_dim..][..a.head_dim];
                    attend_heads::<V, 1>(&Attend { query, heads: 1, ..*a }, scores, out);
                }
            }
        }
    }
}

/// # Safety
/// As [`attend`], with `H` heads.
#[inline(always)]
unsafe fn attend_heads<V: Lanes16, const H: usize>(a: &Attend<'_>, scores: &mut [f32], out: &mut [f32]) {
    let d = a.head_dim;
    let blocks = a.positions.div_ceil(BLOCK_SIZE);
    let stride = blocks * BLOCK_SIZE;
    let scale = 1.0 / (d as f32).sqrt();
    for block in 0..blocks {
        let (keys, _) = (a.blocks)(block);
        assert_eq!(keys.len(), d * BLOCK_SIZE);
        // SAFETY: keys are `[d][32]`, queries `[H][d]` and scores `[H][stride]`, as checked.
        unsafe {
            let mut acc = [[V::zero(); 2]; H];
            for i in 0..d {
                let key = keys.as_ptr().add(i * BLOCK_SIZE);
                let (low, high) = (V::load(key), V::load(key.add(16)));
                for h in 0..H {
                    let q = V::splat(*a.query.get_unchecked(h * d + i));
                    acc[h] = [q.fma(low, acc[h][0]), q.fma(high, acc[h][1])];
                }
            }
            for h in 0..H {
                let to = scores.as_mut_ptr().add(h * stride + block * BLOCK_SIZE);
                acc[h][0].mul(V::splat(scale)).store(to);
                acc[h][1].mul(V::splat(scale)).store(to.add(16));
            }
        }
    }
    let mut inverse = [0.0f32; H];
    for h in 0..H {
        let weights = &mut scores[h * stride..][..a.positions];
        let max = lanes::max(weights);
        for w in weights.iter_mut() {
            *w = lanes::exp(*w - max);
        }
        inverse[h] = 1.0 / lanes::sum(weights);
    }
    let mut start = 0;
    while start < d {
        // SAFETY: `start + width <= d`; the rest is as checked.
        unsafe {
            match d - start {
                64.. => {
                    weigh_values::<V, H, 4>(a, scores, stride, start, &inverse, out);
                    start += 64;
                }
                16..64 => {
                    weigh_values::<V, H, 1>(a, scores, stride, start, &inverse, out);
                    start += 16;
                }
                _ => {
                    weigh_tail::<H>(a, scores, stride, start, &inverse, out);
                    start = d;
                }
            }
        }
    }
}

/// Elements `start .. start + 16 * C` of the weighted sum of values, for all heads.
///
/// # Safety
/// As [`attend`]; the elements are inside the head.
#[inline(always)]
unsafe fn weigh_values<V: Lanes16, const H: usize, const C: usize>(
    a: &Attend<'_>,
    weights: &[f32],
    stride: usize,
    start: usize,
    inverse: &[f32; H],
    out: &mut [f32],
) {
    let d = a.head_dim;
    // SAFETY: values are `[32][d]`, weights `[H][stride]`, `out` is `[H][d]`; all promised by the caller.
    unsafe {
        let mut acc = [[V::zero(); C]; H];
        for block in 0..a.positions.div_ceil(BLOCK_SIZE) {
            let (_, values) = (a.blocks)(block);
            let first = block * BLOCK_SIZE;
            for j in 0..BLOCK_SIZE.min(a.positions - first) {
                let value = values.as_ptr().add(j * d + start);
                for h in 0..H {
                    let w = V::splat(*weights.get_unchecked(h * stride + first + j));
                    for c in 0..C {
                        acc[h][c] = w.fma(V::load(value.add(16 * c)), acc[h][c]);
                    }
                }
            }
        }
        for h in 0..H {
            for c in 0..C {
                let to = out.as_mut_ptr().add(h * d + start + 16 * c);
                acc[h][c].mul(V::splat(inverse[h])).store(to);
            }
        }
    }
}

/// The last elements of the weighted sum, fewer than sixteen, one by one.
#[inline(always)]
fn weigh_tail<const H: usize>(
    a: &Attend<'_>,
    weights: &[f32],
    stride: usize,
    start: usize,
    inverse: &[f32; H],
    out: &mut [f32],
) {
    let d = a.head_dim;
    for h in 0..H {
        for i in start..d {
            let mut sum = 0.0f32;
            for block in 0..a.positions.div_ceil(BLOCK_SIZE) {
                let (_, values) = (a.blocks)(block);
                let first = block * BLOCK_SIZE;
                for j in 0..BLOCK_SIZE.min(a.positions - first) {
                    sum = weights[h * stride + first + j].mul_add(values[j * d + i], sum);
                }
            }
            out[h * d + i] = sum * inverse[h];
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
            sums: &[i32; crate::kernels::int8::PANEL_ROWS],
            bounds: &crate::kernels::int8::PanelBounds,
            h: &crate::kernels::int8::Hidden,
            threshold: f32,
            out: &mut crate::kernels::int8::Intervals,
        ) -> bool {
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
        pub(super) fn attend(a: &crate::kernels::Attend<'_>, scores: &mut [f32], out: &mut [f32]) {
            // SAFETY: this function has the features of the vector type.
            unsafe { crate::kernels::generic::attend::<$vector>(a, scores, out) }
        }

        $(#[$attribute])*
        pub(super) fn dense(dtype: bitnet_core::DType, rows: &[u8], h: &[f32], out: &mut [f32]) {
            // SAFETY: this function has the features of the vector type.
            unsafe { crate::kernels::generic::dense::<$vector>(dtype, rows, h, out) }
        }
    };
}
pub(crate) use float_kernels;
