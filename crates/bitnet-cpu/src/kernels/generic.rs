//! Float operations, written once over sixteen lanes and inlined into every kernel set.
//!
//! The order of every reduction is that of the oracle. Functions are `inline(always)` so that they are compiled with the
//! target features of the function that calls them.

use bitnet_core::{DType, lanes};
use bitnet_model::Activation;
use bitnet_quant::absmax;

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
#[inline(always)]
pub(crate) fn attend(a: &Attend<'_>, scores: &mut [f32], out: &mut [f32]) {
    match a.heads {
        4 => attend_heads::<4>(a, scores, out),
        2 => attend_heads::<2>(a, scores, out),
        _ => {
            for (h, out) in out.chunks_exact_mut(a.head_dim).enumerate() {
                let query = &a.query[h * a.head_dim..][..a.head_dim];
                attend_heads::<1>(&Attend { query, heads: 1, ..*a }, scores, out);
            }
        }
    }
}

#[inline(always)]
fn attend_heads<const H: usize>(a: &Attend<'_>, scores: &mut [f32], out: &mut [f32]) {
    let d = a.head_dim;
    let blocks = a.positions.div_ceil(BLOCK_SIZE);
    let stride = blocks * BLOCK_SIZE;
    let scale = 1.0 / (d as f32).sqrt();
    for block in 0..blocks {
        let (keys, _) = (a.blocks)(block);
        let (keys, _) = keys.as_chunks::<BLOCK_SIZE>();
        let mut acc = [[0.0f32; BLOCK_SIZE]; H];
        for (i, key) in keys.iter().enumerate() {
            for h in 0..H {
                let q = a.query[h * d + i];
                for l in 0..BLOCK_SIZE {
                    acc[h][l] = q.mul_add(key[l], acc[h][l]);
                }
            }
        }
        for h in 0..H {
            for l in 0..BLOCK_SIZE {
                scores[h * stride + block * BLOCK_SIZE + l] = acc[h][l] * scale;
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
        let width = if d - start >= 64 { 64 } else { 16.min(d - start) };
        match width {
            64 => weigh_values::<H, 64>(a, scores, stride, start, &inverse, out),
            16 => weigh_values::<H, 16>(a, scores, stride, start, &inverse, out),
            _ => {
                for i in start..d {
                    weigh_values::<H, 1>(a, scores, stride, i, &inverse, out);
                }
            }
        }
        start += width;
    }
}

/// Elements `start .. start + W` of the weighted sum of values, for all heads.
#[inline(always)]
fn weigh_values<const H: usize, const W: usize>(
    a: &Attend<'_>,
    weights: &[f32],
    stride: usize,
    start: usize,
    inverse: &[f32; H],
    out: &mut [f32],
) {
    let d = a.head_dim;
    let mut acc = [[0.0f32; W]; H];
    for block in 0..a.positions.div_ceil(BLOCK_SIZE) {
        let (_, values) = (a.blocks)(block);
        let first = block * BLOCK_SIZE;
        for (j, value) in values.chunks_exact(d).take(a.positions - first).enumerate() {
            let value: &[f32; W] = value[start..start + W].as_array().expect("W elements");
            for h in 0..H {
                let w = weights[h * stride + first + j];
                for l in 0..W {
                    acc[h][l] = w.mul_add(value[l], acc[h][l]);
                }
            }
        }
    }
    for h in 0..H {
        for l in 0..W {
            out[h * d + start + l] = acc[h][l] * inverse[h];
        }
    }
}

/// Rows that the dense product runs side by side, to hide the latency of multiply-adds.
const DENSE_ROWS: usize = 8;

/// `out[r] = dot(row r, h)` for consecutive rows of `h.len()` elements of `dtype` in `rows`.
#[inline(always)]
pub(crate) fn dense(dtype: DType, rows: &[u8], h: &[f32], out: &mut [f32]) {
    match dtype {
        DType::BF16 => dense_rows::<2>(rows, h, out, bf16_to_f32),
        DType::F32 => dense_rows::<4>(rows, h, out, f32::from_le_bytes),
        DType::F16 => dense_rows::<2>(rows, h, out, f16_to_f32),
    }
}

/// bfloat16 to single, exact.
#[inline(always)]
fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// IEEE half to single, exact, without branches so that it vectorises without special instructions.
#[inline(always)]
fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    let h = u32::from(u16::from_le_bytes(bytes));
    // Exponent and mantissa moved to their place, then scaled by 2^112: right for normal and subnormal numbers.
    let scaled = f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let magnitude = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 | (h & 0x3ff) << 13 } else { scaled.to_bits() };
    f32::from_bits(magnitude | (h & 0x8000) << 16)
}

#[inline(always)]
fn dense_rows<const B: usize>(rows: &[u8], h: &[f32], out: &mut [f32], load: impl Fn([u8; B]) -> f32 + Copy) {
    let bytes = h.len() * B;
    assert_eq!(rows.len(), out.len() * bytes);
    let mut rows = rows.chunks_exact(bytes * DENSE_ROWS);
    let mut outs = out.chunks_exact_mut(DENSE_ROWS);
    for (rows, out) in rows.by_ref().zip(outs.by_ref()) {
        dense_block::<B, DENSE_ROWS>(rows, h, out, load);
    }
    for (row, out) in rows.remainder().chunks_exact(bytes).zip(outs.into_remainder()) {
        dense_block::<B, 1>(row, h, std::slice::from_mut(out), load);
    }
}

#[inline(always)]
fn dense_block<const B: usize, const R: usize>(
    rows: &[u8],
    h: &[f32],
    out: &mut [f32],
    load: impl Fn([u8; B]) -> f32 + Copy,
) {
    let (rows, _) = rows.as_chunks::<B>();
    let mut acc = [[0.0f32; lanes::LANES]; R];
    let (chunks, tail) = h.as_chunks::<{ lanes::LANES }>();
    for (c, h16) in chunks.iter().enumerate() {
        for r in 0..R {
            let row: &[[u8; B]; lanes::LANES] =
                rows[r * h.len() + c * lanes::LANES..][..lanes::LANES].as_array().expect("sixteen elements");
            for l in 0..lanes::LANES {
                acc[r][l] = h16[l].mul_add(load(row[l]), acc[r][l]);
            }
        }
    }
    for r in 0..R {
        let rest = &rows[r * h.len() + chunks.len() * lanes::LANES..][..tail.len()];
        for (l, (x, &w)) in tail.iter().zip(rest).enumerate() {
            acc[r][l] = x.mul_add(load(w), acc[r][l]);
        }
        out[r] = lanes::fold(acc[r]);
    }
}

/// Instantiates the float operations in a module, with the given attribute (target features) on each.
macro_rules! float_kernels {
    ($(#[$attribute:meta])*) => {
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
        pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
            bitnet_core::lanes::rms_norm(x, weight, eps, out);
        }

        $(#[$attribute])*
        pub(super) fn activate(activation: bitnet_model::Activation, gate: &mut [f32], up: &[f32]) {
            crate::kernels::generic::activate(activation, gate, up);
        }

        $(#[$attribute])*
        pub(super) fn attend(a: &crate::kernels::Attend<'_>, scores: &mut [f32], out: &mut [f32]) {
            crate::kernels::generic::attend(a, scores, out);
        }

        $(#[$attribute])*
        pub(super) fn dense(dtype: bitnet_core::DType, rows: &[u8], h: &[f32], out: &mut [f32]) {
            crate::kernels::generic::dense(dtype, rows, h, out);
        }
    };
}
pub(crate) use float_kernels;
