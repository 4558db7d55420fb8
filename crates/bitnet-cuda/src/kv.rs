//! The paged cache of keys and values on the device. Its layout is described in `kernels/kv.cuh`.

use bitnet_core::device_pool::Lent;
use bitnet_model::kv_rows::{KvPart, KvRows};
use bitnet_model::{KvType, ModelSpec};

use crate::gpu::Address;
use crate::memory::Memory;
use crate::{BLOCK_SIZE, CudaError};

/// Heads are padded to so many elements, a vector of the narrowest type.
const PADDING: usize = 16;

/// Sizes and places within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvLayout {
    pub(crate) kv_type: KvType,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

impl KvLayout {
    pub(crate) fn new(spec: &ModelSpec, kv_type: KvType) -> Self {
        let (layers, heads, head_dim) = (spec.num_layers, spec.num_kv_heads, spec.head_dim);
        Self { kv_type, layers, heads, head_dim }
    }

    /// The number that kernels know the type by.
    pub(crate) fn type_code(self) -> u32 {
        match self.kv_type {
            KvType::F32 => 0,
            KvType::F16 => 1,
            KvType::Int8 => 2,
        }
    }

    fn element_bytes(self) -> usize {
        match self.kv_type {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Int8 => 1,
        }
    }

    /// Elements of a padded head.
    pub(crate) fn padded_dim(self) -> usize {
        self.head_dim.next_multiple_of(PADDING)
    }

    /// Bytes of the keys of a piece; values take as many.
    pub(crate) fn key_bytes(self) -> usize {
        self.padded_dim() * BLOCK_SIZE * self.element_bytes()
    }

    /// Bytes of what one head has in a block.
    pub(crate) fn piece_bytes(self) -> usize {
        let scales = if self.kv_type == KvType::Int8 { 2 * BLOCK_SIZE * size_of::<f32>() } else { 0 };
        2 * self.key_bytes() + scales
    }

    /// Bytes of a layer in a block.
    pub(crate) fn layer_bytes(self) -> usize {
        self.heads * self.piece_bytes()
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
        self.layers * self.layer_bytes()
    }

    /// Where element `e` of a row lies within a piece.
    fn element_at(self, part: KvPart, slot: usize, e: usize) -> usize {
        let (bytes, vector) = (self.element_bytes(), 16 / self.element_bytes());
        match part {
            KvPart::Key => ((e / vector * BLOCK_SIZE + slot) * vector + e % vector) * bytes,
            KvPart::Value => self.key_bytes() + (slot * self.padded_dim() + e) * bytes,
        }
    }

    fn scale_at(self, part: KvPart, slot: usize) -> usize {
        let index = if part == KvPart::Key { slot } else { BLOCK_SIZE + slot };
        2 * self.key_bytes() + index * size_of::<f32>()
    }

    /// The form in which the content of blocks leaves and comes back.
    pub(crate) fn rows(self) -> KvRows {
        let Self { kv_type, layers, heads, head_dim } = self;
        KvRows { kv_type, layers, heads, head_dim }
    }

    /// Calls `visit` with each range of bytes of a block that belongs together, and the range of the rows' form that it
    /// corresponds to, for the first `positions`.
    fn for_each_piece(self, positions: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let rows = self.rows();
        let bytes = self.element_bytes();
        for slot in 0..positions {
            for (index, (layer, part, head)) in rows.places().enumerate() {
                let piece = layer * self.layer_bytes() + head * self.piece_bytes();
                let row = slot * rows.position_bytes() + index * rows.row_bytes();
                let run = if part == KvPart::Key { 16 / bytes } else { self.head_dim };
                for e in (0..self.head_dim).step_by(run) {
                    let len = run.min(self.head_dim - e) * bytes;
                    visit(piece + self.element_at(part, slot, e), row + e * bytes, len);
                }
                if self.kv_type == KvType::Int8 {
                    let at = piece + self.scale_at(part, slot);
                    visit(at, row + rows.element_bytes(), size_of::<f32>());
                }
            }
        }
    }

    /// Gives the first positions of a block's bytes in the rows' form.
    pub(crate) fn give(self, block: &[u8], positions: usize, out: &mut [u8]) {
        self.for_each_piece(positions, |at, row, len| {
            out[row..row + len].copy_from_slice(&block[at..at + len]);
        });
    }

    /// Takes the first positions of a block's bytes from the rows' form.
    pub(crate) fn take(self, block: &mut [u8], positions: usize, rows: &[u8]) {
        self.for_each_piece(positions, |at, row, len| {
            block[at..at + len].copy_from_slice(&rows[row..row + len]);
        });
    }
}

/// All blocks.
pub(crate) struct KvCache {
    layout: KvLayout,
    /// Blocks that were reserved together lie in one allocation.
    slabs: Vec<Lent<Address>>,
    addresses: Vec<Address>,
}

impl KvCache {
    pub(crate) fn new(layout: KvLayout) -> Self {
        Self { layout, slabs: Vec::new(), addresses: Vec::new() }
    }

    pub(crate) fn layout(&self) -> KvLayout {
        self.layout
    }

    pub(crate) fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Address of a block that exists.
    pub(crate) fn address(&self, block: u32) -> Address {
        self.addresses[block as usize]
    }

    /// Makes blocks `0..count` usable.
    pub(crate) fn reserve(&mut self, memory: &mut Memory, count: usize) -> Result<(), CudaError> {
        let (have, bytes) = (self.count(), self.layout.block_bytes());
        if count > have {
            let slab = memory.take_exact((count - have).saturating_mul(bytes))?;
            self.addresses.extend((0..count - have).map(|i| slab.buffer + (i * bytes) as u64));
            self.slabs.push(slab);
        }
        Ok(())
    }

    /// Copies one block, which exists, to another.
    pub(crate) fn copy(&self, memory: &mut Memory, from: u32, to: u32) -> Result<(), CudaError> {
        if from == to {
            return Ok(());
        }
        memory.gpu.copy(self.address(from), self.address(to), self.layout.block_bytes() as u64)
    }

    /// Gives the first positions of a block.
    pub(crate) fn read(
        &self,
        memory: &mut Memory,
        block: u32,
        positions: usize,
        out: &mut [u8],
    ) -> Result<(), CudaError> {
        let mut bytes = vec![0; self.layout.block_bytes()];
        memory.download(self.address(block), &mut bytes)?;
        self.layout.give(&bytes, positions, out);
        Ok(())
    }

    /// Takes the first positions of a block.
    pub(crate) fn write(
        &self,
        memory: &mut Memory,
        block: u32,
        positions: usize,
        rows: &[u8],
    ) -> Result<(), CudaError> {
        let mut bytes = vec![0; self.layout.block_bytes()];
        memory.download(self.address(block), &mut bytes)?;
        self.layout.take(&mut bytes, positions, rows);
        memory.upload(self.address(block), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_model::kv_rows::row_scale;

    #[test]
    fn every_byte_comes_back_and_none_is_shared() {
        for kv_type in KvType::ALL {
            let layout = KvLayout { kv_type, layers: 2, heads: 3, head_dim: 20 };
            let rows: Vec<u8> =
                (0..BLOCK_SIZE * layout.rows().position_bytes()).map(|i| (i * 31 + i / 251) as u8).collect();
            let mut block = vec![0; layout.block_bytes()];
            layout.take(&mut block, BLOCK_SIZE, &rows);
            let mut again = vec![0; rows.len()];
            layout.give(&block, BLOCK_SIZE, &mut again);
            assert_eq!(again, rows);
            if kv_type == KvType::Int8 {
                let scale = row_scale(&rows[layout.rows().element_bytes()..]);
                let want = row_scale(&block[layout.scale_at(KvPart::Key, 0)..]);
                assert_eq!(scale.to_bits(), want.to_bits());
            }
        }
    }
}
