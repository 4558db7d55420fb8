//! The output layer by its int8 rows: the best logits, found without reading the full-precision table, and approximate
//! logits where that is what was asked for.
//!
//! One pass over the int8 rows serves all hidden rows of a batch: a panel is read from memory once and multiplied with
//! up to [`HIDDEN_BLOCK`] of them at a time. Each thread keeps, for each hidden row, the largest lower ends that it met;
//! the k-th of them is a threshold that only rises, and only vocabulary rows whose upper end reaches it are remembered.
//! When all panels are done, the k-th best lower end over all threads is the final threshold: k logits are at least as
//! large, so that a row that stays below it cannot be among the k best. The rows that are left are computed in full
//! precision, read one by one from the model's file.

use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::Team;
use bitnet_model::{DenseTensor, ExecError, TopLogits};

use crate::int8_rows::Int8Rows;
use crate::kernels::KernelSet;
use crate::kernels::int8::{
    HIDDEN_BLOCK, Hidden, Intervals, PANEL_ROWS, Panel, PanelBounds, QUAD, Sums, below,
};
use crate::outcome::Outcome;
use crate::schedule::Ranges;
use crate::shared::Shared;

/// Consecutive vocabulary rows that are read from the file together.
const READ_ROWS: usize = 64;
/// Lower ends that a thread keeps at least: fewer would be sorted out too often.
const FEWEST_KEPT: usize = 16;
/// Candidates that there is room for from the start, so that steady decoding rarely allocates.
const CANDIDATES: usize = 1024;

/// What one thread found for one hidden row.
#[derive(Default)]
pub(crate) struct Search {
    /// At least so many lower ends as are asked for are as large as this.
    threshold: f32,
    /// Vocabulary rows whose upper end reached the threshold of their time.
    candidates: Vec<Candidate>,
    /// Those that reached the final one, with their logits.
    found: Vec<(u32, f32)>,
}

#[derive(Clone, Copy)]
struct Candidate {
    row: u32,
    upper: f32,
}

/// Memory for the searches of a batch.
pub(crate) struct OutputScratch {
    /// Quantised hidden rows: a single one as it is, several in blocks of [`HIDDEN_BLOCK`], quad by quad.
    q: AlignedBuf<i8>,
    hidden: Vec<Hidden>,
    /// `[hidden row][thread]`: lower ends that may be among the k best.
    lowers: Vec<Vec<f32>>,
    /// `[hidden row][thread]`.
    searches: Vec<Search>,
    /// Pieces of the output layer given out so far.
    taken: AtomicUsize,
}

/// Memory of one thread.
#[derive(Default)]
pub(crate) struct OutputThread {
    units: Vec<f32>,
    q: Vec<i8>,
    merged: Vec<f32>,
    pairs: Vec<(u32, f32)>,
    /// Rows read from the model's file.
    pub(crate) bytes: Vec<u8>,
}

impl OutputScratch {
    pub(crate) fn new() -> Result<Self, ExecError> {
        Ok(Self {
            q: AlignedBuf::zeroed(0)?,
            hidden: Vec::new(),
            lowers: Vec::new(),
            searches: Vec::new(),
            taken: AtomicUsize::new(0),
        })
    }

    /// Makes room for `rows` hidden rows of `padded` columns.
    pub(crate) fn ensure(&mut self, threads: usize, rows: usize, padded: usize) -> Result<(), ExecError> {
        if rows > self.hidden.len() {
            self.q = AlignedBuf::zeroed(0)?;
            self.q = AlignedBuf::zeroed(rows.next_multiple_of(HIDDEN_BLOCK) * padded)?;
            self.hidden.resize(rows, Hidden::default());
            self.lowers.resize_with(rows * threads, Vec::new);
            self.searches.resize_with(rows * threads, Search::default);
        }
        Ok(())
    }

    /// Hands it out to the threads of a pass.
    pub(crate) fn share(&mut self) -> OutputShared<'_> {
        self.taken.store(0, Ordering::Relaxed);
        OutputShared {
            q: Shared::new(&mut self.q),
            hidden: Shared::new(&mut self.hidden),
            lowers: Shared::new(&mut self.lowers),
            searches: Shared::new(&mut self.searches),
            taken: &self.taken,
        }
    }
}

/// An [`OutputScratch`] in the hands of all threads.
#[derive(Clone, Copy)]
pub(crate) struct OutputShared<'a> {
    q: Shared<'a, i8>,
    hidden: Shared<'a, Hidden>,
    lowers: Shared<'a, Vec<f32>>,
    searches: Shared<'a, Search>,
    taken: &'a AtomicUsize,
}

/// The output layer of one pass.
pub(crate) struct Scan<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) int8: &'a Int8Rows,
    /// The full-precision table.
    pub(crate) dense: &'a DenseTensor,
    /// Normed hidden rows, `[rows][stride]`.
    pub(crate) h: Shared<'a, f32>,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) scratch: OutputShared<'a>,
    pub(crate) outcome: &'a Outcome,
}

impl<'a> Scan<'a> {
    /// Hidden rows that lie side by side.
    fn block(&self) -> usize {
        if self.rows == 1 { 1 } else { HIDDEN_BLOCK }
    }

    /// # Safety
    /// Nothing writes to the row meanwhile.
    unsafe fn hidden_row(&self, row: usize) -> &'a [f32] {
        // SAFETY: promised by the caller.
        unsafe { self.h.get(row * self.stride..row * self.stride + self.dense.cols()) }
    }

    /// Quantises a normed hidden row and puts it where the scan reads it; a barrier must follow.
    ///
    /// # Safety
    /// The row belongs to this thread.
    pub(crate) unsafe fn quantize(&self, row: usize, own: &mut OutputThread) {
        let (padded, block) = (self.int8.padded_cols(), self.block());
        own.units.resize(self.dense.cols(), 0.0);
        own.q.resize(padded, 0);
        // SAFETY: the kernel set is available, the row and its place belong to this thread.
        unsafe {
            let hidden = (self.kernels.int8_hidden)(self.hidden_row(row), &mut own.units, &mut own.q);
            let hidden = if self.int8.is_exact() { hidden } else { hidden.approximate() };
            self.scratch.hidden.get_mut(row..row + 1)[0] = hidden;
            let start = row / block * block * padded + row % block * QUAD;
            for (i, quad) in own.q.as_chunks::<QUAD>().0.iter().enumerate() {
                let at = start + i * block * QUAD;
                self.scratch.q.get_mut(at..at + QUAD).copy_from_slice(quad);
            }
        }
    }

    /// Goes once through this thread's part of the int8 rows and calls `visit` with hidden row, panel and sums.
    ///
    /// # Safety
    /// All threads of the team call this after the barrier that follows [`Scan::quantize`].
    unsafe fn scan(
        &self,
        team: &Team<'_>,
        mut visit: impl FnMut(usize, usize, &[i32; PANEL_ROWS], &PanelBounds, &Hidden),
    ) {
        let (padded, block) = (self.int8.padded_cols(), self.block());
        // SAFETY: quantised rows are only read in this phase.
        let hidden = unsafe { self.scratch.hidden.get(0..self.rows) };
        let mut sums: Sums = [[0; PANEL_ROWS]; HIDDEN_BLOCK];
        for panel in Ranges::new(team, self.int8.panels(), self.scratch.taken).flatten() {
            let (weights, bounds) = self.int8.panel(panel);
            for (i, hidden) in hidden.chunks(block).enumerate() {
                let start = i * block * padded;
                // SAFETY: as above; the kernel set is available.
                unsafe {
                    let q = self.scratch.q.get(start..start + block * padded);
                    (self.kernels.int8_sums)(&Panel { weights, q, stride: block, hidden }, &mut sums);
                }
                for (m, hidden) in hidden.iter().enumerate() {
                    visit(i * block + m, panel, &sums[m], bounds, hidden);
                }
            }
        }
    }

    /// All logits as the int8 rows give them, `[rows, vocab]`.
    ///
    /// # Safety
    /// As [`Scan::scan`]; nothing else touches `logits`.
    pub(crate) unsafe fn approximate(&self, team: &Team<'_>, logits: Shared<'_, f32>) {
        let vocab = self.int8.rows();
        let mut intervals = Intervals::NONE;
        let mut finite = true;
        // SAFETY: promised by the caller; panels are shared out, the kernel set is available.
        unsafe {
            self.scan(team, |row, panel, sums, bounds, hidden| {
                (self.kernels.int8_intervals)(sums, bounds, hidden, f32::INFINITY, &mut intervals);
                let rows = self.int8.panel_rows(panel);
                let found = &intervals.upper[..rows.len()];
                finite &= found.iter().all(|l| l.is_finite());
                logits.get_mut(row * vocab + rows.start..row * vocab + rows.end).copy_from_slice(found);
            });
        }
        if !finite {
            self.outcome.not_finite();
        }
    }

    /// At least the `k` best logits of each hidden row.
    ///
    /// # Safety
    /// As [`Scan::scan`]; nothing else touches `top`, one element for each hidden row.
    pub(crate) unsafe fn top(
        &self,
        team: &Team<'_>,
        k: usize,
        own: &mut OutputThread,
        top: Shared<'_, TopLogits>,
    ) {
        let k = k.clamp(1, self.int8.rows());
        let threads = team.threads();
        let mine = |row: usize| row * threads + team.index()..row * threads + team.index() + 1;
        let all = |row: usize| row * threads..(row + 1) * threads;
        // SAFETY: each thread has its own searches until the last barrier, and its own lower ends until the first.
        unsafe {
            for row in 0..self.rows {
                self.scratch.searches.get_mut(mine(row))[0].begin();
                self.scratch.lowers.get_mut(mine(row))[0].clear();
            }
            let mut intervals = Intervals::NONE;
            self.scan(team, |row, panel, sums, bounds, hidden| {
                let search = &mut self.scratch.searches.get_mut(mine(row))[0];
                let reached =
                    (self.kernels.int8_intervals)(sums, bounds, hidden, search.threshold, &mut intervals);
                if reached {
                    let rows = self.int8.panel_rows(panel);
                    search.take(rows, &intervals, k, &mut self.scratch.lowers.get_mut(mine(row))[0]);
                }
            });
        }
        team.barrier();
        for row in 0..self.rows {
            // SAFETY: after the barrier lower ends are only read.
            let threshold = kth_best(unsafe { self.scratch.lowers.get(all(row)) }, k, &mut own.merged);
            // SAFETY: as above; hidden rows are only read.
            unsafe {
                let search = &mut self.scratch.searches.get_mut(mine(row))[0];
                search.candidates.retain(|c| !below(c.upper, threshold));
                self.finish(search, self.hidden_row(row), own);
            }
        }
        team.barrier();
        for row in team.share(self.rows) {
            // SAFETY: after the barrier searches are only read; rows are shared out.
            unsafe { collect(self.scratch.searches.get(all(row)), own, &mut top.get_mut(row..row + 1)[0]) };
        }
    }

    /// Computes the logits of the candidates that are left.
    fn finish(&self, search: &mut Search, h: &[f32], own: &mut OutputThread) {
        let Search { candidates, found, .. } = search;
        if self.int8.is_exact() {
            let mut logits = [0.0; READ_ROWS];
            for run in candidates.chunk_by(|a, b| a.row + 1 == b.row).flat_map(|run| run.chunks(READ_ROWS)) {
                let first = run[0].row as usize;
                let bytes = match self.dense.read_rows(first..first + run.len(), &mut own.bytes) {
                    Ok(bytes) => bytes,
                    Err(error) => return self.outcome.fail(error),
                };
                // SAFETY: the kernel set is available.
                unsafe { (self.kernels.dense)(self.dense.dtype(), bytes, h, &mut logits[..run.len()]) };
                found.extend(run.iter().zip(&logits).map(|(c, &logit)| (c.row, logit)));
            }
        } else {
            // Intervals have no width.
            found.extend(candidates.iter().map(|c| (c.row, c.upper)));
        }
        if !found.iter().all(|(_, logit)| logit.is_finite()) {
            self.outcome.not_finite();
        }
    }
}

impl Search {
    fn begin(&mut self) {
        self.threshold = f32::NEG_INFINITY;
        self.candidates.clear();
        self.candidates.reserve(CANDIDATES);
        self.found.clear();
        self.found.reserve(CANDIDATES);
    }

    /// Takes the rows of a panel whose intervals reach the threshold.
    fn take(&mut self, rows: std::ops::Range<usize>, intervals: &Intervals, k: usize, lowers: &mut Vec<f32>) {
        let keep = k.max(FEWEST_KEPT);
        for ((row, &upper), &lower) in rows.zip(&intervals.upper).zip(&intervals.lower) {
            if !below(upper, self.threshold) {
                self.candidates.push(Candidate { row: row as u32, upper });
                if lower > self.threshold {
                    lowers.push(lower);
                    if lowers.len() >= 4 * keep {
                        self.threshold = shrink(lowers, keep);
                    }
                }
            }
        }
    }
}

/// Gives what all threads found for a hidden row, ascending by token.
fn collect(searches: &[Search], own: &mut OutputThread, top: &mut TopLogits) {
    own.pairs.clear();
    own.pairs.reserve(CANDIDATES);
    for search in searches {
        own.pairs.extend_from_slice(&search.found);
    }
    own.pairs.sort_unstable_by_key(|&(id, _)| id);
    top.ids.clear();
    top.ids.reserve(CANDIDATES);
    top.ids.extend(own.pairs.iter().map(|&(id, _)| id));
    top.logits.clear();
    top.logits.reserve(CANDIDATES);
    top.logits.extend(own.pairs.iter().map(|&(_, logit)| logit));
}

/// Keeps the `k` largest values; returns the smallest of them.
fn shrink(values: &mut Vec<f32>, k: usize) -> f32 {
    values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    values.truncate(k);
    values[k - 1]
}

/// The k-th largest lower end over all threads; negative infinity if there are fewer. `merged` is scratch.
fn kth_best(lowers: &[Vec<f32>], k: usize, merged: &mut Vec<f32>) -> f32 {
    merged.clear();
    for lowers in lowers {
        merged.extend_from_slice(lowers);
    }
    if merged.len() < k { f32::NEG_INFINITY } else { shrink(merged, k) }
}
