//! The output layer by its int8 rows: the best logits, found without reading the full-precision table, and approximate
//! logits where that is what was asked for.
//!
//! One pass over the int8 rows serves all hidden rows of a batch: a panel is read from memory once and multiplied with
//! up to four of them (eight with AMX) at a time. Each thread keeps, for each hidden row, the largest lower ends that it met;
//! the k-th of them is a threshold that only rises, and only vocabulary rows whose upper end reaches it are remembered.
//! When all panels are done, the k-th best lower end over all threads is the final threshold: k logits are at least as
//! large, so that a row that stays below it cannot be among the k best.
//!
//! The rows that are left are computed in full precision, read from the model's file. The most promising come first, and
//! the threads share the k best logits found so far: the k-th of them is a threshold as well, higher than that of the
//! lower ends, and a thread is done when its next row cannot reach it. Which rows are computed depends on who is faster,
//! what is given does not: exactly the rows whose logits are not below the k-th best one.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitnet_core::CoreError;
use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::Team;
use bitnet_model::{DenseTensor, ExecError, TokenSet, TopLogits};

use crate::best::Best;
use crate::int8_rows::Int8Rows;
use crate::kernels::int8::{
    Hidden, Intervals, PANEL_ROWS, PARTS, Panel, PanelBounds, PartLayout, PartSums, Sums, TILE_PARTS, below,
};
use crate::kernels::{KernelSet, prefetch};
use crate::outcome::Outcome;
use crate::schedule::Ranges;
use crate::shared::Shared;
use crate::want::RowWants;

/// Candidates that are computed before the threshold is looked at again: as many as the threads need to find one, within
/// limits. Those that lie side by side are read from the file together.
const FEWEST_TAKEN: usize = 4;
const MOST_TAKEN: usize = 64;
/// Lower ends that a thread keeps at least: fewer would be sorted out too often.
const FEWEST_KEPT: usize = 16;
/// Candidates of a thread that there is room for from the start, so that steady decoding does not allocate: how many there
/// are depends on the logits and on how threads share the rows.
const CANDIDATES: usize = 8192;
/// So few tokens that count are computed in full without looking at their int8 rows, which come in panels with others.
const DIRECT: usize = 512;
const _: () = assert!(PANEL_ROWS == u32::BITS as usize, "a word of a set of tokens is a panel");

/// What one thread found for one hidden row.
#[derive(Default)]
pub(crate) struct Search {
    /// At least so many lower ends as are asked for are as large as this.
    threshold: f32,
    /// Vocabulary rows whose upper end reached the threshold of their time.
    candidates: Vec<Candidate>,
    /// Those that were computed, with their logits.
    found: Vec<(u32, f32)>,
    /// Whether the tokens that count are so few that all of them are candidates.
    direct: bool,
}

#[derive(Clone, Copy)]
struct Candidate {
    row: u32,
    /// Upper end; infinite if it is not a number, so that it comes first and is noticed.
    upper: f32,
}

/// Memory for the searches of a batch.
pub(crate) struct OutputScratch {
    /// Parts of quantised hidden rows, block by block as [`PartLayout`] says.
    q: AlignedBuf<i8>,
    hidden: Vec<Hidden>,
    /// Sums of each part of each hidden row.
    part_sums: Vec<[i32; PARTS]>,
    /// `[hidden row][thread]`: lower ends that may be among the k best.
    lowers: Vec<Vec<f32>>,
    /// `[hidden row][thread]`.
    searches: Vec<Search>,
    /// One for each hidden row.
    best: Vec<Mutex<Best>>,
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
            part_sums: Vec::new(),
            lowers: Vec::new(),
            searches: Vec::new(),
            best: Vec::new(),
            taken: AtomicUsize::new(0),
        })
    }

    /// Makes room for `rows` hidden rows of `padded` columns.
    pub(crate) fn ensure(&mut self, threads: usize, rows: usize, padded: usize) -> Result<(), ExecError> {
        if rows > self.hidden.len() {
            self.q = AlignedBuf::zeroed(0)?;
            self.q = AlignedBuf::zeroed((rows * PARTS).next_multiple_of(TILE_PARTS) * padded)?;
            self.hidden.resize(rows, Hidden::default());
            self.part_sums.resize(rows, [0; PARTS]);
            self.best.resize_with(rows, Mutex::default);
            self.lowers.resize_with(rows * threads, Vec::new);
            self.searches.resize_with(rows * threads, Search::default);
        }
        Ok(())
    }

    /// Hands it out to the threads of a pass.
    pub(crate) fn share(&mut self) -> OutputShared<'_> {
        self.taken.store(0, Ordering::Relaxed);
        for best in &mut self.best {
            best.get_mut().unwrap_or_else(PoisonError::into_inner).begin();
        }
        OutputShared {
            q: Shared::new(&mut self.q),
            hidden: Shared::new(&mut self.hidden),
            part_sums: Shared::new(&mut self.part_sums),
            lowers: Shared::new(&mut self.lowers),
            searches: Shared::new(&mut self.searches),
            best: &self.best,
            taken: &self.taken,
        }
    }
}

/// An [`OutputScratch`] in the hands of all threads.
#[derive(Clone, Copy)]
pub(crate) struct OutputShared<'a> {
    q: Shared<'a, i8>,
    hidden: Shared<'a, Hidden>,
    part_sums: Shared<'a, [i32; PARTS]>,
    lowers: Shared<'a, Vec<f32>>,
    searches: Shared<'a, Search>,
    best: &'a [Mutex<Best>],
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
    /// How hidden rows lie in memory.
    fn layout(&self) -> PartLayout {
        PartLayout::of(self.kernels.hidden_layout, self.rows, self.int8.padded_cols())
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
        let (padded, layout) = (self.int8.padded_cols(), self.layout());
        own.units.resize(self.dense.cols(), 0.0);
        own.q.resize(PARTS * padded, 0);
        // SAFETY: the kernel set is available, the row and its place belong to this thread.
        unsafe {
            let hidden = (self.kernels.int8_hidden)(self.hidden_row(row), &mut own.units, &mut own.q);
            let hidden = if self.int8.is_exact() { hidden } else { hidden.approximate() };
            self.scratch.hidden.get_mut(row..row + 1)[0] = hidden;
            self.scratch.part_sums.get_mut(row..row + 1)[0] = hidden.sums;
            let size = layout.stride() * padded;
            let start = row / layout.block() * size;
            for (part, values) in own.q.chunks_exact(padded).enumerate() {
                let part = row % layout.block() * PARTS + part;
                layout.place(values, part, self.scratch.q.part(start..start + size));
            }
        }
    }

    /// Goes once through this thread's part of the int8 rows and calls `visit` with hidden row, panel and sums. A panel of
    /// which `counts` finds nothing for a hidden row is left out.
    ///
    /// # Safety
    /// All threads of the team call this after the barrier that follows [`Scan::quantize`].
    unsafe fn scan(
        &self,
        team: &Team<'_>,
        counts: impl Fn(usize, usize) -> bool,
        mut visit: impl FnMut(usize, usize, &PartSums, &PanelBounds, &Hidden),
    ) {
        let layout = self.layout();
        let (block, size) = (layout.block(), layout.stride() * self.int8.padded_cols());
        // SAFETY: quantised rows are only read in this phase.
        let (hidden, part_sums) =
            unsafe { (self.scratch.hidden.get(0..self.rows), self.scratch.part_sums.get(0..self.rows)) };
        let mut sums: Sums = [[0; PANEL_ROWS]; TILE_PARTS];
        for panel in Ranges::new(team, self.int8.panels(), self.scratch.taken).flatten() {
            let (weights, bounds) = self.int8.panel(panel);
            for (i, (hidden, part_sums)) in hidden.chunks(block).zip(part_sums.chunks(block)).enumerate() {
                if !(i * block..i * block + hidden.len()).any(|row| counts(row, panel)) {
                    continue;
                }
                let part_sums = part_sums.as_flattened();
                // SAFETY: as above; the kernel set is available.
                unsafe {
                    let q = self.scratch.q.get(i * size..(i + 1) * size);
                    (self.kernels.int8_sums)(&Panel { weights, q, layout, part_sums }, &mut sums);
                }
                for (m, (hidden, sums)) in hidden.iter().zip(sums.as_chunks().0).enumerate() {
                    if counts(i * block + m, panel) {
                        visit(i * block + m, panel, sums, bounds, hidden);
                    }
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
            self.scan(
                team,
                |_, _| true,
                |row, panel, sums, bounds, hidden| {
                    (self.kernels.int8_intervals)(sums, bounds, hidden, f32::INFINITY, &mut intervals);
                    let rows = self.int8.panel_rows(panel);
                    let found = &intervals.upper[..rows.len()];
                    finite &= found.iter().all(|l| l.is_finite());
                    logits.get_mut(row * vocab + rows.start..row * vocab + rows.end).copy_from_slice(found);
                },
            );
        }
        if !finite {
            self.outcome.not_finite();
        }
    }

    /// Of each hidden row the `k` best logits of the tokens that count, and those that equal the last of them.
    ///
    /// # Safety
    /// As [`Scan::scan`]; nothing else touches `top`, one element for each hidden row.
    pub(crate) unsafe fn top(
        &self,
        team: &Team<'_>,
        wants: RowWants<'_>,
        own: &mut OutputThread,
        top: Shared<'_, TopLogits>,
    ) {
        let (threads, vocab) = (team.threads(), self.int8.rows());
        let k = |row: usize| wants.top(row).k.clamp(1, vocab);
        let mine = |row: usize| row * threads + team.index()..row * threads + team.index() + 1;
        let all = |row: usize| row * threads..(row + 1) * threads;
        own.merged.clear();
        // SAFETY: each thread has its own searches until the last barrier, and its own lower ends until the first.
        unsafe {
            for row in 0..self.rows {
                let kept = 4 * k(row).max(FEWEST_KEPT);
                let lowers = &mut self.scratch.lowers.get_mut(mine(row))[0];
                lowers.clear();
                lowers.reserve(kept);
                own.merged.reserve(kept * threads);
                self.scratch.searches.get_mut(mine(row))[0].begin(wants.top(row).allowed, vocab, team);
            }
            let lanes = |row: usize, panel: usize| {
                let allowed = wants.top(row).allowed.map_or(u32::MAX, |set| set.word(panel));
                if self.scratch.searches.get(mine(row))[0].direct { 0 } else { allowed }
            };
            let mut intervals = Intervals::NONE;
            self.scan(
                team,
                |row, panel| lanes(row, panel) != 0,
                |row, panel, sums, bounds, hidden| {
                    let lanes = lanes(row, panel);
                    let search = &mut self.scratch.searches.get_mut(mine(row))[0];
                    let reached =
                        (self.kernels.int8_intervals)(sums, bounds, hidden, search.threshold, &mut intervals);
                    if reached & lanes != 0 {
                        let lowers = &mut self.scratch.lowers.get_mut(mine(row))[0];
                        search.take(self.int8.panel_rows(panel), reached & lanes, &intervals, k(row), lowers);
                    }
                },
            );
        }
        team.barrier();
        for row in 0..self.rows {
            let k = k(row);
            // SAFETY: after the barrier lower ends are only read.
            let threshold = kth_best(unsafe { self.scratch.lowers.get(all(row)) }, k, &mut own.merged);
            // SAFETY: as above; hidden rows are only read.
            unsafe {
                let search = &mut self.scratch.searches.get_mut(mine(row))[0];
                search.candidates.retain(|c| !below(c.upper, threshold));
                self.finish(search, row, k.div_ceil(threads), k, own);
            }
        }
        team.barrier();
        for row in team.share(self.rows) {
            let threshold = self.best(row).threshold(k(row));
            // SAFETY: after the barrier searches are only read; rows are shared out.
            unsafe {
                collect(
                    self.scratch.searches.get(all(row)),
                    threshold,
                    own,
                    &mut top.get_mut(row..row + 1)[0],
                );
            }
        }
    }

    fn best(&self, row: usize) -> MutexGuard<'_, Best> {
        self.scratch.best[row].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes the logits of the candidates that are left, `step` or so at a time, until none can be among the `k` best.
    ///
    /// # Safety
    /// Nothing writes to the hidden row meanwhile.
    unsafe fn finish(&self, search: &mut Search, row: usize, step: usize, k: usize, own: &mut OutputThread) {
        let Search { candidates, found, .. } = search;
        candidates.sort_unstable_by(|a, b| b.upper.total_cmp(&a.upper).then(a.row.cmp(&b.row)));
        // SAFETY: promised by the caller.
        let h = unsafe { self.hidden_row(row) };
        let step = step.clamp(FEWEST_TAKEN, MOST_TAKEN);
        self.prefetch(&candidates[..candidates.len().min(2 * step)]);
        let mut logits = [0.0; MOST_TAKEN];
        let mut threshold = self.best(row).threshold(k);
        for next in candidates.chunks_mut(step) {
            let reaching = next.iter().take_while(|c| !below(c.upper, threshold)).count();
            let next = &mut next[..reaching];
            if next.is_empty() {
                break;
            }
            let logits = &mut logits[..next.len()];
            if let Err(error) = self.compute(next, h, &mut own.bytes, logits) {
                return self.outcome.fail(error);
            }
            if !logits.iter().all(|logit| logit.is_finite()) {
                return self.outcome.not_finite();
            }
            found.extend(next.iter().zip(&*logits).map(|(c, &logit)| (c.row, logit)));
            threshold = self.best(row).add(logits, k);
        }
    }

    /// Fetches the rows of candidates that will be computed soon: they lie anywhere in the table. Those of mapped files are
    /// copied by the system, which does that itself.
    fn prefetch(&self, candidates: &[Candidate]) {
        if self.int8.is_exact() && !self.dense.data().is_mapped() {
            candidates.iter().for_each(|c| prefetch::bytes(self.dense.row_bytes(c.row as usize)));
        }
    }

    /// The logits of some candidates, which it puts into order of rows. `bytes` is scratch.
    fn compute(
        &self,
        candidates: &mut [Candidate],
        h: &[f32],
        bytes: &mut Vec<u8>,
        logits: &mut [f32],
    ) -> Result<(), CoreError> {
        if !self.int8.is_exact() {
            // Intervals have no width.
            logits.iter_mut().zip(candidates).for_each(|(logit, c)| *logit = c.upper);
            return Ok(());
        }
        candidates.sort_unstable_by_key(|c| c.row);
        let mut done = 0;
        for run in candidates.chunk_by(|a, b| a.row + 1 == b.row) {
            let first = run[0].row as usize;
            let rows = self.dense.read_rows(first..first + run.len(), bytes)?;
            let logits = &mut logits[done..done + run.len()];
            // SAFETY: the kernel set is available.
            unsafe { (self.kernels.dense)(rows.dtype, rows.bytes, h, logits) };
            done += run.len();
        }
        Ok(())
    }
}

impl Search {
    /// Begins to search among the tokens that count, `vocab` at most.
    fn begin(&mut self, allowed: Option<TokenSet<'_>>, vocab: usize, team: &Team<'_>) {
        self.threshold = f32::NEG_INFINITY;
        self.candidates.clear();
        self.candidates.reserve(CANDIDATES);
        self.found.clear();
        self.found.reserve(CANDIDATES);
        let few = allowed.map(|set| (set, set.count())).filter(|&(_, count)| count <= DIRECT);
        self.direct = few.is_some();
        if let Some((set, count)) = few {
            let share = team.share(count);
            let tokens = set.tokens().skip(share.start).take(share.len());
            let candidate = |row| Candidate { row, upper: f32::INFINITY };
            self.candidates.extend(tokens.filter(|&row| (row as usize) < vocab).map(candidate));
        }
    }

    /// Takes those of the rows of a panel, at least one, for which a bit of `lanes` is set and whose intervals reach the
    /// threshold.
    fn take(
        &mut self,
        rows: Range<usize>,
        lanes: u32,
        intervals: &Intervals,
        k: usize,
        lowers: &mut Vec<f32>,
    ) {
        let keep = k.max(FEWEST_KEPT);
        // The last panel is filled up with rows that do not exist.
        let mut left = lanes & (u32::MAX >> (PANEL_ROWS - rows.len()));
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            left &= left - 1;
            let (upper, lower) = (intervals.upper[lane], intervals.lower[lane]);
            if !below(upper, self.threshold) {
                let upper = if upper.is_nan() { f32::INFINITY } else { upper };
                self.candidates.push(Candidate { row: (rows.start + lane) as u32, upper });
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

/// Gives what all threads found for a hidden row, but for what is below the threshold, ascending by token.
fn collect(searches: &[Search], threshold: f32, own: &mut OutputThread, top: &mut TopLogits) {
    own.pairs.clear();
    own.pairs.reserve(CANDIDATES);
    for search in searches {
        own.pairs.extend(search.found.iter().filter(|(_, logit)| !below(*logit, threshold)));
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

#[cfg(test)]
mod tests {
    use bitnet_core::DType;
    use bitnet_core::bytes::ByteView;
    use bitnet_core::pool::ThreadPool;
    use bitnet_model::TopWant;
    use bitnet_model::conformance::Random;

    use super::*;
    use crate::kernels::ALL;

    const VOCAB: usize = 4096;
    const COLS: usize = 512;

    /// Rows whose elements have about a normal distribution, as text models have them.
    fn normal(random: &mut Random, count: usize) -> Vec<f32> {
        (0..count).map(|_| (0..6).map(|_| random.next_f32()).sum()).collect()
    }

    /// Searches with several threads; returns for each hidden row the tokens found and how many rows were computed.
    fn search(table: &[f32], h: &mut [f32], threads: usize, k: usize) -> Vec<(Vec<u32>, usize)> {
        let (kernels, rows) = (ALL.iter().find(|set| set.is_available()).unwrap(), h.len() / COLS);
        let mut pool = ThreadPool::new(threads).unwrap();
        let view = ByteView::from_vec(DType::F32.encode(table));
        let dense = DenseTensor::new(VOCAB, COLS, DType::F32, view).unwrap();
        let int8 = Int8Rows::new(&mut pool, kernels, &dense, true).unwrap();
        let mut scratch = OutputScratch::new().unwrap();
        scratch.ensure(threads, rows, int8.padded_cols()).unwrap();
        let (outcome, mut top) = (Outcome::default(), vec![TopLogits::default(); rows]);
        let scan = Scan {
            kernels,
            int8: &int8,
            dense: &dense,
            h: Shared::new(h),
            stride: COLS,
            rows,
            scratch: scratch.share(),
            outcome: &outcome,
        };
        let to = Shared::new(&mut top);
        pool.run(|team| {
            let mut own = OutputThread::default();
            // SAFETY: rows are shared out, and a barrier follows the quantising.
            unsafe {
                for row in team.share(rows) {
                    scan.quantize(row, &mut own);
                }
                team.barrier();
                scan.top(team, RowWants::Top(TopWant { k, allowed: None }), &mut own, to);
            }
        });
        let computed = scratch.searches.chunks(threads).map(|s| s.iter().map(|s| s.found.len()).sum());
        top.into_iter().map(|t| t.ids).zip(computed).collect()
    }

    #[test]
    fn few_rows_are_computed_in_full() {
        let mut random = Random::new(3);
        let (table, mut h) = (normal(&mut random, VOCAB * COLS), normal(&mut random, 9 * COLS));
        for (threads, rows) in [(1, 1), (1, 9), (4, 1), (4, 9)] {
            // What several threads compute depends on who is faster.
            for (k, most) in if threads == 1 { [(1, 8), (40, 80)] } else { [(1, 16), (40, 160)] } {
                for (ids, computed) in search(&table, &mut h[..rows * COLS], threads, k) {
                    assert_eq!(ids.len(), k);
                    assert!((k..=most).contains(&computed), "{computed} rows for {k}, {threads} threads");
                }
            }
        }
    }
}
