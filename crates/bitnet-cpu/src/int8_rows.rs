//! The output layer as int8 rows: half the memory and half the reading of the 16-bit table.
//!
//! A row is `w = a q + e` with one scale `a`. With the hidden row quantised as well, `h = b q' + d`, a logit is
//! `w h = a b (q q') + (a q) d + e h`; the first term is computed from integers, and by Cauchy-Schwarz the rest is at
//! most `|a q| |d| + |e| |h|`. `q'` has two int8 parts, so that `d` is small beside `e`. The rounding of the full-precision dot product itself is at most
//! `(n / 16 + 8) 2^-24 |w| |h|` (sixteen lanes, then a tree). So each row has an interval that holds its true logit, which
//! [`crate::search`] uses to find the rows that can be among the k best. [`crate::kernels::int8`] computes it.
//!
//! Rows lie in panels of 32, see there.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bitnet_core::CoreError;
use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::ThreadPool;
use bitnet_model::{DenseTensor, ExecError, PlainRows};

use crate::kernels::KernelSet;
use crate::kernels::int8::{COLS_STEP, MAX_COLS, PANEL_ROWS, PanelBounds, QUAD, TILE};
use crate::shared::Shared;

/// The int8 copy of a dense matrix `[rows, cols]`.
pub(crate) struct Int8Rows {
    data: AlignedBuf<i8>,
    /// For each panel: scales, errors and norms of its rows.
    bounds: AlignedBuf<f32>,
    /// Whether the errors are kept; otherwise the int8 rows stand for the output layer, and errors and norms are 0.
    exact: bool,
    rows: usize,
    cols: usize,
}

/// Floats that are kept of a panel.
const BOUNDS: usize = 3 * PANEL_ROWS;

/// What a thread quantises rows with.
struct Quantizer<'a> {
    kernels: &'a KernelSet,
    exact: bool,
    /// A decoded row.
    row: Vec<f32>,
    /// A quantised row, padded.
    q: Vec<i8>,
}

impl Int8Rows {
    /// Whether rows of `cols` elements can be kept this way.
    pub(crate) fn can_hold(cols: usize) -> bool {
        cols < MAX_COLS
    }

    /// Quantises `dense` with all threads. Rows of a mapped file are read past the mapping, so that none become resident.
    pub(crate) fn new(
        pool: &mut ThreadPool,
        kernels: &KernelSet,
        dense: &DenseTensor,
        exact: bool,
    ) -> Result<Self, ExecError> {
        let (rows, cols) = (dense.rows(), dense.cols());
        let (panels, padded) = (rows.div_ceil(PANEL_ROWS), cols.next_multiple_of(COLS_STEP));
        let (mut data, mut bounds) =
            (AlignedBuf::zeroed(panels * PANEL_ROWS * padded)?, AlignedBuf::zeroed(panels * BOUNDS)?);
        let (to, to_bounds) = (Shared::new(&mut data), Shared::new(&mut bounds));
        let failure: Mutex<Option<CoreError>> = Mutex::new(None);
        pool.run(|team| {
            let mut quantizer = Quantizer { kernels, exact, row: vec![0.0; cols], q: vec![0; padded] };
            let mut buffer = Vec::new();
            for panel in team.share(panels) {
                let range = panel * PANEL_ROWS..rows.min((panel + 1) * PANEL_ROWS);
                match dense.read_rows(range, &mut buffer) {
                    // SAFETY: panels are shared out among the threads.
                    Ok(rows) => unsafe {
                        quantizer.panel(
                            rows,
                            to.get_mut(panel * PANEL_ROWS * padded..(panel + 1) * PANEL_ROWS * padded),
                            to_bounds.get_mut(panel * BOUNDS..(panel + 1) * BOUNDS),
                        );
                    },
                    Err(error) => {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(Self { data, bounds, exact, rows, cols }),
        }
    }

    /// Whether intervals hold the logits of the full-precision rows.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// Rows of the matrix.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Panels, of which the last may be filled up with rows of zeros.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// The rows of a panel.
    pub(crate) fn panel_rows(&self, panel: usize) -> Range<usize> {
        panel * PANEL_ROWS..self.rows.min((panel + 1) * PANEL_ROWS)
    }

    /// Columns, padded: the length of each part of a quantised hidden row.
    pub(crate) fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(COLS_STEP)
    }

    /// Int8 values of a panel, and its scales, errors and norms.
    pub(crate) fn panel(&self, panel: usize) -> (&[i8], &PanelBounds) {
        let bytes = PANEL_ROWS * self.padded_cols();
        let bounds = self.bounds[panel * BOUNDS..(panel + 1) * BOUNDS].as_chunks::<PANEL_ROWS>().0;
        let bounds = bounds.first_chunk().expect("three arrays a panel");
        (&self.data[panel * bytes..(panel + 1) * bytes], bounds)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len() + size_of::<f32>() * self.bounds.len()
    }
}

impl Quantizer<'_> {
    /// Quantises the rows of a panel.
    fn panel(&mut self, rows: PlainRows<'_>, panel: &mut [i8], bounds: &mut [f32]) {
        let cols = self.row.len();
        for (lane, bytes) in rows.bytes.chunks_exact(cols * rows.dtype.size()).enumerate() {
            // SAFETY: the kernel set is available.
            let found =
                unsafe { (self.kernels.int8_row)(rows.dtype, bytes, &mut self.row, &mut self.q[..cols]) };
            for (tile, q) in panel.as_chunks_mut::<TILE>().0.iter_mut().zip(self.q.as_chunks::<QUAD>().0) {
                tile[lane * QUAD..(lane + 1) * QUAD].copy_from_slice(q);
            }
            bounds[lane] = found.scale;
            if self.exact {
                bounds[PANEL_ROWS + lane] = found.error;
                bounds[2 * PANEL_ROWS + lane] = found.norm;
            }
        }
    }
}
