//! The paged key and value cache, in f32.
//!
//! A block holds [`BLOCK_SIZE`] positions of all layers. Within a block, layer after layer, first keys then values, head
//! after head:
//!
//! * keys are `[head_dim][BLOCK_SIZE]`: the scores of a query with a whole block are sums over `head_dim` of
//!   vectors, without horizontal additions;
//! * values are `[BLOCK_SIZE][head_dim]`: the weighted sum is a sum over positions of vectors.

use bitnet_core::buffer::AlignedBuf;
use bitnet_model::{ExecError, ModelSpec};

/// Positions in a block.
pub(crate) const BLOCK_SIZE: usize = 32;

/// All blocks of all layers.
pub(crate) struct KvCache {
    blocks: Vec<AlignedBuf<f32>>,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl KvCache {
    pub(crate) fn new(spec: &ModelSpec) -> Self {
        Self {
            blocks: Vec::new(),
            layers: spec.num_layers,
            kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
        }
    }

    /// Floats of one head's keys (or values) in one block.
    fn head_len(&self) -> usize {
        self.head_dim * BLOCK_SIZE
    }

    fn block_len(&self) -> usize {
        self.layers * 2 * self.kv_heads * self.head_len()
    }

    pub(crate) fn block_bytes(&self) -> usize {
        self.block_len() * size_of::<f32>()
    }

    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Makes blocks `0..count` usable.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), ExecError> {
        while self.blocks.len() < count {
            self.blocks.push(AlignedBuf::zeroed(self.block_len())?);
        }
        Ok(())
    }

    /// Offset of a head's keys in a block; the values of the layer lie `kv_heads * head_len` further.
    fn offset(&self, layer: usize, head: usize) -> usize {
        (layer * 2 * self.kv_heads + head) * self.head_len()
    }

    /// Keys and values of one head in one block.
    ///
    /// # Safety
    /// No thread writes to this head of the block meanwhile.
    #[inline]
    pub(crate) unsafe fn head(&self, block: u32, layer: usize, head: usize) -> (&[f32], &[f32]) {
        let buffer = &self.blocks[block as usize];
        let keys = self.offset(layer, head);
        let values = keys + self.kv_heads * self.head_len();
        assert!(head < self.kv_heads && values + self.head_len() <= buffer.len());
        // SAFETY: inside the buffer by the check above; the caller rules out writers.
        unsafe {
            (
                std::slice::from_raw_parts(buffer.as_raw().add(keys), self.head_len()),
                std::slice::from_raw_parts(buffer.as_raw().add(values), self.head_len()),
            )
        }
    }

    /// Writes the key of one position and head.
    ///
    /// # Safety
    /// No other thread touches this position and head meanwhile.
    pub(crate) unsafe fn write_key(&self, block: u32, slot: usize, layer: usize, head: usize, key: &[f32]) {
        let buffer = &self.blocks[block as usize];
        let start = self.offset(layer, head) + slot;
        assert!(head < self.kv_heads && slot < BLOCK_SIZE && key.len() == self.head_dim);
        assert!(start + (self.head_dim - 1) * BLOCK_SIZE < buffer.len());
        for (i, &k) in key.iter().enumerate() {
            // SAFETY: inside the buffer by the checks above; the caller rules out other users.
            unsafe { *buffer.as_raw().add(start + i * BLOCK_SIZE) = k };
        }
    }

    /// Writes the value of one position and head.
    ///
    /// # Safety
    /// No other thread touches this position and head meanwhile.
    pub(crate) unsafe fn write_value(
        &self,
        block: u32,
        slot: usize,
        layer: usize,
        head: usize,
        value: &[f32],
    ) {
        let buffer = &self.blocks[block as usize];
        let start = self.offset(layer, head) + self.kv_heads * self.head_len() + slot * self.head_dim;
        assert!(head < self.kv_heads && slot < BLOCK_SIZE && value.len() == self.head_dim);
        assert!(start + self.head_dim <= buffer.len());
        // SAFETY: inside the buffer by the checks above; the caller rules out other users.
        unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), buffer.as_raw().add(start), value.len()) };
    }
}
