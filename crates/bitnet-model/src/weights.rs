//! [`Weights`]: the tensors of a model as views into its files.
//!
//! Nothing is decoded here but norms, which are small. Executors decode ternary and dense rows once, in parallel, into
//! their own layout, and may then give the pages back with `release`.

use std::ops::Range;

use bitnet_core::bytes::ByteView;
use bitnet_core::{CoreError, DType};
use bitnet_quant::TernaryMatrix;

/// A dense matrix `[rows, cols]`, row-major, little-endian, as it lies in a file: embedding or output layer.
#[derive(Debug, Clone)]
pub struct DenseTensor {
    rows: usize,
    cols: usize,
    dtype: DType,
    data: ByteView,
}

impl DenseTensor {
    /// Describes `data`; `None` if its length is not that of `[rows, cols]`.
    pub fn new(rows: usize, cols: usize, dtype: DType, data: ByteView) -> Option<Self> {
        let len = rows.checked_mul(cols)?.checked_mul(dtype.size())?;
        (data.len() == len).then_some(Self { rows, cols, dtype, data })
    }

    /// Number of rows (vocabulary).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (hidden size).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The stored bytes of all rows.
    pub fn data(&self) -> &ByteView {
        &self.data
    }

    /// The stored bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        let len = self.cols * self.dtype.size();
        &self.data.as_slice()[row * len..][..len]
    }

    /// The stored bytes of consecutive rows, where they lie if they are in memory. Rows of a mapped file are read into
    /// `buffer`, which becomes large enough: they do not become resident.
    ///
    /// # Errors
    /// If the file cannot be read, or there are no such rows.
    pub fn read_rows<'a>(
        &'a self,
        rows: Range<usize>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], CoreError> {
        let bytes = self.cols * self.dtype.size();
        let range = rows.start * bytes..rows.end * bytes;
        if !self.data.is_mapped()
            && let Some(found) = self.data.as_slice().get(range.clone())
        {
            return Ok(found);
        }
        if buffer.len() < range.len() {
            buffer.resize(range.len(), 0);
        }
        let buffer = &mut buffer[..range.len()];
        self.data.read_into(range.start, buffer)?;
        Ok(buffer)
    }

    /// Decodes one row to `f32`, exactly.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `[cols]`.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.dtype.decode(self.row_bytes(row), out);
    }
}

/// One transformer layer. Shapes use the names of [`crate::ModelSpec`].
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// Norm before attention, `[hidden_size]`.
    pub attn_norm: Vec<f32>,
    /// Query projection `[num_heads * head_dim, hidden_size]`, rows in half-split rotary order.
    pub q: TernaryMatrix,
    /// Key projection `[num_kv_heads * head_dim, hidden_size]`, rows in half-split rotary order.
    pub k: TernaryMatrix,
    /// Value projection `[num_kv_heads * head_dim, hidden_size]`.
    pub v: TernaryMatrix,
    /// Norm before `o`, `[num_heads * head_dim]`, if the model has sub-norms.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Attention output projection `[hidden_size, num_heads * head_dim]`.
    pub o: TernaryMatrix,
    /// Norm before the feed-forward part, `[hidden_size]`.
    pub ffn_norm: Vec<f32>,
    /// Gate projection `[intermediate_size, hidden_size]`.
    pub gate: TernaryMatrix,
    /// Up projection `[intermediate_size, hidden_size]`.
    pub up: TernaryMatrix,
    /// Norm before `down`, `[intermediate_size]`, if the model has sub-norms.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// Down projection `[hidden_size, intermediate_size]`.
    pub down: TernaryMatrix,
    /// Norms that only some architectures have.
    pub extras: LayerExtras,
}

/// Norms that go with [`crate::Extras`]; each is there if its flag is set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerExtras {
    /// Norms over single heads of queries and keys, `[head_dim]` each.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// Norms before `q`, `k`, `v`, `gate` and `up`, `[hidden_size]` each.
    pub projection_norms: Option<[Vec<f32>; 5]>,
    /// Norms of what attention and the feed-forward part give, `[hidden_size]` each.
    pub post_norms: Option<[Vec<f32>; 2]>,
}

impl LayerWeights {
    /// The seven ternary projections with their usual names, in the order of use.
    pub fn projections(&self) -> [(&'static str, &TernaryMatrix); 7] {
        [
            ("q", &self.q),
            ("k", &self.k),
            ("v", &self.v),
            ("o", &self.o),
            ("gate", &self.gate),
            ("up", &self.up),
            ("down", &self.down),
        ]
    }
}

/// All tensors of a model.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Token embedding `[vocab_size, hidden_size]`.
    pub embedding: DenseTensor,
    /// Output layer `[vocab_size, hidden_size]`; `None` when it is the embedding.
    pub output: Option<DenseTensor>,
    /// Norm before the output layer, `[hidden_size]`.
    pub final_norm: Vec<f32>,
    /// The layers, first to last.
    pub layers: Vec<LayerWeights>,
}

impl Weights {
    /// The output layer, tied or not.
    pub fn output_layer(&self) -> &DenseTensor {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}
