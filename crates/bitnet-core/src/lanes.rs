//! Float arithmetic in one fixed order: the part of the arithmetic contract that integers do not give for free.
//!
//! A sum of floats depends on its order. Here the order is fixed once: sixteen lanes, element `i` goes to lane
//! `i % 16`, lanes are folded 8 + 4 + 2 + 1 at the end; products are fused multiply-adds. The reference forward pass
//! calls these functions as they are; CPU kernels inline the same functions into code compiled for AVX2, AVX-512 or
//! NEON, where the lanes become vector registers. So every kernel set computes the same bits, by construction.
//!
//! The squares of a norm are summed in 256 lanes, folded 128 + 64 + ... + 1. Nothing can begin before a norm is there, so
//! its chains must be short: on a GPU each of 256 threads has one, and no CPU waits for a multiply-add to end.
//!
//! Without a fused multiply-add instruction the compiler calls the C library's `fmaf`: slow, but the same bits.

/// Lanes of every reduction.
pub const LANES: usize = 16;

/// Lanes of the sum of squares of a norm.
pub const NORM_LANES: usize = 256;

/// One partial sum a lane.
pub type Lanes = [f32; LANES];

/// Folds sixteen partial sums to one: `i + (i + 8)`, then 4, 2, 1.
#[inline(always)]
pub fn fold(acc: Lanes) -> f32 {
    fold_halves(acc)
}

/// Adds the upper half to the lower one until one is left.
#[inline(always)]
fn fold_halves<const N: usize>(mut acc: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            acc[i] += acc[i + width];
        }
        width /= 2;
    }
    acc[0]
}

/// `acc[i % N] = fma(a[i], b[i], acc[i % N])` for all `i`.
#[inline(always)]
fn accumulate<const N: usize>(acc: &mut [f32; N], a: &[f32], b: &[f32]) {
    let (a_whole, a_tail) = a.as_chunks::<N>();
    let (b_whole, b_tail) = b.as_chunks::<N>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for l in 0..N {
            acc[l] = a[l].mul_add(b[l], acc[l]);
        }
    }
    for (l, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
        acc[l] = a.mul_add(*b, acc[l]);
    }
}

/// Dot product.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut acc = [0.0; LANES];
    accumulate(&mut acc, a, b);
    fold(acc)
}

/// Sum.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let mut acc = [0.0; LANES];
    let (x16, tail) = x.as_chunks::<LANES>();
    for x in x16 {
        for l in 0..LANES {
            acc[l] += x[l];
        }
    }
    for (l, x) in tail.iter().enumerate() {
        acc[l] += x;
    }
    fold(acc)
}

/// Largest magnitude; 0 for an empty slice. NaN is passed over. Exact in any order.
#[inline(always)]
pub fn amax(x: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    let (x16, tail) = x.as_chunks::<LANES>();
    for x in x16 {
        for l in 0..LANES {
            let a = x[l].abs();
            acc[l] = if a > acc[l] { a } else { acc[l] };
        }
    }
    for (l, x) in tail.iter().enumerate() {
        let a = x.abs();
        acc[l] = if a > acc[l] { a } else { acc[l] };
    }
    acc.iter().fold(0.0, |m, &a| if a > m { a } else { m })
}

/// Largest value; negative infinity for an empty slice. NaN is passed over. Exact in any order.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (x16, tail) = x.as_chunks::<LANES>();
    for x in x16 {
        for l in 0..LANES {
            acc[l] = if x[l] > acc[l] { x[l] } else { acc[l] };
        }
    }
    for (l, &x) in tail.iter().enumerate() {
        acc[l] = if x > acc[l] { x } else { acc[l] };
    }
    acc.iter().fold(f32::NEG_INFINITY, |m, &a| if a > m { a } else { m })
}

/// The factor of a root-mean-square norm, `1 / sqrt(mean(x^2) + eps)`.
#[inline(always)]
pub fn rms_factor(x: &[f32], eps: f32) -> f32 {
    let mut acc = [0.0; NORM_LANES];
    accumulate(&mut acc, x, x);
    1.0 / (fold_halves(acc) / x.len() as f32 + eps).sqrt()
}

/// Root-mean-square norm: `out[i] = (x[i] * factor) * weight[i]`.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len());
    let factor = rms_factor(x, eps);
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = (x * factor) * w;
    }
}

/// `e^x` to about 1 ulp for `x <= 88`; 0 below -87. One polynomial for all targets, no branches, so that it vectorises.
///
/// `x = n ln2 + r`, `|r| <= ln2 / 2`; `e^r` by its Taylor polynomial of degree 7, whose error there is below 2^-27.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, which lands in the low bits
    // ln 2 in two parts: the first has few bits, so that its multiples are exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let c = x.clamp(-87.0, 88.0);
    let shifted = c.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, c));
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, c);
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, written as `x / (1 + e^-2u)`, which is the same and needs no
/// difference of nearly equal numbers.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    // 2 sqrt(2 / pi), and the same times 0.044715.
    const LINEAR: f32 = 1.595_769_2;
    const CUBIC: f32 = 0.071_354_814;
    x / (1.0 + exp(-(x * (x * x).mul_add(CUBIC, LINEAR))))
}

/// `max(0, x)^2`.
#[inline(always)]
pub fn relu2(x: f32) -> f32 {
    let p = if x > 0.0 { x } else { 0.0 };
    p * p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst = 0.0f64;
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            worst = worst.max(((got - want) / want).abs());
        }
        assert!(worst < 2e-7, "relative error {worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    fn want_squares(x: &[f32]) -> f64 {
        x.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
    }

    #[test]
    fn reductions_match_f64_and_handle_tails() {
        for n in [0usize, 1, 15, 16, 17, 31, 64, 100, 256, 257, 700] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 19) as f32 - 9.0) / 4.0).collect();
            let want = want_squares(&x);
            assert!((f64::from(dot(&x, &x)) - want).abs() < 1e-3, "{n}");
            let want: f64 = x.iter().map(|&v| f64::from(v)).sum();
            assert!((f64::from(sum(&x)) - want).abs() < 1e-3, "{n}");
            if n > 0 {
                let want = 1.0 / (want_squares(&x) / n as f64 + 1e-5).sqrt();
                assert!((f64::from(rms_factor(&x, 1e-5)) / want - 1.0).abs() < 1e-6, "{n}");
            }
            assert_eq!(amax(&x), x.iter().fold(0.0f32, |m, v| m.max(v.abs())), "{n}");
            assert_eq!(max(&x), x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v)), "{n}");
        }
    }

    #[test]
    fn the_order_is_by_sixteen_lanes() {
        // 2^24 + 1 loses the 1 in f32; the result shows which elements met first.
        let mut x = vec![0.0f32; 32];
        (x[0], x[1], x[16]) = (16_777_216.0, 1.0, 1.0);
        assert_eq!(sum(&x), 16_777_216.0);
        (x[9], x[16]) = (1.0, 0.0);
        assert_eq!(sum(&x), 16_777_218.0, "lanes 1 and 9 meet before lane 0");
    }

    #[test]
    fn activations() {
        assert_eq!(relu2(-3.0), 0.0);
        assert_eq!(relu2(3.0), 9.0);
        assert!((silu(2.0) - 1.761_594).abs() < 1e-6);
        assert!(silu(-200.0).abs() < 1e-30);
        assert_eq!(silu(100.0), 100.0);
    }

    #[test]
    fn gelu_is_close_to_its_definition() {
        for i in -120_000..120_000 {
            let x = i as f32 / 10_000.0;
            let d = f64::from(x);
            let u = (2.0 / std::f64::consts::PI).sqrt() * (d + 0.044715 * d * d * d);
            let want = d / (1.0 + (-2.0 * u).exp());
            let error = (f64::from(gelu_tanh(x)) - want).abs();
            // The argument of exp, 2u, carries the roundings of three operations.
            assert!(error <= want.abs() * (3e-7 + 4e-7 * u.abs()) + 1e-36, "{x}: {error}");
        }
        assert_eq!((gelu_tanh(0.0), gelu_tanh(100.0)), (0.0, 100.0));
        assert!(gelu_tanh(-1e9).abs() < 1e-28);
    }
}
