//! int8 activations: one symmetric scale a token row (absmax), the activation half of W1.58A8.
//!
//! `s = 127 / max(max|x|, 1e-5)`, `q = clamp(round_half_even(x * s), -128, 127)`. A product with trits `t` is then
//! `sum(q * t) * weight_scale / s`. See the BitNet b1.58 2B4T report (arXiv 2504.12285) and `AutoBitLinear` in
//! transformers.

/// Smallest magnitude that a row is scaled by, so that rows of zeros stay finite.
pub const AMAX_FLOOR: f32 = 1e-5;

/// The scale `s` of a row whose largest magnitude is `amax`.
#[inline(always)]
pub fn scale(amax: f32) -> f32 {
    127.0 / amax.max(AMAX_FLOOR)
}

/// Rounds half to even and clamps to int8. Vectorises on every target. NaN gives an unspecified value.
#[inline(always)]
pub fn round_to_i8(v: f32) -> i8 {
    // Adding 1.5 * 2^23 leaves no fraction bits: the addition itself rounds half to even, and the integer stands in
    // the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    (v.clamp(-128.0, 127.0) + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i8
}

/// Quantises one row; returns the scale `s` it was multiplied by.
///
/// # Panics
/// If the lengths differ.
pub fn quantize_row(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len(), "one int8 for each activation");
    let amax = x.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let s = scale(amax);
    for (q, &x) in q.iter_mut().zip(x) {
        *q = round_to_i8(x * s);
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_reference_vector() {
        let text = include_str!("../../../testdata/vectors/vectors.json");
        let v: serde_json::Value = serde_json::from_str(text).unwrap();
        let v = &v["act_quant"];
        let x: Vec<f32> =
            v["x_bf16_as_f32"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let want: Vec<i64> =
            v["q_f32_math"].as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect();
        let mut q = vec![0i8; x.len()];
        let s = quantize_row(&x, &mut q);
        assert_eq!(f64::from(s) as f32, v["f32_scale_127_over_absmax"].as_f64().unwrap() as f32);
        assert_eq!(q.iter().map(|&q| i64::from(q)).collect::<Vec<_>>(), want);
    }

    #[test]
    fn zeros_ties_and_limits() {
        let mut q = [1i8; 3];
        assert_eq!(quantize_row(&[0.0; 3], &mut q), 127.0 / 1e-5);
        assert_eq!(q, [0; 3]);
        for (v, want) in
            [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (127.4, 127), (200.0, 127), (-200.0, -128)]
        {
            assert_eq!(round_to_i8(v), want, "{v}");
        }
    }

    #[test]
    fn magic_rounding_is_round_half_even() {
        for i in -130_000..130_000 {
            let v = i as f32 / 1000.0;
            assert_eq!(i32::from(round_to_i8(v)), (v.round_ties_even() as i32).clamp(-128, 127), "{v}");
        }
    }
}
