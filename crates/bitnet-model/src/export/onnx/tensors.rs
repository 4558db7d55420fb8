//! The initialisers of the graph and their bytes, made block by block.

use bitnet_core::DType;
use bitnet_formats::{StoredType, TensorPlan};
use bitnet_quant::TernaryMatrix;

use super::super::error::{ExportError, Result};
use crate::DenseTensor;

/// Stored rows that are made before they are written.
const BLOCK_ROWS: usize = 64;
/// Bytes of a table that are read at a time.
const TABLE_BYTES: usize = 8 << 20;
/// From here on f16 rounds to infinity.
const F16_LIMIT: f32 = 65_520.0;

/// An initialiser.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// Name, type and shape.
    pub(super) plan: TensorPlan,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    /// Bytes that are there.
    Bytes(Vec<u8>),
    /// Embedding or output layer in this type.
    Table(&'a DenseTensor, DType),
    /// Trits as int8, `[cols, rows]`.
    Columns(&'a TernaryMatrix),
    /// Trits as `trit + 2` of two bits, low bits first, `[rows, blocks, block / 4]`; the last block is padded with zeros
    /// of the matrix.
    Blocks(&'a TernaryMatrix, usize),
}

impl<'a> Item<'a> {
    /// Numbers.
    pub(super) fn floats(name: &str, shape: &[u64], values: &[f32]) -> Self {
        Self::bytes(name, StoredType::F32, shape, DType::F32.encode(values))
    }

    /// Whole numbers, `[len]` or, if `scalar`, one of no dimension.
    pub(super) fn ints(name: &str, values: &[i64], scalar: bool) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = [values.len() as u64];
        Self::bytes(name, StoredType::I64, if scalar { &[] } else { &shape }, bytes)
    }

    fn bytes(name: &str, stored: StoredType, shape: &[u64], bytes: Vec<u8>) -> Self {
        Self { plan: TensorPlan::new(name, stored, shape), content: Content::Bytes(bytes) }
    }

    /// A table in a type, by default its own, or f32 if that is one of blocks.
    pub(super) fn table(name: &str, table: &'a DenseTensor, dtype: Option<DType>) -> Self {
        let dtype = dtype.unwrap_or(table.plain_type());
        let stored = match dtype {
            DType::F32 => StoredType::F32,
            DType::F16 => StoredType::F16,
            DType::BF16 => StoredType::BF16,
        };
        let shape = [table.rows() as u64, table.cols() as u64];
        Self { plan: TensorPlan::new(name, stored, shape), content: Content::Table(table, dtype) }
    }

    /// Trits as a product reads them from the right.
    pub(super) fn columns(name: &str, matrix: &'a TernaryMatrix) -> Self {
        let shape = [matrix.cols() as u64, matrix.rows() as u64];
        Self { plan: TensorPlan::new(name, StoredType::I8, shape), content: Content::Columns(matrix) }
    }

    /// Trits in blocks of `block` columns.
    pub(super) fn blocks(name: &str, matrix: &'a TernaryMatrix, block: usize) -> Self {
        let count = matrix.cols().div_ceil(block);
        let shape = [matrix.rows() as u64, count as u64, block as u64 / 4];
        Self { plan: TensorPlan::new(name, StoredType::U8, shape), content: Content::Blocks(matrix, block) }
    }

    /// Bytes it takes.
    pub(super) fn byte_len(&self) -> u64 {
        self.plan.stored.byte_len(&self.plan.shape).unwrap_or(0)
    }

    /// Makes the bytes and gives them to `sink`, block by block.
    pub(super) fn emit(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match &self.content {
            Content::Bytes(bytes) => sink(bytes),
            Content::Table(table, dtype) => self.emit_table(table, *dtype, sink),
            Content::Columns(matrix) => self.emit_columns(matrix, sink),
            Content::Blocks(matrix, block) => self.emit_blocks(matrix, *block, sink),
        }
    }

    fn decode(&self, matrix: &TernaryMatrix, row: usize, out: &mut [i8]) -> Result<()> {
        matrix
            .decode_row(row, out)
            .map_err(|source| ExportError::Quant { tensor: self.plan.name.clone(), source })
    }

    fn emit_columns(&self, matrix: &TernaryMatrix, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let mut trits = vec![0i8; rows * cols];
        for (row, out) in trits.chunks_exact_mut(cols).enumerate() {
            self.decode(matrix, row, out)?;
        }
        matrix.data().release();
        let mut block = vec![0u8; BLOCK_ROWS.min(cols) * rows];
        for first in (0..cols).step_by(BLOCK_ROWS) {
            let count = BLOCK_ROWS.min(cols - first);
            for (row, trits) in trits.chunks_exact(cols).enumerate() {
                for (i, &trit) in trits[first..first + count].iter().enumerate() {
                    block[i * rows + row] = trit as u8;
                }
            }
            sink(&block[..count * rows])?;
        }
        Ok(())
    }

    fn emit_blocks(
        &self,
        matrix: &TernaryMatrix,
        block: usize,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let cols = matrix.cols();
        let mut trits = vec![0i8; cols.next_multiple_of(block)];
        let mut bytes = Vec::with_capacity(trits.len() / 4 * BLOCK_ROWS);
        for row in 0..matrix.rows() {
            self.decode(matrix, row, &mut trits[..cols])?;
            let (fours, _) = trits.as_chunks::<4>();
            let codes = |four: &[i8; 4]| four.iter().rev().fold(0u8, |byte, t| byte << 2 | (t + 2) as u8);
            bytes.extend(fours.iter().map(codes));
            if (row + 1) % BLOCK_ROWS == 0 || row + 1 == matrix.rows() {
                sink(&bytes)?;
                bytes.clear();
            }
        }
        matrix.data().release();
        Ok(())
    }

    /// Rows of a mapped file are read past the mapping, so that the table does not become resident.
    fn emit_table(
        &self,
        table: &DenseTensor,
        dtype: DType,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let cols = table.cols();
        let step = (TABLE_BYTES / (cols * table.plain_type().size()).max(1)).max(1);
        let (mut buffer, mut values) = (Vec::new(), vec![0.0f32; cols]);
        for first in (0..table.rows()).step_by(step) {
            let range = first..(first + step).min(table.rows());
            let rows = table.read_rows(range.clone(), &mut buffer)?;
            if rows.dtype == dtype {
                sink(rows.bytes)?;
                continue;
            }
            let mut rounded = Vec::with_capacity(range.len() * cols * dtype.size());
            for (row, bytes) in range.zip(rows.bytes.chunks_exact(cols * rows.dtype.size())) {
                rows.dtype.decode(bytes, &mut values);
                if dtype == DType::F16 && values.iter().any(|v| v.abs() >= F16_LIMIT) {
                    return Err(ExportError::OutOfRange { tensor: self.plan.name.clone(), row, dtype });
                }
                rounded.extend(dtype.encode(&values));
            }
            sink(&rounded)?;
        }
        Ok(())
    }
}
