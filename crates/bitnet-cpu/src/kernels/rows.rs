//! How quantised activation rows lie in memory, for products to read them as one stream.

use crate::layout::QUAD;
use crate::shared::Shared;

/// Rows of a batch that a product takes together. With four strips that is 24 registers of sums on AVX-512, with one
/// strip twelve on AVX2.
pub(crate) const ROW_BLOCK: usize = 6;
/// Rows of a tile of AMX.
pub(crate) const TILE_ROWS: usize = 16;
/// Columns, and bytes of a row, of a tile of AMX.
pub(crate) const TILE_COLS: usize = 64;

/// An order of the int8 values of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowLayout {
    /// The only row, as it is.
    Single,
    /// Blocks of [`ROW_BLOCK`] rows: the first four columns of all rows of the block, then the next four.
    Quads,
    /// Blocks of [`TILE_ROWS`] rows: the first [`TILE_COLS`] columns of the first row, of the second and so on, then the
    /// next columns. Columns are padded with 0.
    Tiles,
}

impl RowLayout {
    /// Int8 values that `rows` of `cols` take.
    pub(crate) fn len(self, rows: usize, cols: usize) -> usize {
        match self {
            RowLayout::Single => rows * cols,
            RowLayout::Quads => rows.next_multiple_of(ROW_BLOCK) * cols,
            RowLayout::Tiles => rows.next_multiple_of(TILE_ROWS) * cols.next_multiple_of(TILE_COLS),
        }
    }

    /// Writes row `index` to its place; its length is a multiple of four.
    ///
    /// # Panics
    /// If `rows` ends before that place.
    ///
    /// # Safety
    /// No other thread touches this row meanwhile.
    pub(crate) unsafe fn place(self, row: &[i8], index: usize, rows: Shared<'_, i8>) {
        match self {
            RowLayout::Single => {
                let start = index * row.len();
                // SAFETY: the row belongs to this thread.
                unsafe { rows.get_mut(start..start + row.len()) }.copy_from_slice(row);
            }
            RowLayout::Quads => {
                let quads = row.len() / QUAD;
                let first = (index / ROW_BLOCK * quads * ROW_BLOCK + index % ROW_BLOCK) * QUAD;
                assert!(quads == 0 || first + (quads - 1) * ROW_BLOCK * QUAD + QUAD <= rows.len());
                for (i, quad) in row.as_chunks::<QUAD>().0.iter().enumerate() {
                    let at = first + i * ROW_BLOCK * QUAD;
                    // SAFETY: inside by the check above; the row belongs to this thread.
                    unsafe { rows.as_mut_ptr().add(at).cast::<[i8; QUAD]>().write_unaligned(*quad) };
                }
            }
            RowLayout::Tiles => {
                let padded = row.len().next_multiple_of(TILE_COLS);
                let first = index / TILE_ROWS * TILE_ROWS * padded + index % TILE_ROWS * TILE_COLS;
                for (i, part) in row.chunks(TILE_COLS).enumerate() {
                    let at = first + i * TILE_ROWS * TILE_COLS;
                    // SAFETY: the row belongs to this thread.
                    let to = unsafe { rows.get_mut(at..at + TILE_COLS) };
                    to[..part.len()].copy_from_slice(part);
                    to[part.len()..].fill(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_holds_every_value_once() {
        let (count, cols) = (19, 76);
        for layout in [RowLayout::Single, RowLayout::Quads, RowLayout::Tiles] {
            let mut placed = vec![99i8; layout.len(count, cols)];
            for index in 0..count {
                let row: Vec<i8> = (0..cols).map(|c| ((index * 31 + c * 7) % 90) as i8).collect();
                // SAFETY: there is only this thread.
                unsafe { layout.place(&row, index, Shared::new(&mut placed)) };
            }
            let at = |index: usize, c: usize| match layout {
                RowLayout::Single => index * cols + c,
                RowLayout::Quads => index / 6 * 6 * cols + c / 4 * 24 + index % 6 * 4 + c % 4,
                RowLayout::Tiles => index / 16 * 16 * 128 + c / 64 * 1024 + index % 16 * 64 + c % 64,
            };
            for index in 0..count {
                for c in 0..cols {
                    assert_eq!(placed[at(index, c)] as usize, (index * 31 + c * 7) % 90, "{layout:?}");
                }
            }
            if layout == RowLayout::Tiles {
                assert!((76..128).all(|c| placed[at(18, c)] == 0), "padding is 0");
            }
        }
    }
}
