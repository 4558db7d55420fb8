//! [`KvRows`]: the form in which keys and values leave an executor and come back, [`Executor::read_block`] and
//! [`Executor::write_block`].
//!
//! It is one form for all executors, whatever the layout of their memory. A position is
//! `[layer][keys, values][head]` rows, each the elements of one head as the [`KvType`] rounds them, little-endian, and for
//! int8 the row's scale as f32 behind them. Positions follow each other, so nothing depends on the size of blocks.
//!
//! [`Executor::read_block`]: crate::Executor::read_block
//! [`Executor::write_block`]: crate::Executor::write_block

use crate::{ExecError, KvType, ModelSpec};

/// What a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvPart {
    /// A key.
    Key,
    /// A value.
    Value,
}

/// Sizes and places of rows. See the module's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvRows {
    /// How elements are kept.
    pub kv_type: KvType,
    /// Layers of the model.
    pub layers: usize,
    /// Key and value heads of a layer.
    pub heads: usize,
    /// Elements of a row.
    pub head_dim: usize,
}

impl KvRows {
    /// The form for a model.
    pub fn new(spec: &ModelSpec, kv_type: KvType) -> Self {
        Self { kv_type, layers: spec.num_layers, heads: spec.num_kv_heads, head_dim: spec.head_dim }
    }

    /// Bytes of the elements of a row.
    pub fn element_bytes(self) -> usize {
        match self.kv_type {
            KvType::F32 => 4 * self.head_dim,
            KvType::F16 => 2 * self.head_dim,
            KvType::Int8 => self.head_dim,
        }
    }

    /// Bytes of a row: its elements, and for int8 its scale.
    pub fn row_bytes(self) -> usize {
        self.element_bytes() + if self.kv_type == KvType::Int8 { size_of::<f32>() } else { 0 }
    }

    /// Bytes of a position.
    pub fn position_bytes(self) -> usize {
        2 * self.layers * self.heads * self.row_bytes()
    }

    /// What each row of a position is, in their order: layer, part and head.
    pub fn places(self) -> impl Iterator<Item = (usize, KvPart, usize)> {
        let parts = move |layer| [KvPart::Key, KvPart::Value].into_iter().map(move |part| (layer, part));
        let heads = move |(layer, part)| (0..self.heads).map(move |head| (layer, part, head));
        (0..self.layers).flat_map(parts).flat_map(heads)
    }

    /// Checks that a buffer holds this many positions, which fit a block.
    ///
    /// # Errors
    /// [`ExecError::BlockBytes`].
    pub fn check(self, positions: usize, block_size: usize, given: usize) -> Result<(), ExecError> {
        let needed = positions.saturating_mul(self.position_bytes());
        if positions <= block_size && needed == given {
            return Ok(());
        }
        Err(ExecError::BlockBytes { positions, needed, given })
    }
}

/// The scale behind a row of int8; 1 for rows of other types.
pub fn row_scale(rest: &[u8]) -> f32 {
    rest.first_chunk().map_or(1.0, |bytes| f32::from_le_bytes(*bytes))
}
