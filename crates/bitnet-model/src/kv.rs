//! How keys and values are kept: [`KvType`], and the arithmetic of each type, shared by the oracle and the CPU kernels.
//!
//! * `f32`: as they are computed.
//! * `f16`: rounded to half precision when stored; everything else in f32.
//! * `int8`: a key (or value) row of one head is `scale * q` with `q` in `-127..=127`; queries are quantised likewise, so
//!   scores are exact integer sums, scaled. The weights of [`INT8_BLOCK`] positions together become integers `0..=255`
//!   by a factor of their own, so the weighted sum of values is an exact integer sum a block.
//!
//! Positions are attended to in ranges of [`RANGE`]: a softmax within each, merged in order. So a long context can be
//! shared among threads, and scores stay in the fastest cache, without a bit depending on either.

use std::str::FromStr;

use bitnet_core::lanes;

/// Positions with a softmax of their own.
pub const RANGE: usize = 256;
/// Positions whose weights share a factor when keys and values are int8.
pub const INT8_BLOCK: usize = 32;
/// The largest finite number of half precision.
const F16_MAX: f32 = 65504.0;
/// Adding it rounds a small number half to even and leaves the integer in the low bits.
const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23

/// How an executor keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    /// Single precision: four bytes an element.
    F32,
    /// Half precision: two bytes an element.
    #[default]
    F16,
    /// One byte an element and a scale for each row of a head.
    Int8,
}

impl KvType {
    /// All types, the most precise first.
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Int8];

    /// The name that [`FromStr`] reads.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Int8 => "int8",
        }
    }
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no [`KvType`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no KV cache type {0:?}; choose f32, f16 or int8 (also called q8_0)")]
pub struct UnknownKvType(pub String);

impl FromStr for KvType {
    type Err = UnknownKvType;

    fn from_str(name: &str) -> Result<Self, UnknownKvType> {
        match name.to_ascii_lowercase().as_str() {
            "f32" => Ok(KvType::F32),
            "f16" => Ok(KvType::F16),
            "int8" | "q8_0" => Ok(KvType::Int8),
            _ => Err(UnknownKvType(name.to_owned())),
        }
    }
}

/// Bits of `x` in half precision, rounded half to even; beyond its range the largest finite number of that sign.
/// Without branches, so that it vectorises.
#[inline(always)]
pub fn f16_bits(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let a = x.abs();
    let a = if a > F16_MAX { F16_MAX } else { a };
    let bits = a.to_bits();
    let normal = (bits.wrapping_add(0xfff + (bits >> 13 & 1)) >> 13).wrapping_sub(112 << 10);
    // One unit in the last place of 0.5 is the smallest half-precision number.
    let small = (a + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let magnitude = if a < f32::from_bits(0x3880_0000) { small } else { normal };
    sign | if x.is_nan() { 0x7e00 } else { magnitude as u16 }
}

/// The number of some [`f16_bits`]; finite ones only.
#[inline(always)]
pub fn f16_value(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000); // 2^112
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// Quantises a row to `q` in `-127..=127`; returns the scale by which `q` must be multiplied: the largest magnitude over
/// 127, or 0 for a row of zeros (or of numbers too small for a scale).
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn quantize_row(row: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(row.len(), q.len());
    let (scale, inverse) = scales(lanes::amax(row), 127.0);
    for (q, &x) in q.iter_mut().zip(row) {
        *q = ((x * inverse).clamp(-127.0, 127.0) + MAGIC).to_bits() as i8;
    }
    scale
}

/// Quantises the weights of one block to `q` in `0..=255`; returns the factor by which `q` must be multiplied. `row` has
/// no negative numbers.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn quantize_weights(row: &[f32], q: &mut [u8]) -> f32 {
    assert_eq!(row.len(), q.len());
    let (factor, inverse) = scales(lanes::max(row), 255.0);
    for (q, &x) in q.iter_mut().zip(row) {
        *q = ((x * inverse).clamp(0.0, 255.0) + MAGIC).to_bits() as u8;
    }
    factor
}

/// `max / steps` and its inverse, or zeros if the inverse is not a number.
#[inline(always)]
fn scales(max: f32, steps: f32) -> (f32, f32) {
    let inverse = steps / max;
    if inverse.is_finite() && max > 0.0 { (max / steps, inverse) } else { (0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::DType;

    #[test]
    fn names() {
        for t in KvType::ALL {
            assert_eq!(t.to_string().parse(), Ok(t));
        }
        assert_eq!("Q8_0".parse(), Ok(KvType::Int8));
        let error = "q4_0".parse::<KvType>().unwrap_err().to_string();
        assert!(error.contains("q4_0") && error.contains("int8"), "{error}");
    }

    #[test]
    fn half_precision_is_that_of_the_standard() {
        let exact = |bits: u16| {
            let mut out = [0.0];
            DType::F16.decode(&bits.to_le_bytes(), &mut out);
            out[0]
        };
        for bits in 0..0x7c00u16 {
            let value = exact(bits);
            assert_eq!(f16_value(bits), value, "{bits:x}");
            assert_eq!(f16_value(bits | 0x8000), -value, "{bits:x}");
            // The number itself, its neighbours, and the border to the next number.
            let next = if bits == 0x7bff { 65536.0 } else { exact(bits + 1) };
            let border = value + (next - value) / 2.0;
            for x in [value, value.next_up(), border.next_down(), border, border.next_up(), next.next_down()]
            {
                if x < 65504.0 {
                    let want = u16::from_le_bytes(DType::F16.encode(&[x])[..].try_into().unwrap());
                    assert_eq!(f16_bits(x), want, "{x:e}");
                    assert_eq!(f16_bits(-x), want | 0x8000, "-{x:e}");
                }
            }
        }
        for x in [65504.0, 65519.0, 65520.0, 1e9, f32::INFINITY] {
            assert_eq!((f16_bits(x), f16_bits(-x)), (0x7bff, 0xfbff), "{x}");
        }
        assert_eq!(f16_bits(1e-30), 0);
        assert_eq!(f16_bits(f32::NAN), 0x7e00);
    }

    #[test]
    fn rows_round_half_to_even_of_their_scale() {
        let mut q = [0i8; 6];
        assert_eq!(quantize_row(&[254.0, -254.0, 1.0, 3.0, -5.0, 0.0], &mut q), 2.0);
        assert_eq!(q, [127, -127, 0, 2, -2, 0]);
        let mut q = [1u8; 4];
        assert_eq!(quantize_weights(&[510.0, 1.0, 3.0, 0.0], &mut q), 2.0);
        assert_eq!(q, [255, 0, 2, 0]);
    }

    #[test]
    fn rows_without_a_scale_are_zeros() {
        for row in [[0.0; 3], [-0.0, 1e-40, 0.0]] {
            let (mut q, mut w) = ([9i8; 3], [9u8; 3]);
            assert_eq!((quantize_row(&row, &mut q), q), (0.0, [0; 3]));
            assert_eq!((quantize_weights(&row, &mut w), w), (0.0, [0; 3]));
        }
    }

    #[test]
    fn every_magnitude_stays_in_bounds() {
        for e in -120..120 {
            for m in 0..50 {
                let x = (1.0 + m as f32 / 50.0) * 2f32.powi(e);
                let (mut q, mut w) = ([0i8; 2], [0u8; 2]);
                let scale = quantize_row(&[x, -x], &mut q);
                assert_eq!(q, [127, -127], "{x:e}");
                assert!((scale * 127.0 / x - 1.0).abs() < 1e-6);
                quantize_weights(&[x, x / 2.0], &mut w);
                assert_eq!(w[0], 255, "{x:e}");
            }
        }
    }
}
