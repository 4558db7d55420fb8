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
    /// Embedding or output layer as it lies in its file.
    Table(&'a DenseTensor),
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

    /// A table in its own type, or in f32 if that is one of blocks.
    pub(super) fn table(name: &str, table: &'a DenseTensor) -> Self {
        let stored = match table.plain_type() {
            DType::F32 => StoredType::F32,
            DType::F16 => StoredType::F16,
            DType::BF16 => StoredType::BF16,
        };
        let shape = [table.rows() as u64, table.cols() as u64];
        Self { plan: TensorPlan::new(name, stored, shape), content: Content::Table(table) }
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
            Content::Table(table) => emit_table(table, sink),
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
}

/// Rows of a mapped file are read past the mapping, so that the table does not become resident.
fn emit_table(table: &DenseTensor, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let row = table.cols() * table.plain_type().size();
    let step = (TABLE_BYTES / row.max(1)).max(1);
    let mut buffer = Vec::new();
    for first in (0..table.rows()).step_by(step) {
        let rows = first..(first + step).min(table.rows());
        sink(table.read_rows(rows, &mut buffer)?.bytes)?;
    }
    Ok(())
}
