//! Ternary weights as the kernels stream them.
//!
//! A *strip* is sixteen output rows. Along the columns it is a sequence of *groups* of sixteen, and one group of one
//! strip is a 64-byte *tile*, 2 bits a weight:
//!
//! * byte `4 * r + b` of a tile belongs to row `r` of the strip;
//! * its bits `2i+1..2i` hold the code `t + 1` of column `16 * group + 4 * i + b`.
//!
//! So the 32-bit lane `r` of a vector register belongs to one output row; masking two bits gives, in each lane, the
//! codes of four consecutive columns, which one dot-product instruction multiplies with four broadcast activations.
//! No horizontal sum is ever needed, the same bytes suit registers of 16, 32 and 64 bytes (NEON, AVX2, AVX-512), and a
//! thread that owns a range of strips reads memory in one sequential stream.
//!
//! Rows are padded to whole strips and columns to whole groups with the code 1 (trit 0).

use std::ops::Range;

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::Team;
use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

use crate::shared::Shared;

/// Output rows of a strip.
pub const STRIP_ROWS: usize = 16;
/// Columns of a group.
pub const GROUP_COLS: usize = 16;
/// Bytes of a tile: one group of one strip.
pub const TILE_BYTES: usize = STRIP_ROWS * GROUP_COLS / 4;

/// One matrix inside a [`Strips`].
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its strips.
    pub strips: Range<usize>,
    /// Its weight scale.
    pub scale: f32,
}

/// One or more ternary matrices with the same columns, one after the other.
#[derive(Debug)]
pub struct Strips {
    data: AlignedBuf<u8>,
    groups: usize,
    parts: Vec<Part>,
}

impl Strips {
    /// Zeroed room for matrices of `rows[i]` rows and `cols` columns; fill it with [`Strips::pack`].
    ///
    /// # Errors
    /// If the memory is not there.
    pub fn with_shape(rows: &[usize], cols: usize, scales: &[f32]) -> Result<Self, ExecError> {
        let groups = cols.div_ceil(GROUP_COLS);
        let mut parts = Vec::with_capacity(rows.len());
        let mut end = 0;
        for (&rows, &scale) in rows.iter().zip(scales) {
            let start = end;
            end += rows.div_ceil(STRIP_ROWS);
            parts.push(Part { strips: start..end, scale });
        }
        Ok(Self { data: AlignedBuf::zeroed(end * groups * TILE_BYTES)?, groups, parts })
    }

    /// Packs matrices with the same number of columns on the calling thread alone: for tests and small tools.
    ///
    /// # Errors
    /// If a matrix is damaged or the memory is not there.
    pub fn from_matrices(matrices: &[&TernaryMatrix]) -> Result<Self, ExecError> {
        let rows: Vec<usize> = matrices.iter().map(|m| m.rows()).collect();
        let scales: Vec<f32> = matrices.iter().map(|m| m.scale()).collect();
        let cols = matrices.first().map_or(0, |m| m.cols());
        let mut strips = Self::with_shape(&rows, cols, &scales)?;
        let bytes = strips.strip_bytes();
        for (part, m) in strips.parts.iter().zip(matrices) {
            for (i, strip) in part.strips.clone().enumerate() {
                pack_strip(m, i, &mut strips.data[strip * bytes..][..bytes])
                    .map_err(|source| ExecError::Weights { tensor: "matrix".to_owned(), source })?;
            }
        }
        Ok(strips)
    }

    /// Packs this thread's share of the strips. All threads of `team` call this with the same arguments.
    ///
    /// # Errors
    /// If a matrix is damaged.
    ///
    /// # Safety
    /// `data` is [`Strips::shared_data`] of `self`'s shape, used by nothing else meanwhile.
    pub(crate) unsafe fn pack(
        &self,
        data: Shared<'_, u8>,
        matrices: &[&TernaryMatrix],
        team: &Team<'_>,
    ) -> Result<(), bitnet_quant::QuantError> {
        let bytes = self.strip_bytes();
        for (part, m) in self.parts.iter().zip(matrices) {
            for i in team.share(part.strips.len()) {
                let strip = part.strips.start + i;
                // SAFETY: strips are disjoint and each belongs to one thread.
                let out = unsafe { data.get_mut(strip * bytes..(strip + 1) * bytes) };
                pack_strip(m, i, out)?;
            }
        }
        Ok(())
    }

    /// The bytes, for [`Strips::pack`]: take them out, pack, and put them back.
    pub(crate) fn take_data(&mut self) -> Result<AlignedBuf<u8>, ExecError> {
        let empty = AlignedBuf::zeroed(0)?;
        Ok(std::mem::replace(&mut self.data, empty))
    }

    pub(crate) fn put_data(&mut self, data: AlignedBuf<u8>) {
        self.data = data;
    }

    /// Bytes of one strip.
    pub fn strip_bytes(&self) -> usize {
        self.groups * TILE_BYTES
    }

    /// Strips of all parts.
    pub fn strips(&self) -> usize {
        self.parts.last().map_or(0, |p| p.strips.end)
    }

    /// Columns, padded to whole groups: the length of an activation row.
    pub fn padded_cols(&self) -> usize {
        self.groups * GROUP_COLS
    }

    /// The matrices.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of a range of strips.
    pub fn range(&self, strips: Range<usize>) -> &[u8] {
        let bytes = self.strip_bytes();
        &self.data[strips.start * bytes..strips.end * bytes]
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }
}

/// Packs rows `16 * strip ..` of `m` into `out`, `[groups][64]` bytes.
fn pack_strip(m: &TernaryMatrix, strip: usize, out: &mut [u8]) -> Result<(), bitnet_quant::QuantError> {
    const ZERO_TRITS: u8 = 0b01_01_01_01;
    let cols = m.cols();
    let mut row = vec![0i8; cols.next_multiple_of(GROUP_COLS)];
    out.fill(ZERO_TRITS);
    for r in 0..STRIP_ROWS.min(m.rows() - strip * STRIP_ROWS) {
        m.decode_row(strip * STRIP_ROWS + r, &mut row[..cols])?;
        let (groups, _) = row.as_chunks::<GROUP_COLS>();
        for (tile, group) in out.chunks_exact_mut(TILE_BYTES).zip(groups) {
            let mut word = [0u8; 4];
            for b in 0..4 {
                let code = |i: usize| (group[4 * i + b] + 1) as u8;
                word[b] = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
            }
            tile[4 * r..4 * r + 4].copy_from_slice(&word);
        }
    }
    Ok(())
}
