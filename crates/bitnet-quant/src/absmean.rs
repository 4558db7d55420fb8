//! Ternary weights from full-precision masters (absmean), the weight half of W1.58A8.
//!
//! Over the whole tensor: `inv = 1 / max(mean|W|, 1e-5)`, `t = clamp(round_half_even(W * inv), -1, 1)`,
//! `weight_scale = 1 / inv` (BitNet b1.58, arXiv 2402.17764, and `WeightQuant` in transformers, which computes in f32).
//!
//! absmean is not idempotent: run again on a tensor that is already `{-a, 0, +a}` it would shrink the scale by the
//! share of non-zeros. Such tensors are recognised and keep `a`.

use bitnet_core::DenseType;

use crate::{QuantError, Result};

/// How a master tensor becomes trits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AbsMean {
    /// What a weight is multiplied by before rounding.
    pub inv: f32,
    /// What a trit stands for, the multiplier of the product.
    pub scale: f32,
    /// Whether the tensor had at most the three values `-a, 0, +a`.
    pub already_ternary: bool,
}

/// Rounds one master weight to a trit.
#[inline(always)]
pub fn trit(weight: f32, inv: f32) -> i8 {
    crate::absmax::round_to_i8((weight * inv).clamp(-1.0, 1.0))
}

/// Measures a master tensor that is stored as `dtype`. The mean is accumulated in f64.
///
/// # Errors
/// [`QuantError::NotFinite`] if a weight is infinite or not a number.
///
/// # Panics
/// If `bytes` is not a whole number of elements or blocks.
pub fn measure(dtype: impl Into<DenseType>, bytes: &[u8]) -> Result<AbsMean> {
    // Whole blocks of every type.
    const CHUNK: usize = 4096;
    let dtype = dtype.into();
    let count = dtype.values_in(bytes.len()).expect("whole elements or blocks");
    let mut buf = [0.0f32; CHUNK];
    let mut sum = 0.0f64;
    let mut max = 0.0f32;
    let mut least_non_zero = f32::INFINITY;
    let chunk_bytes = CHUNK / dtype.block_len() * dtype.block_bytes();
    for (i, part) in bytes.chunks(chunk_bytes).enumerate() {
        let values = &mut buf[..part.len() / dtype.block_bytes() * dtype.block_len()];
        dtype.decode(part, values);
        let mut part_sum = 0.0f64;
        for v in values.iter() {
            let a = v.abs();
            part_sum += f64::from(a);
            max = max.max(a);
            least_non_zero = if a > 0.0 { least_non_zero.min(a) } else { least_non_zero };
        }
        if !part_sum.is_finite() {
            let at = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
            return Err(QuantError::NotFinite { index: i * CHUNK + at, value: values[at] });
        }
        sum += part_sum;
    }
    if max > 0.0 && least_non_zero == max {
        return Ok(AbsMean { inv: 1.0 / max, scale: max, already_ternary: true });
    }
    let mean = if count == 0 { 0.0 } else { (sum / count as f64) as f32 };
    let inv = 1.0 / mean.max(1e-5);
    Ok(AbsMean { inv, scale: 1.0 / inv, already_ternary: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::DType;

    fn trits(dtype: DType, w: &[f32]) -> (AbsMean, Vec<i8>) {
        let m = measure(dtype, &dtype.encode(w)).unwrap();
        (m, w.iter().map(|&w| trit(w, m.inv)).collect())
    }

    #[test]
    fn equals_the_reference_vector() {
        let text = include_str!("../../../testdata/vectors/vectors.json");
        let v: serde_json::Value = serde_json::from_str(text).unwrap();
        let flat = |v: &serde_json::Value| -> Vec<f64> {
            v.as_array()
                .unwrap()
                .iter()
                .flat_map(|r| r.as_array().unwrap())
                .map(|x| x.as_f64().unwrap())
                .collect()
        };
        let v = &v["weight_quant"];
        let w: Vec<f32> = flat(&v["w"]).iter().map(|&x| x as f32).collect();
        let (m, t) = trits(DType::F32, &w);
        assert_eq!(m.scale, v["absmean_f32"].as_f64().unwrap() as f32);
        let want: Vec<i8> = flat(&v["ternary_half_even"]).iter().map(|&x| x as i8).collect();
        assert_eq!(t, want);
    }

    #[test]
    fn ternary_input_keeps_its_scale() {
        let (m, t) = trits(DType::BF16, &[0.75, 0.0, -0.75, 0.0, 0.0, 0.75]);
        assert!(m.already_ternary);
        assert_eq!(m.scale, 0.75);
        assert_eq!(t, [1, 0, -1, 0, 0, 1]);
    }

    #[test]
    fn zeros_and_bad_values() {
        let (m, t) = trits(DType::F16, &[0.0; 4]);
        assert_eq!((m.scale, t), (1.0 / (1.0 / 1e-5), vec![0; 4]));
        let mut w = vec![1.0; 5000];
        w[4999] = f32::NAN;
        let err = measure(DType::F32, &DType::F32.encode(&w)).unwrap_err();
        assert!(matches!(err, QuantError::NotFinite { index: 4999, .. }));
    }
}
