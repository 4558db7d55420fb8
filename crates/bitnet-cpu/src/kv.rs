//! The paged key and value cache.
//!
//! A block holds [`BLOCK_SIZE`] positions of all layers; within it, layer after layer, head after head, one *piece*:
//! keys, values and, for int8, scales, so that what one head reads is one stretch of memory ([`KvLayout`]):
//!
//! * keys in f32 or f16 are `[head_dim][BLOCK_SIZE]`: the scores of a query with a whole block are sums over `head_dim`
//!   of vectors, without horizontal additions;
//! * values in f32 or f16 are `[BLOCK_SIZE][columns]`, `head_dim` padded with zeros to whole vectors: the weighted sum is
//!   a sum over positions of vectors;
//! * int8 keys are `[head_dim / 4][BLOCK_SIZE][4]`, rounded up and padded with zeros, each plus 128: a 32-bit lane holds
//!   four elements of one position, which a dot-product instruction multiplies with four of the query. They are stored
//!   unsigned because that instruction wants one unsigned factor;
//! * int8 values are `[BLOCK_SIZE / 4][columns][4]`: a 32-bit lane holds one element of four positions, which are
//!   multiplied with four weights;
//! * then the scales of the keys and those of the values, `[BLOCK_SIZE]` f32 each.

use bitnet_core::buffer::AlignedBuf;
pub(crate) use bitnet_model::kv_rows::KvPart;
use bitnet_model::kv_rows::{KvRows, row_scale};
use bitnet_model::{ExecError, KvType, ModelSpec};

/// Positions in a block.
pub(crate) const BLOCK_SIZE: usize = 32;
const _: () = assert!(BLOCK_SIZE == bitnet_model::kv::INT8_BLOCK, "weights of a block share a factor");
const _: () = assert!(bitnet_model::kv::RANGE.is_multiple_of(BLOCK_SIZE), "ranges are whole blocks");

/// Elements of a vector: rows of values are padded to it.
const LANES: usize = bitnet_core::lanes::LANES;

/// What one head has in one block. All parts are multiples of a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvLayout {
    pub(crate) kv_type: KvType,
    pub(crate) head_dim: usize,
}

impl KvLayout {
    /// Elements of a padded row of values.
    #[inline(always)]
    pub(crate) fn columns(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Groups of four elements in a row of int8 keys.
    #[inline(always)]
    pub(crate) fn quads(self) -> usize {
        self.head_dim.div_ceil(4)
    }

    /// Bytes of the keys, which come first.
    #[inline(always)]
    pub(crate) fn key_bytes(self) -> usize {
        match self.kv_type {
            KvType::F32 => self.head_dim * BLOCK_SIZE * 4,
            KvType::F16 => self.head_dim * BLOCK_SIZE * 2,
            KvType::Int8 => self.quads() * BLOCK_SIZE * 4,
        }
    }

    /// Where the scales begin, if there are any.
    #[inline(always)]
    pub(crate) fn scales_at(self) -> usize {
        let element = match self.kv_type {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Int8 => 1,
        };
        self.key_bytes() + self.columns() * BLOCK_SIZE * element
    }

    /// Bytes of a piece.
    #[inline(always)]
    pub(crate) fn piece_bytes(self) -> usize {
        let scales = if self.kv_type == KvType::Int8 { 2 * BLOCK_SIZE * size_of::<f32>() } else { 0 };
        self.scales_at() + scales
    }

    /// Bytes of one row as [`Self::place`] takes it.
    pub(crate) fn row_bytes(self) -> usize {
        match self.kv_type {
            KvType::F32 => self.head_dim * 4,
            KvType::F16 => self.head_dim * 2,
            KvType::Int8 => self.head_dim,
        }
    }

    /// Writes an encoded row to its slot of a piece. Padding is left as it is: that of int8 keys meets zeros of the query.
    ///
    /// # Safety
    /// `piece` points to [`Self::piece_bytes`] bytes, of which no other thread touches those of this row meanwhile.
    pub(crate) unsafe fn place(self, piece: *mut u8, slot: usize, part: KvPart, row: &[u8], scale: f32) {
        assert!(slot < BLOCK_SIZE && row.len() == self.row_bytes());
        // SAFETY: all offsets are inside the parts described at the top of this file, for a slot and a row as checked.
        unsafe {
            let values = piece.add(self.key_bytes());
            match (self.kv_type, part) {
                (KvType::F32, KvPart::Key) => scatter::<4>(piece.add(slot * 4), BLOCK_SIZE * 4, row),
                (KvType::F16, KvPart::Key) => scatter::<2>(piece.add(slot * 2), BLOCK_SIZE * 2, row),
                (KvType::Int8, KvPart::Key) => {
                    for (i, &e) in row.iter().enumerate() {
                        *piece.add((i / 4 * BLOCK_SIZE + slot) * 4 + i % 4) = e ^ 0x80;
                    }
                }
                (KvType::Int8, KvPart::Value) => {
                    scatter::<1>(values.add(slot / 4 * self.columns() * 4 + slot % 4), 4, row);
                }
                (KvType::F32 | KvType::F16, KvPart::Value) => {
                    let at = slot * self.columns() * (row.len() / self.head_dim);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), values.add(at), row.len());
                }
            }
            if self.kv_type == KvType::Int8 {
                let index = if part == KvPart::Key { slot } else { BLOCK_SIZE + slot };
                piece.add(self.scales_at()).cast::<f32>().add(index).write_unaligned(scale);
            }
        }
    }

    /// Reads what [`Self::place`] wrote to a slot; gives the scale, which means something for int8 only.
    pub(crate) fn take(self, piece: &[u8], slot: usize, part: KvPart, row: &mut [u8]) -> f32 {
        assert!(slot < BLOCK_SIZE && row.len() == self.row_bytes());
        let (keys, values) = piece.split_at(self.key_bytes());
        match (self.kv_type, part) {
            (KvType::F32, KvPart::Key) => gather::<4>(&keys[slot * 4..], BLOCK_SIZE * 4, row),
            (KvType::F16, KvPart::Key) => gather::<2>(&keys[slot * 2..], BLOCK_SIZE * 2, row),
            (KvType::Int8, KvPart::Key) => {
                for (i, e) in row.iter_mut().enumerate() {
                    *e = keys[(i / 4 * BLOCK_SIZE + slot) * 4 + i % 4] ^ 0x80;
                }
            }
            (KvType::Int8, KvPart::Value) => {
                gather::<1>(&values[slot / 4 * self.columns() * 4 + slot % 4..], 4, row);
            }
            (KvType::F32 | KvType::F16, KvPart::Value) => {
                let at = slot * self.columns() * (row.len() / self.head_dim);
                row.copy_from_slice(&values[at..at + row.len()]);
            }
        }
        let index = if part == KvPart::Key { slot } else { BLOCK_SIZE + slot };
        row_scale(&piece[self.scales_at()..].as_chunks::<4>().0.get(index).copied().unwrap_or_default())
    }
}

/// Reads elements of `N` bytes that begin `stride` bytes apart.
fn gather<const N: usize>(from: &[u8], stride: usize, row: &mut [u8]) {
    for (i, element) in row.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        element.copy_from_slice(&from[i * stride..i * stride + N]);
    }
}

/// Writes elements of `N` bytes so that they begin `stride` bytes apart.
///
/// # Safety
/// All of them are inside memory that this thread may write.
unsafe fn scatter<const N: usize>(out: *mut u8, stride: usize, row: &[u8]) {
    for (i, element) in row.as_chunks::<N>().0.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { out.add(i * stride).cast::<[u8; N]>().write_unaligned(*element) };
    }
}

/// All blocks of all layers.
pub(crate) struct KvCache {
    /// Blocks that were reserved together lie in one allocation, so that small blocks share huge pages too.
    slabs: Vec<AlignedBuf<u8>>,
    /// For each block its slab and where it begins there.
    blocks: Vec<(usize, usize)>,
    layout: KvLayout,
    layers: usize,
    kv_heads: usize,
}

impl KvCache {
    pub(crate) fn new(spec: &ModelSpec, kv_type: KvType) -> Self {
        Self {
            slabs: Vec::new(),
            blocks: Vec::new(),
            layout: KvLayout { kv_type, head_dim: spec.head_dim },
            layers: spec.num_layers,
            kv_heads: spec.num_kv_heads,
        }
    }

    pub(crate) fn layout(&self) -> KvLayout {
        self.layout
    }

    pub(crate) fn block_bytes(&self) -> usize {
        self.layers * self.kv_heads * self.layout.piece_bytes()
    }

    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Makes blocks `0..count` usable.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), ExecError> {
        let (have, bytes) = (self.blocks.len(), self.block_bytes());
        if count > have {
            self.slabs.push(AlignedBuf::zeroed((count - have).saturating_mul(bytes))?);
            let slab = self.slabs.len() - 1;
            self.blocks.extend((0..count - have).map(|i| (slab, i * bytes)));
        }
        Ok(())
    }

    /// Copies one block, which exists, to another.
    pub(crate) fn copy(&mut self, from: u32, to: u32) {
        let bytes = self.block_bytes();
        let ((from_slab, from), (to_slab, to)) = (self.blocks[from as usize], self.blocks[to as usize]);
        match self.slabs.get_disjoint_mut([from_slab, to_slab]) {
            Ok([source, target]) => target[to..to + bytes].copy_from_slice(&source[from..from + bytes]),
            Err(_) => self.slabs[from_slab].copy_within(from..from + bytes, to),
        }
    }

    /// The form in which the content of blocks is given and taken.
    pub(crate) fn rows(&self) -> KvRows {
        let KvLayout { kv_type, head_dim } = self.layout;
        KvRows { kv_type, layers: self.layers, heads: self.kv_heads, head_dim }
    }

    /// Gives the content of the first positions of a block, which exists.
    pub(crate) fn give(&self, block: u32, out: &mut [u8]) {
        let (rows, piece_bytes) = (self.rows(), self.layout.piece_bytes());
        let (slab, start) = self.blocks[block as usize];
        let pieces = &self.slabs[slab][start..start + self.block_bytes()];
        for (slot, out) in out.chunks_exact_mut(rows.position_bytes()).enumerate() {
            for ((layer, part, head), row) in rows.places().zip(out.chunks_exact_mut(rows.row_bytes())) {
                let piece = &pieces[(layer * self.kv_heads + head) * piece_bytes..][..piece_bytes];
                let (elements, scale) = row.split_at_mut(rows.element_bytes());
                let value = self.layout.take(piece, slot, part, elements);
                scale.copy_from_slice(&value.to_le_bytes()[..scale.len()]);
            }
        }
    }

    /// Takes the content of the first positions of a block, which exists.
    pub(crate) fn take(&mut self, block: u32, bytes: &[u8]) {
        let rows = self.rows();
        for (slot, bytes) in bytes.chunks_exact(rows.position_bytes()).enumerate() {
            for ((layer, part, head), row) in rows.places().zip(bytes.chunks_exact(rows.row_bytes())) {
                let (elements, scale) = row.split_at(rows.element_bytes());
                // SAFETY: `self` is borrowed exclusively.
                unsafe { self.write(block, slot, layer, head, part, elements, row_scale(scale)) };
            }
        }
    }

    /// Pointer to a piece, which is inside the block.
    fn piece_ptr(&self, block: u32, layer: usize, head: usize) -> *mut u8 {
        let (slab, start) = self.blocks[block as usize];
        let at = start + (layer * self.kv_heads + head) * self.layout.piece_bytes();
        let slab = &self.slabs[slab];
        assert!(head < self.kv_heads && layer < self.layers && at + self.layout.piece_bytes() <= slab.len());
        slab.as_raw().wrapping_add(at)
    }

    /// The piece of one head in one block.
    ///
    /// # Safety
    /// No thread writes to this piece meanwhile.
    #[inline]
    pub(crate) unsafe fn piece(&self, block: u32, layer: usize, head: usize) -> &[u8] {
        let start = self.piece_ptr(block, layer, head);
        // SAFETY: a whole piece is inside the slab; the caller rules out writers.
        unsafe { std::slice::from_raw_parts(start, self.layout.piece_bytes()) }
    }

    /// Writes the encoded key or value of one position and head.
    ///
    /// # Safety
    /// No other thread touches this position and head meanwhile.
    #[allow(clippy::too_many_arguments, reason = "where a row goes, and the row")]
    pub(crate) unsafe fn write(
        &self,
        block: u32,
        slot: usize,
        layer: usize,
        head: usize,
        part: KvPart,
        row: &[u8],
        scale: f32,
    ) {
        // SAFETY: a whole piece is inside the slab; the caller rules out other users of the row.
        unsafe { self.layout.place(self.piece_ptr(block, layer, head), slot, part, row, scale) };
    }
}
