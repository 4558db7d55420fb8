//! How the values of a dense matrix are stored: one by one, or in blocks that share scales.
//!
//! * [`DenseType`]: either of the two, with the bytes of a row and its values as f32.
//! * [`BlockType`]: the block types of ggml.
//!
//! Decoding gives exactly the f32 that ggml's scalar code does, each product and difference rounded once.

mod blocks;
mod encode;
mod k_blocks;

pub use blocks::BlockType;

use crate::DType;

/// How the values of a dense matrix are stored. Rows are stored one after the other, each in whole elements or blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenseType {
    /// Every value for itself.
    Plain(DType),
    /// Blocks of values that share scales.
    Blocks(BlockType),
}

impl From<DType> for DenseType {
    fn from(dtype: DType) -> Self {
        DenseType::Plain(dtype)
    }
}

impl From<BlockType> for DenseType {
    fn from(blocks: BlockType) -> Self {
        DenseType::Blocks(blocks)
    }
}

impl DenseType {
    /// The usual name: `bf16`, `q8_0`, `q6_K`.
    pub const fn name(self) -> &'static str {
        match self {
            DenseType::Plain(dtype) => dtype.name(),
            DenseType::Blocks(blocks) => blocks.name(),
        }
    }

    /// Values that are stored together: a row must be a multiple of them.
    pub const fn block_len(self) -> usize {
        match self {
            DenseType::Plain(_) => 1,
            DenseType::Blocks(blocks) => blocks.len(),
        }
    }

    /// Bytes that [`block_len`](Self::block_len) values take.
    pub const fn block_bytes(self) -> usize {
        match self {
            DenseType::Plain(dtype) => dtype.size(),
            DenseType::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// Bytes of `count` values; `None` if they are not whole blocks or the number does not fit.
    pub fn bytes_of(self, count: usize) -> Option<usize> {
        let whole = count.is_multiple_of(self.block_len());
        whole.then(|| (count / self.block_len()).checked_mul(self.block_bytes())).flatten()
    }

    /// Values that `bytes` bytes hold; `None` if these are not whole blocks.
    pub fn values_in(self, bytes: usize) -> Option<usize> {
        bytes.is_multiple_of(self.block_bytes()).then(|| bytes / self.block_bytes() * self.block_len())
    }

    /// The element type, if values are stored one by one.
    pub const fn plain(self) -> Option<DType> {
        match self {
            DenseType::Plain(dtype) => Some(dtype),
            DenseType::Blocks(_) => None,
        }
    }

    /// Decodes whole blocks, at any alignment.
    ///
    /// # Panics
    /// If `bytes` are not exactly `out.len()` values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            DenseType::Plain(dtype) => dtype.decode(bytes, out),
            DenseType::Blocks(blocks) => blocks.decode(bytes, out),
        }
    }

    /// As [`decode`](Self::decode), to little-endian f32 elements.
    ///
    /// # Panics
    /// If `bytes` are not exactly as many values as `out` has room for.
    pub fn decode_to_bytes(self, bytes: &[u8], out: &mut [u8]) {
        const CHUNK: usize = 256;
        assert_eq!(self.bytes_of(out.len() / 4), Some(bytes.len()), "byte and element counts differ");
        // A chunk is whole blocks of every type.
        let chunk_bytes = CHUNK / self.block_len() * self.block_bytes();
        let mut values = [0.0f32; CHUNK];
        for (bytes, out) in bytes.chunks(chunk_bytes).zip(out.chunks_mut(4 * CHUNK)) {
            let values = &mut values[..out.len() / 4];
            self.decode(bytes, values);
            for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values.iter()) {
                *out = value.to_le_bytes();
            }
        }
    }
}

impl std::fmt::Display for DenseType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks() {
        let q6 = DenseType::from(BlockType::Q6K);
        assert_eq!((q6.bytes_of(512), q6.bytes_of(500), q6.values_in(420)), (Some(420), None, Some(512)));
        assert_eq!(q6.values_in(100), None);
        assert_eq!((q6.plain(), q6.to_string().as_str()), (None, "q6_K"));
        let half = DenseType::from(DType::F16);
        assert_eq!(
            (half.bytes_of(7), half.values_in(14), half.plain()),
            (Some(14), Some(7), Some(DType::F16))
        );
        assert_eq!(half.bytes_of(usize::MAX), None);
    }

    #[test]
    fn bytes_are_the_values_little_endian() {
        for dense in
            [DenseType::Plain(DType::BF16), DenseType::Blocks(BlockType::Q8_0), BlockType::Q4K.into()]
        {
            let count = 768;
            let bytes: Vec<u8> = (0..dense.bytes_of(count).unwrap()).map(|i| (i * 37 % 61) as u8).collect();
            let mut values = vec![0.0; count];
            dense.decode(&bytes, &mut values);
            let mut out = vec![0; 4 * count];
            dense.decode_to_bytes(&bytes, &mut out);
            assert_eq!(out, DType::F32.encode(&values), "{dense}");
        }
    }
}
