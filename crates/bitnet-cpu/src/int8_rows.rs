//! The output layer as int8 rows with a proven error bound, for finding the best logits without reading all of it.
//!
//! The dense rows stay in the model's file. Beside them lies an int8 copy, `w = a q + e` with one scale `a` a row. With
//! the hidden row quantised as well, `h = ĥ + d`, a logit is `w h = a q ĥ + a q d + e h`; the first term is computed
//! from integers, and by Cauchy-Schwarz the rest is at most `|a q| |d| + |e| |h|`. The rounding of the full-precision
//! dot product itself is at most `(n / 16 + 8) 2^-24 |w| |h|` (sixteen lanes, then a tree). So each row has an
//! interval that holds its true logit, and only rows whose upper end reaches the k-th best lower end can be among
//! the k best. Those few are computed in full precision from the file.
//!
//! Layout: strips of sixteen rows; a tile is 64 bytes, sixteen rows times four columns, row `r` in bytes `4r..4r+4`.

use std::sync::atomic::{AtomicBool, Ordering};

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::lanes;
use bitnet_core::pool::{Team, ThreadPool};
use bitnet_model::{DenseTensor, ExecError};

use crate::kernels::KernelSet;
use crate::layout::STRIP_ROWS;
use crate::shared::Shared;

/// Columns of a tile.
const TILE_COLS: usize = 4;
/// Strips that are scanned before their intervals are computed.
const SCAN_STRIPS: usize = 16;
/// Covers the rounding of the bounds themselves.
pub(crate) const SLACK: f32 = 1.001;

/// The int8 copy of a dense matrix `[rows, cols]`.
pub(crate) struct Int8Rows {
    data: AlignedBuf<i8>,
    scales: AlignedBuf<f32>,
    /// `|e| + (n / 16 + 8) 2^-24 |w|`: what `|h|` is multiplied by.
    error: AlignedBuf<f32>,
    /// `|a q|`: what `|d|` is multiplied by.
    norm: AlignedBuf<f32>,
    rows: usize,
    cols: usize,
}

/// What the search for the best logits of one row needs of one thread.
#[derive(Default)]
pub(crate) struct Search {
    /// Lower ends that may be among the k best.
    lower: Vec<f32>,
    /// Those of all threads.
    merged: Vec<f32>,
    /// Rows of the vocabulary that were computed in full, and their logits.
    pub(crate) ids: Vec<u32>,
    pub(crate) logits: Vec<f32>,
}

impl Int8Rows {
    /// Quantises `dense` with all threads and gives the pages of the file back.
    pub(crate) fn new(
        pool: &mut ThreadPool,
        kernels: &KernelSet,
        dense: &DenseTensor,
    ) -> Result<Self, ExecError> {
        let (rows, cols) = (dense.rows(), dense.cols());
        let strips = rows.div_ceil(STRIP_ROWS);
        let padded = cols.next_multiple_of(TILE_COLS);
        let mut new = Self {
            data: AlignedBuf::zeroed(strips * STRIP_ROWS * padded)?,
            scales: AlignedBuf::zeroed(strips * STRIP_ROWS)?,
            error: AlignedBuf::zeroed(strips * STRIP_ROWS)?,
            norm: AlignedBuf::zeroed(strips * STRIP_ROWS)?,
            rows,
            cols,
        };
        let strip_bytes = new.strip_bytes();
        let data = Shared::new(&mut new.data);
        let (scales, error, norm) =
            (Shared::new(&mut new.scales), Shared::new(&mut new.error), Shared::new(&mut new.norm));
        pool.run(|team| {
            let (mut row, mut q) = (vec![0.0f32; cols], vec![0i8; padded]);
            for strip in team.share(strips) {
                for lane in 0..STRIP_ROWS.min(rows - strip * STRIP_ROWS) {
                    let index = strip * STRIP_ROWS + lane;
                    dense.decode_row(index, &mut row);
                    // SAFETY: the kernel set is available; strips are shared out among the threads.
                    unsafe {
                        let stats = (kernels.int8_row)(&mut row, &mut q[..cols]);
                        let tiles = data.get_mut(strip * strip_bytes..(strip + 1) * strip_bytes);
                        for (tile, q) in
                            tiles.as_chunks_mut::<64>().0.iter_mut().zip(q.as_chunks::<TILE_COLS>().0)
                        {
                            tile[lane * TILE_COLS..(lane + 1) * TILE_COLS].copy_from_slice(q);
                        }
                        scales.get_mut(index..index + 1)[0] = stats.scale;
                        error.get_mut(index..index + 1)[0] = stats.error;
                        norm.get_mut(index..index + 1)[0] = stats.norm;
                    }
                }
            }
        });
        dense.data().release();
        Ok(new)
    }

    fn strip_bytes(&self) -> usize {
        STRIP_ROWS * self.cols.next_multiple_of(TILE_COLS)
    }

    /// Columns, padded to whole tiles.
    pub(crate) fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(TILE_COLS)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len() + 3 * size_of::<f32>() * self.scales.len()
    }
}

/// A search for the `k` best logits of one hidden row, as every thread of the team runs it.
pub(crate) struct TopRow<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) int8: &'a Int8Rows,
    pub(crate) dense: &'a DenseTensor,
    /// The hidden row, normed, `[cols]`.
    pub(crate) h: &'a [f32],
    pub(crate) k: usize,
    /// Upper ends of all rows, `[rows]` padded to whole strips.
    pub(crate) upper: Shared<'a, f32>,
    /// One for each thread.
    pub(crate) searches: Shared<'a, Search>,
    pub(crate) finite: &'a AtomicBool,
}

impl TopRow<'_> {
    /// Finds the rows and leaves them in the threads' searches, ascending by thread and id.
    ///
    /// `q` and `sums` are scratch of this thread, `[padded_cols]` and `[SCAN_STRIPS * 16]`.
    ///
    /// # Safety
    /// All threads of the team call this with the same arguments, and nothing else touches `upper` and `searches`.
    pub(crate) unsafe fn run(&self, team: &Team<'_>, q: &mut [i8], sums: &mut Vec<i32>, d: &mut [f32]) {
        let index = team.index();
        let share = team.share(self.int8.rows.div_ceil(STRIP_ROWS));
        // SAFETY: each thread has its own search until the barrier.
        let own = unsafe { &mut self.searches.get_mut(index..index + 1)[0] };
        own.lower.clear();
        // SAFETY: strips are shared out.
        unsafe { self.scan(share.clone(), own, q, sums, d) };
        let mut merged = std::mem::take(&mut own.merged);
        team.barrier();
        // SAFETY: after the barrier all searches are only read, until the next one.
        let threshold = kth_best(unsafe { self.searches.get(0..team.threads()) }, self.k, &mut merged);
        team.barrier();
        // SAFETY: as before the first barrier.
        let own = unsafe { &mut self.searches.get_mut(index..index + 1)[0] };
        own.merged = merged;
        own.ids.clear();
        own.logits.clear();
        let rows = share.start * STRIP_ROWS..self.int8.rows.min(share.end * STRIP_ROWS);
        // SAFETY: this thread wrote these itself.
        let upper = unsafe { self.upper.get(rows.clone()) };
        for (row, &upper) in rows.zip(upper) {
            // A bound that is not a number must not hide a row.
            if upper >= threshold || upper.is_nan() {
                let mut logit = 0.0;
                let out = std::slice::from_mut(&mut logit);
                // SAFETY: the kernel set is available.
                unsafe { (self.kernels.dense)(self.dense.dtype(), self.dense.row_bytes(row), self.h, out) };
                if !logit.is_finite() {
                    self.finite.store(false, Ordering::Relaxed);
                }
                own.ids.push(row as u32);
                own.logits.push(logit);
            }
        }
        team.barrier();
    }

    /// Computes the intervals of a range of strips: upper ends to `upper`, promising lower ends to `own`.
    ///
    /// # Safety
    /// The strips belong to this thread.
    unsafe fn scan(
        &self,
        strips: std::ops::Range<usize>,
        own: &mut Search,
        q: &mut [i8],
        sums: &mut Vec<i32>,
        d: &mut [f32],
    ) {
        // SAFETY: the kernel set is available.
        let quantized = unsafe { (self.kernels.norm_quantize)(self.h, None, 0.0, d, q) };
        let inverse = 1.0 / quantized.scale;
        for ((d, &h), &q) in d.iter_mut().zip(self.h).zip(q.iter()) {
            *d = h - f32::from(q) * inverse;
        }
        let h_norm = lanes::dot(self.h, self.h).sqrt() * SLACK;
        // The subtraction above rounds by at most 2^-23 of each element.
        let d_norm = lanes::dot(d, d).sqrt() * SLACK + h_norm * 2f32.powi(-22);
        if !h_norm.is_finite() {
            self.finite.store(false, Ordering::Relaxed);
        }
        let keep = self.k.max(64);
        let mut threshold = f32::NEG_INFINITY;
        let bytes = self.int8.strip_bytes();
        let mut start = strips.start;
        while start < strips.end {
            let end = strips.end.min(start + SCAN_STRIPS);
            sums.resize((end - start) * STRIP_ROWS, 0);
            // SAFETY: the kernel set is available.
            unsafe {
                (self.kernels.int8_sums)(&self.int8.data[start * bytes..end * bytes], q, quantized.sum, sums);
            }
            let rows = start * STRIP_ROWS..end * STRIP_ROWS;
            // SAFETY: promised by the caller.
            let upper = unsafe { self.upper.get_mut(rows.clone()) };
            for (i, row) in rows.enumerate().take_while(|(_, row)| *row < self.int8.rows) {
                let middle = sums[i] as f32 * (self.int8.scales[row] * inverse);
                let bound = self.int8.error[row] * h_norm
                    + self.int8.norm[row] * d_norm
                    + middle.abs() * 2f32.powi(-21);
                upper[i] = middle + bound;
                let lower = middle - bound;
                if lower > threshold {
                    own.lower.push(lower);
                    if own.lower.len() >= 4 * keep {
                        threshold = shrink(&mut own.lower, keep);
                    }
                }
            }
            start = end;
        }
    }
}

/// Keeps the `k` largest values; returns the smallest of them.
fn shrink(values: &mut Vec<f32>, k: usize) -> f32 {
    values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    values.truncate(k);
    values[k - 1]
}

/// The k-th largest lower end over all threads; negative infinity if there are fewer. `merged` is scratch.
fn kth_best(searches: &[Search], k: usize, merged: &mut Vec<f32>) -> f32 {
    merged.clear();
    for search in searches {
        merged.extend_from_slice(&search.lower);
    }
    if k == 0 || merged.len() < k { f32::NEG_INFINITY } else { shrink(merged, k) }
}
