//! The paged cache of keys and values on the device: one buffer a layer, in the layout of kv.wgsl.

use bitnet_core::MemorySize;
use bitnet_model::kv_rows::{KvPart, KvRows};
use bitnet_model::{KvType, ModelSpec};

use crate::device::Gpu;
use crate::error::WgpuError;
use crate::memory::{Buffer, Memory};

/// Positions in a block.
pub(crate) const BLOCK_SIZE: usize = 32;
const _: () = assert!(BLOCK_SIZE == bitnet_model::kv::INT8_BLOCK, "weights of a block share a factor");

/// Keys and values of all layers.
#[derive(Debug)]
pub(crate) struct KvCache {
    rows: KvRows,
    layers: Vec<Buffer>,
    /// Blocks that may be used, and blocks that the buffers have room for.
    blocks: usize,
    room: usize,
}

impl KvCache {
    pub(crate) fn new(spec: &ModelSpec, kv_type: KvType) -> Self {
        Self { rows: KvRows::new(spec, kv_type), layers: Vec::new(), blocks: 0, room: 0 }
    }

    /// The form of rows outside.
    pub(crate) fn rows(&self) -> KvRows {
        self.rows
    }

    /// Blocks that may be used.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The buffer of each layer; none before the first block.
    pub(crate) fn layers(&self) -> &[Buffer] {
        &self.layers
    }

    /// Words of a row of a head.
    fn row_words(&self) -> usize {
        self.rows.element_bytes() / 4
    }

    /// Words of a piece: what a head has in a block.
    fn piece_words(&self) -> usize {
        let scales = if self.rows.kv_type == KvType::Int8 { 2 * BLOCK_SIZE } else { 0 };
        2 * self.row_words() * BLOCK_SIZE + scales
    }

    /// Bytes of a block in one layer.
    pub(crate) fn layer_block_bytes(&self) -> u64 {
        4 * (self.rows.heads * self.piece_words()) as u64
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.rows.layers as u64 * self.layer_block_bytes()
    }

    /// Makes room for so many blocks; tells whether buffers are others now. Half as many again are taken where there is
    /// memory, so that growing step by step stays cheap.
    ///
    /// # Errors
    /// [`WgpuError::OutOfMemory`]; the blocks of before stay as they are.
    pub(crate) fn reserve(
        &mut self,
        gpu: &Gpu,
        memory: &mut Memory,
        count: usize,
    ) -> Result<bool, WgpuError> {
        if count <= self.room {
            self.blocks = self.blocks.max(count);
            return Ok(false);
        }
        let limit = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size);
        let most = (limit / self.layer_block_bytes()) as usize;
        if count > most {
            let needed = MemorySize::bytes(count as u64 * self.layer_block_bytes());
            return Err(WgpuError::OutOfMemory { needed, free: Some(MemorySize::bytes(limit)) });
        }
        let generous = (self.room + self.room / 2).clamp(count, most);
        let grown = match self.grow(gpu, memory, generous) {
            Err(WgpuError::OutOfMemory { .. }) if generous > count => self.grow(gpu, memory, count),
            other => other,
        };
        grown.map(|()| {
            self.blocks = count;
            true
        })
    }

    /// Replaces the buffers by larger ones with the same content, layer after layer. After a failure some are larger,
    /// which harms nobody.
    fn grow(&mut self, gpu: &Gpu, memory: &mut Memory, room: usize) -> Result<(), WgpuError> {
        let bytes = room as u64 * self.layer_block_bytes();
        for layer in 0..self.rows.layers {
            let known = self.layers.get(layer);
            if known.is_some_and(|known| known.buffer.size() >= bytes) {
                continue;
            }
            let larger = memory.take_exact(gpu, bytes)?;
            let Some(known) = self.layers.get_mut(layer) else {
                self.layers.push(larger);
                continue;
            };
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&known.buffer, 0, &larger.buffer, 0, known.buffer.size());
            gpu.queue.submit([encoder.finish()]);
            memory.give(std::mem::replace(known, larger));
            // Nobody asks for one of this size again.
            memory.trim(gpu);
            gpu.check()?;
        }
        self.room = room;
        Ok(())
    }

    /// Copies a block to another.
    ///
    /// # Errors
    /// [`WgpuError`].
    pub(crate) fn copy(&self, gpu: &Gpu, memory: &mut Memory, from: u32, to: u32) -> Result<(), WgpuError> {
        if from == to {
            return Ok(());
        }
        // A buffer cannot be copied to itself.
        let between = memory.take(gpu, self.block_bytes())?;
        let bytes = self.layer_block_bytes();
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (layer, at) in self.layers.iter().zip((0..).step_by(bytes as usize)) {
            encoder.copy_buffer_to_buffer(&layer.buffer, u64::from(from) * bytes, &between.buffer, at, bytes);
            encoder.copy_buffer_to_buffer(&between.buffer, at, &layer.buffer, u64::from(to) * bytes, bytes);
        }
        gpu.queue.submit([encoder.finish()]);
        memory.give(between);
        gpu.check()
    }

    /// Copies a block of all layers to a buffer for the host.
    fn gather(&self, gpu: &Gpu, memory: &mut Memory, block: u32) -> Result<Buffer, WgpuError> {
        let target = memory.take_readback(gpu, self.block_bytes())?;
        let bytes = self.layer_block_bytes();
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (layer, at) in self.layers.iter().zip((0..).step_by(bytes as usize)) {
            encoder.copy_buffer_to_buffer(&layer.buffer, u64::from(block) * bytes, &target.buffer, at, bytes);
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(target)
    }

    /// A block of all layers as it lies on the device.
    fn content(&self, gpu: &Gpu, memory: &mut Memory, block: u32) -> Result<Vec<u8>, WgpuError> {
        let target = self.gather(gpu, memory, block)?;
        let content = gpu.read(&target.buffer, self.block_bytes(), <[u8]>::to_vec);
        memory.give_readback(target);
        content
    }

    /// Gives the first positions of a block, in the form of [`KvRows`].
    ///
    /// # Errors
    /// [`WgpuError`].
    pub(crate) fn read(
        &self,
        gpu: &Gpu,
        memory: &mut Memory,
        block: u32,
        out: &mut [u8],
    ) -> Result<(), WgpuError> {
        let content = self.content(gpu, memory, block)?;
        self.each(out.len(), |outside, inside| out[outside] = content[inside]);
        Ok(())
    }

    /// Takes the first positions of a block.
    ///
    /// # Errors
    /// [`WgpuError`].
    pub(crate) fn write(
        &self,
        gpu: &mut Gpu,
        memory: &mut Memory,
        block: u32,
        bytes: &[u8],
    ) -> Result<(), WgpuError> {
        let mut content = self.content(gpu, memory, block)?;
        self.each(bytes.len(), |outside, inside| content[inside] = bytes[outside]);
        let size = self.layer_block_bytes();
        for (layer, content) in self.layers.iter().zip(content.chunks_exact(size as usize)) {
            gpu.upload(&layer.buffer, u64::from(block) * size, content)?;
        }
        Ok(())
    }

    /// For each of the first `len` bytes in the form of [`KvRows`]: the byte of a block that is the same.
    fn each(&self, len: usize, mut f: impl FnMut(usize, usize)) {
        let rows = self.rows;
        let (row_bytes, elements, words) = (rows.row_bytes(), rows.element_bytes(), self.row_words());
        for start in (0..len).step_by(rows.position_bytes()) {
            let slot = start / rows.position_bytes();
            for (row, (layer, part, head)) in rows.places().enumerate() {
                let piece = (layer * rows.heads + head) * self.piece_words();
                for byte in 0..row_bytes {
                    let word = match (byte < elements, part) {
                        (true, KvPart::Key) => byte / 4 * BLOCK_SIZE + slot,
                        (true, KvPart::Value) => words * BLOCK_SIZE + slot * words + byte / 4,
                        (false, KvPart::Key) => 2 * words * BLOCK_SIZE + slot,
                        (false, KvPart::Value) => (2 * words + 1) * BLOCK_SIZE + slot,
                    };
                    f(start + row * row_bytes + byte, 4 * (piece + word) + byte % 4);
                }
            }
        }
    }
}
