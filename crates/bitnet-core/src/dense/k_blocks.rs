//! The blocks of 256 values: scales of small integers under one f16 scale.

use super::blocks::half_at;

/// 16 bytes of scale (low half) and offset (high half) for 16 values each, 64 bytes of codes, two f16.
pub(super) fn q2(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, offset) = (d * f32::from(block[group] & 15), dmin * f32::from(block[group] >> 4));
        let codes = &block[16 + 32 * (group / 8) + 16 * (group % 2)..][..16];
        let shift = 2 * (group / 2 % 4);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code >> shift & 3) - offset;
        }
    }
}

/// 32 bytes of third bits, 64 bytes of two-bit codes, 12 bytes with 16 scales of six bits, an f16.
pub(super) fn q3(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half_at(block, 108);
    let (high, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = if group < 8 { scales[group] & 15 } else { scales[group - 8] >> 4 };
        let scale = low | (scales[8 + group % 4] >> (2 * (group / 4)) & 3) << 4;
        let scale = d * f32::from(scale as i8 - 32);
        let (half, shift, start) = (group / 8, 2 * (group / 2 % 4), 16 * (group % 2));
        for (l, out) in out.iter_mut().enumerate() {
            let code = codes[32 * half + start + l] >> shift & 3;
            let above = high[start + l] >> (group / 2) & 1;
            *out = scale * f32::from(code as i8 - if above == 0 { 4 } else { 0 });
        }
    }
}

/// Scale and offset `at` (0 to 7) of the 12 bytes that hold eight pairs of six bits.
fn pair(scales: &[u8], at: usize) -> (f32, f32) {
    let (scale, offset) = if at < 4 {
        (scales[at] & 63, scales[at + 4] & 63)
    } else {
        let (low, above) = (scales[at + 4], at - 4);
        (low & 15 | scales[above] >> 6 << 4, low >> 4 | scales[at] >> 6 << 4)
    };
    (f32::from(scale), f32::from(offset))
}

/// Two f16, 12 bytes of scales, 128 bytes of codes: in each 32 bytes 32 values in the low halves, then 32 in the high.
pub(super) fn q4(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = pair(&block[4..16], group);
        let (scale, offset) = (d * scale, dmin * offset);
        let codes = &block[16 + 32 * (group / 2)..][..32];
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code >> (4 * (group % 2)) & 15) - offset;
        }
    }
}

/// As [`q4`], with 32 bytes of fifth bits before the codes.
pub(super) fn q5(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = pair(&block[4..16], group);
        let (scale, offset) = (d * scale, dmin * offset);
        let codes = &block[48 + 32 * (group / 2)..][..32];
        for ((out, code), high) in out.iter_mut().zip(codes).zip(&block[16..48]) {
            let code = code >> (4 * (group % 2)) & 15 | (high >> group & 1) << 4;
            *out = scale * f32::from(code) - offset;
        }
    }
}

/// 128 bytes of low halves, 64 bytes of upper two bits, 16 int8 scales, an f16.
pub(super) fn q6(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + group] as i8);
        for (l, out) in out.iter_mut().enumerate() {
            let [low, low_shift, high, high_shift] = q6_places(16 * group + l);
            let code = block[low] >> low_shift & 15 | (block[high] >> high_shift & 3) << 4;
            *out = scale * f32::from(code as i8 - 32);
        }
    }
}

/// Places of value `at` of a q6_K block: byte and shift of its low four bits, byte and shift of its upper two.
pub(super) const fn q6_places(at: usize) -> [usize; 4] {
    let (half, quarter, within) = (at / 128, at / 32 % 4, at % 32);
    [64 * half + 32 * (quarter % 2) + within, 4 * (quarter / 2), 128 + 32 * half + within, 2 * quarter]
}
