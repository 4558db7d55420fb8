//! [`Weights`]: the tensors of a model as views into its files.
//!
//! Nothing is decoded here but norms, which are small. Executors decode ternary and dense rows once, in parallel, into
//! their own layout, and may then give the pages back with `release`.

use std::ops::Range;

use bitnet_core::bytes::ByteView;
use bitnet_core::{CoreError, DType, DenseType};
use bitnet_quant::TernaryMatrix;

/// A dense matrix `[rows, cols]`, row-major, as it lies in a file: embedding or output layer.
#[derive(Debug, Clone)]
pub struct DenseTensor {
    rows: usize,
    cols: usize,
    stored: DenseType,
    row_bytes: usize,
    data: ByteView,
}

/// Consecutive rows of a [`DenseTensor`], every value for itself.
#[derive(Debug, Clone, Copy)]
pub struct PlainRows<'a> {
    /// Element type: that of the tensor, or f32 if it is stored in blocks.
    pub dtype: DType,
    /// The elements, little-endian, at any alignment.
    pub bytes: &'a [u8],
}

impl DenseTensor {
    /// Describes `data`; `None` if its length is not that of `[rows, cols]`, or rows are not whole blocks.
    pub fn new(rows: usize, cols: usize, stored: impl Into<DenseType>, data: ByteView) -> Option<Self> {
        let stored = stored.into();
        let row_bytes = stored.bytes_of(cols)?;
        let len = rows.checked_mul(row_bytes)?;
        (data.len() == len).then_some(Self { rows, cols, stored, row_bytes, data })
    }

    /// Number of rows (vocabulary).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (hidden size).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the values are stored.
    pub fn stored(&self) -> DenseType {
        self.stored
    }

    /// Element type of [`PlainRows`]: that of the tensor, or f32 if it is stored in blocks.
    pub fn plain_type(&self) -> DType {
        self.stored.plain().unwrap_or(DType::F32)
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
        &self.data.as_slice()[row * self.row_bytes..][..self.row_bytes]
    }

    /// Consecutive rows, used where they lie, mapped or not; those of blocks are decoded to f32 in `buffer`, which
    /// becomes large enough.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn rows_in_place<'a>(&'a self, rows: Range<usize>, buffer: &'a mut Vec<u8>) -> PlainRows<'a> {
        let bytes = &self.data.as_slice()[rows.start * self.row_bytes..rows.end * self.row_bytes];
        match self.stored {
            DenseType::Plain(dtype) => PlainRows { dtype, bytes },
            DenseType::Blocks(_) => {
                let room = room(buffer, size_of::<f32>() * rows.len() * self.cols);
                self.stored.decode_to_bytes(bytes, room);
                PlainRows { dtype: DType::F32, bytes: room }
            }
        }
    }

    /// Consecutive rows, where they lie if they are in memory. Rows of a mapped file are read into `buffer`, which
    /// becomes large enough: they do not become resident. Rows of blocks are decoded to f32.
    ///
    /// # Errors
    /// If the file cannot be read, or there are no such rows.
    pub fn read_rows<'a>(
        &'a self,
        rows: Range<usize>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<PlainRows<'a>, CoreError> {
        let range = rows.start * self.row_bytes..rows.end * self.row_bytes;
        if !self.data.is_mapped() && range.end <= self.data.len() {
            return Ok(self.rows_in_place(rows, buffer));
        }
        let decoded = match self.stored {
            DenseType::Plain(_) => 0,
            DenseType::Blocks(_) => size_of::<f32>() * rows.len() * self.cols,
        };
        let (values, stored) = room(buffer, decoded + range.len()).split_at_mut(decoded);
        self.data.read_into(range.start, stored)?;
        Ok(match self.stored {
            DenseType::Plain(dtype) => PlainRows { dtype, bytes: stored },
            DenseType::Blocks(_) => {
                self.stored.decode_to_bytes(stored, values);
                PlainRows { dtype: DType::F32, bytes: values }
            }
        })
    }

    /// One row as `f32`, exactly; read into `buffer` first as in [`read_rows`](Self::read_rows).
    ///
    /// # Errors
    /// As [`read_rows`](Self::read_rows).
    ///
    /// # Panics
    /// If `out` is not `[cols]`.
    pub fn read_row(&self, row: usize, buffer: &mut Vec<u8>, out: &mut [f32]) -> Result<(), CoreError> {
        let stored = self.read_rows(row..row + 1, buffer)?;
        stored.dtype.decode(stored.bytes, out);
        Ok(())
    }

    /// Decodes one row to `f32`, exactly.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `[cols]`.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.stored.decode(self.row_bytes(row), out);
    }
}

/// The first `len` bytes of a buffer, which grows if it must.
fn room(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
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

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::BlockType;

    #[test]
    fn rows_of_blocks_are_decoded_wherever_they_lie() {
        let (rows, cols) = (5, 64);
        let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut bytes = Vec::new();
        assert!(BlockType::Q8_0.encode(&values, &mut bytes));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("table"), &bytes).unwrap();
        let mapped = ByteView::map_file(&folder.path().join("table")).unwrap();
        for data in [ByteView::from_vec(bytes), mapped] {
            let table = DenseTensor::new(rows, cols, BlockType::Q8_0, data).unwrap();
            let mut want = vec![0.0; 2 * cols];
            table.decode_row(2, &mut want[..cols]);
            table.decode_row(3, &mut want[cols..]);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for rows in [table.read_rows(2..4, &mut first).unwrap(), table.rows_in_place(2..4, &mut second)] {
                assert_eq!((rows.dtype, rows.bytes), (DType::F32, &DType::F32.encode(&want)[..]));
            }
            assert!(table.read_rows(4..6, &mut first).is_err());
        }
        assert!(DenseTensor::new(1, 33, BlockType::Q8_0, ByteView::from_vec(vec![0; 34])).is_none());
    }
}
