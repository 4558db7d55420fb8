//! [`BlockType`] and the blocks of 32 values, which have one scale and perhaps one offset each.

use half::f16;

use super::k_blocks;

/// Block types of ggml that tables and norms of GGUF files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 32 values of 4 bits around -8, with an f16 scale.
    Q4_0,
    /// 32 values of 4 bits, with an f16 scale and an f16 offset.
    Q4_1,
    /// 32 values of 5 bits around -16, with an f16 scale.
    Q5_0,
    /// 32 values of 5 bits, with an f16 scale and an f16 offset.
    Q5_1,
    /// 32 int8 values with an f16 scale.
    Q8_0,
    /// 256 values of 2 bits; 16 scales and offsets of 4 bits.
    Q2K,
    /// 256 values of 3 bits; 16 scales of 6 bits.
    Q3K,
    /// 256 values of 4 bits; 8 scales and offsets of 6 bits.
    Q4K,
    /// 256 values of 5 bits; 8 scales and offsets of 6 bits.
    Q5K,
    /// 256 values of 6 bits; 16 scales of 8 bits.
    Q6K,
}

impl BlockType {
    /// All block types.
    pub const ALL: [BlockType; 10] = [
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q2K,
        BlockType::Q3K,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
    ];

    /// The name of ggml, such as `q8_0` and `q6_K`.
    pub const fn name(self) -> &'static str {
        match self {
            BlockType::Q4_0 => "q4_0",
            BlockType::Q4_1 => "q4_1",
            BlockType::Q5_0 => "q5_0",
            BlockType::Q5_1 => "q5_1",
            BlockType::Q8_0 => "q8_0",
            BlockType::Q2K => "q2_K",
            BlockType::Q3K => "q3_K",
            BlockType::Q4K => "q4_K",
            BlockType::Q5K => "q5_K",
            BlockType::Q6K => "q6_K",
        }
    }

    /// Values in a block.
    #[allow(clippy::len_without_is_empty, reason = "no block is empty")]
    pub const fn len(self) -> usize {
        match self {
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q8_0 => 32,
            BlockType::Q2K | BlockType::Q3K | BlockType::Q4K | BlockType::Q5K | BlockType::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            BlockType::Q4_0 => 18,
            BlockType::Q4_1 => 20,
            BlockType::Q5_0 => 22,
            BlockType::Q5_1 => 24,
            BlockType::Q8_0 => 34,
            BlockType::Q2K => 84,
            BlockType::Q3K => 110,
            BlockType::Q4K => 144,
            BlockType::Q5K => 176,
            BlockType::Q6K => 210,
        }
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// If `bytes` are not exactly `out.len()` values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let whole =
            out.len().is_multiple_of(self.len()) && bytes.len() == out.len() / self.len() * self.bytes();
        assert!(whole, "{} bytes are not {} values of {}", bytes.len(), out.len(), self.name());
        match self {
            BlockType::Q4_0 => each(bytes, out, q4_0),
            BlockType::Q4_1 => each(bytes, out, q4_1),
            BlockType::Q5_0 => each(bytes, out, q5_0),
            BlockType::Q5_1 => each(bytes, out, q5_1),
            BlockType::Q8_0 => each(bytes, out, q8_0),
            BlockType::Q2K => each(bytes, out, k_blocks::q2),
            BlockType::Q3K => each(bytes, out, k_blocks::q3),
            BlockType::Q4K => each(bytes, out, k_blocks::q4),
            BlockType::Q5K => each(bytes, out, k_blocks::q5),
            BlockType::Q6K => each(bytes, out, k_blocks::q6),
        }
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Decodes block after block.
fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, out) = (bytes.as_chunks::<BYTES>().0, out.as_chunks_mut::<LEN>().0);
    blocks.iter().zip(out).for_each(|(block, out)| decode(block, out));
}

/// The f16 at byte `at`.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The 32 four-bit numbers of 16 bytes: first all low halves, then all high ones.
fn nibbles(bytes: &[u8], mut put: impl FnMut(usize, u8)) {
    for (j, byte) in bytes.iter().enumerate() {
        put(j, byte & 15);
        put(j + 16, byte >> 4);
    }
}

/// Bit `at` of the 32 fifth bits that begin at byte `start`, as the value 16.
fn fifth_bit(bytes: &[u8], start: usize, at: usize) -> u8 {
    (bytes[start + at / 8] >> (at % 8) & 1) << 4
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    nibbles(&block[2..], |i, code| out[i] = f32::from(code as i8 - 8) * scale);
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, offset) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..], |i, code| out[i] = f32::from(code) * scale + offset);
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    nibbles(&block[6..], |i, code| {
        out[i] = f32::from((code | fifth_bit(block, 2, i)) as i8 - 16) * scale;
    });
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, offset) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[8..], |i, code| out[i] = f32::from(code | fifth_bit(block, 4, i)) * scale + offset);
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (out, &code) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(code as i8) * scale;
    }
}
