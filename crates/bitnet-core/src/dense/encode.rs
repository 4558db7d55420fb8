//! Writing the block types that conversions of tables produce: q8_0 and q4_0 with the bytes of ggml's reference code,
//! q6_K with scales found by least squares.

use half::f16;

use super::BlockType;
use super::k_blocks::q6_places;

impl BlockType {
    /// Whether [`encode`](Self::encode) can write it.
    pub const fn can_encode(self) -> bool {
        matches!(self, BlockType::Q4_0 | BlockType::Q8_0 | BlockType::Q6K)
    }

    /// Appends `values`, whole blocks, to `out`. Returns false, and appends nothing, for types that are not written and
    /// for values that are not whole blocks, not finite, or too large for an f16 scale.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let whole = values.len().is_multiple_of(self.len());
        let written = whole
            && match self {
                BlockType::Q8_0 => values.as_chunks().0.iter().all(|block| q8_0(block, out)),
                BlockType::Q4_0 => values.as_chunks().0.iter().all(|block| q4_0(block, out)),
                BlockType::Q6K => values.as_chunks().0.iter().all(|block| q6(block, out)),
                _ => false,
            };
        if !written {
            out.truncate(start);
        }
        written
    }
}

/// Appends a scale; false if f16 cannot hold it.
fn push_scale(scale: f32, out: &mut Vec<u8>) -> bool {
    let stored = f16::from_f32(scale);
    out.extend(stored.to_le_bytes());
    stored.is_finite()
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn q8_0(block: &[f32; 32], out: &mut Vec<u8>) -> bool {
    let largest = block.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    let fits = push_scale(scale, out);
    // Codes come from the scale before its rounding to f16, half away from zero, as in ggml.
    out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    fits && block.iter().all(|v| v.is_finite())
}

fn q4_0(block: &[f32; 32], out: &mut Vec<u8>) -> bool {
    // The first of the values of largest magnitude becomes the code 0, which is -8.
    let largest = block.iter().fold(0.0f32, |a, &v| if v.abs() > a.abs() { v } else { a });
    let scale = largest / -8.0;
    let inverse = inverse(scale);
    let fits = push_scale(scale, out);
    let code = |v: f32| ((v * inverse + 8.5) as u8).min(15);
    out.extend(block[..16].iter().zip(&block[16..]).map(|(&low, &high)| code(low) | code(high) << 4));
    fits && block.iter().all(|v| v.is_finite())
}

/// The scale with which codes of -32 to 31 come closest to 16 values, weighted by their squares.
fn q6_scale(values: &[f32; 16]) -> f32 {
    let largest = values.iter().fold(0.0f32, |a, &v| if v.abs() > a.abs() { v } else { a });
    if largest == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (largest / -32.0, f32::NEG_INFINITY);
    for step in -9i8..=9 {
        let inverse = -(32.0 + 0.1 * f32::from(step)) / largest;
        let (mut cross, mut square) = (0.0f32, 0.0f32);
        for &v in values {
            let code = q6_code(v, inverse);
            cross += v * v * v * code;
            square += v * v * code * code;
        }
        // The best scale for these codes is cross / square; it takes this much off the error.
        let gain = cross * cross / square;
        if square > 0.0 && gain > best_gain {
            (best, best_gain) = (cross / square, gain);
        }
    }
    best
}

fn q6_code(value: f32, inverse: f32) -> f32 {
    (value * inverse).round_ties_even().clamp(-32.0, 31.0)
}

fn q6(block: &[f32; 256], out: &mut Vec<u8>) -> bool {
    let groups = block.as_chunks::<16>().0;
    let mut scales = [0.0f32; 16];
    for (scale, values) in scales.iter_mut().zip(groups) {
        *scale = q6_scale(values);
    }
    let largest = scales.iter().fold(0.0f32, |a, &s| if s.abs() > a.abs() { s } else { a });
    // The scale of the largest magnitude becomes -128.
    let d = f16::from_f32(largest / -128.0).to_f32();
    let inverse_d = inverse(d);
    let mut bytes = [0u8; 210];
    for (group, values) in groups.iter().enumerate() {
        let scale = (scales[group] * inverse_d).round_ties_even().clamp(-128.0, 127.0) as i8;
        bytes[192 + group] = scale as u8;
        let inverse = inverse(d * f32::from(scale));
        for (l, &v) in values.iter().enumerate() {
            let code = (q6_code(v, inverse) as i8 + 32) as u8;
            let [low, low_shift, high, high_shift] = q6_places(16 * group + l);
            bytes[low] |= (code & 15) << low_shift;
            bytes[high] |= (code >> 4) << high_shift;
        }
    }
    bytes[208..].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    out.extend(bytes);
    d.is_finite() && block.iter().all(|v| v.is_finite())
}
