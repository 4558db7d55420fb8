//! Ternary rows as codes of two bits, for gemv.wgsl and gemm.wgsl.
//!
//! A word holds sixteen codes trit + 1 of neighbouring columns: element `4 j + b` in bits `2 j` and `2 j + 1` of byte `b`.
//! Rows are padded to whole quads of words; what stands there meets zeros of the activations.

use std::sync::Mutex;

use bitnet_model::ExecError;
use bitnet_quant::TernaryMatrix;

/// Columns to which rows are padded.
const GRANULE: usize = 64;

/// Words of a packed row.
pub(crate) fn words_of(cols: usize) -> usize {
    cols.div_ceil(GRANULE) * GRANULE / 16
}

/// Rows of several matrices of the same width, one below the other.
#[derive(Clone, Copy)]
pub(crate) struct Stack<'a> {
    /// Name for errors, and matrix.
    pub(crate) matrices: &'a [(&'a str, &'a TernaryMatrix)],
}

impl<'a> Stack<'a> {
    /// Rows of all.
    pub(crate) fn rows(self) -> usize {
        self.matrices.iter().map(|(_, m)| m.rows()).sum()
    }

    /// Columns.
    pub(crate) fn cols(self) -> usize {
        self.matrices.first().map_or(0, |(_, m)| m.cols())
    }

    /// The matrix that has a row, and the row's number there.
    fn find(self, row: usize) -> Option<(&'a str, &'a TernaryMatrix, usize)> {
        let mut row = row;
        for &(name, m) in self.matrices {
            if row < m.rows() {
                return Some((name, m, row));
            }
            row -= m.rows();
        }
        None
    }

    /// The scale of each of some rows.
    pub(crate) fn scales(self, rows: std::ops::Range<usize>) -> Vec<f32> {
        rows.filter_map(|row| self.find(row)).map(|(_, m, _)| m.scale()).collect()
    }

    /// Packs some rows, with all cores.
    ///
    /// # Errors
    /// [`ExecError::Weights`] if a tensor is damaged.
    pub(crate) fn pack(self, rows: std::ops::Range<usize>) -> Result<Vec<u32>, ExecError> {
        let words = words_of(self.cols());
        let mut packed = vec![0u32; rows.len() * words];
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = rows.len().div_ceil(threads).max(16);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for (part, out) in packed.chunks_mut(share * words).enumerate() {
                let (first, failure) = (rows.start + part * share, &failure);
                scope.spawn(move || {
                    if let Err(error) = self.pack_rows(first, words, out) {
                        failure
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(packed),
        }
    }

    fn pack_rows(self, first: usize, words: usize, out: &mut [u32]) -> Result<(), ExecError> {
        let mut trits = vec![0i8; self.cols()];
        for (row, out) in (first..).zip(out.chunks_exact_mut(words)) {
            let Some((name, matrix, row)) = self.find(row) else { break };
            matrix
                .decode_row(row, &mut trits)
                .map_err(|source| ExecError::Weights { tensor: name.to_owned(), source })?;
            for (word, trits) in out.iter_mut().zip(trits.chunks(16)) {
                *word = pack_word(trits);
            }
        }
        Ok(())
    }
}

/// Up to sixteen trits as codes.
fn pack_word(trits: &[i8]) -> u32 {
    let code = |(i, &trit): (usize, &i8)| ((i32::from(trit) + 1) as u32) << (8 * (i % 4) + 2 * (i / 4));
    trits.iter().enumerate().map(code).fold(0, |word, code| word | code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_and_masks_give_neighbours() {
        let trits: Vec<i8> = (0..16).map(|i| (i * 7 % 3) as i8 - 1).collect();
        let word = pack_word(&trits);
        for (j, four) in trits.chunks(4).enumerate() {
            let codes = ((word >> (2 * j)) & 0x0303_0303).to_le_bytes();
            let want: Vec<u8> = four.iter().map(|&t| (t + 1) as u8).collect();
            assert_eq!(codes[..], want[..], "{j}");
        }
        assert_eq!(pack_word(&[-1, -1, 1]), 2 << 16);
        assert_eq!((words_of(1), words_of(64), words_of(65), words_of(2560)), (4, 4, 8, 160));
    }
}
