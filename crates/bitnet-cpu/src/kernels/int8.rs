//! The int8 output layer in kernels: quantising its rows and the hidden row, exact sums, and intervals from them.
//!
//! A *panel* is 32 vocabulary rows, interleaved: first the four columns 0..4 of all of them, row `r` in bytes
//! `4 r .. 4 r + 4`, then the next four columns, and so on. A thread that goes through a panel reads memory in order, and
//! each 32-bit lane of a register belongs to one row. See [`crate::int8_rows`] for what the intervals are good for.
//!
//! A hidden row is two rows of int8 values, a coarse and a fine one, `h = b (q1 + q2 / 128) + d`: the scan waits for
//! memory, so that twice the products cost little, and `d` becomes small beside the rounding of the weights.

use bitnet_core::{DType, lanes};
use bitnet_quant::absmax;

use super::generic::{bf16_to_f32, f16_to_f32};
use super::{TILE_COLS, TILE_ROWS};
use crate::shared::Shared;

/// Vocabulary rows of a panel.
pub(crate) const PANEL_ROWS: usize = 32;
/// Columns that lie together.
pub(crate) const QUAD: usize = 4;
/// Bytes of four columns of all rows of a panel.
pub(crate) const TILE: usize = PANEL_ROWS * QUAD;
/// Columns are padded to a multiple of this, so that kernels may take four quads at a time.
pub(crate) const COLS_STEP: usize = 4 * QUAD;
/// Int8 rows that a hidden row is made of.
pub(crate) const PARTS: usize = 2;
/// What the coarse part counts as a multiple of the fine one.
const FINE: f32 = (1 << FINE_BITS) as f32;
/// The same as a power of two.
pub(crate) const FINE_BITS: u32 = 7;
/// Hidden rows that are scanned together at most.
pub(crate) const HIDDEN_BLOCK: usize = 4;
/// Their int8 rows.
pub(crate) const BLOCK_PARTS: usize = HIDDEN_BLOCK * PARTS;
/// Int8 rows that kernels which take them as tiles scan together at most.
pub(crate) const TILE_PARTS: usize = TILE_ROWS;
/// From this width on sums would not fit 32 bits.
pub(crate) const MAX_COLS: usize = 1 << 16;

/// Makes a bound larger than all roundings in computing it can make it smaller: sums of squares over fewer than
/// [`MAX_COLS`] elements in sixteen lanes lose at most a part of 2^-11 (more than anything else does).
const SLACK: f32 = 1.001;
/// A largest magnitude below this is not scaled by: the scale would lose bits, or its inverse overflow.
const SMALLEST: f32 = f32::from_bits((127 - 93) << 23);

/// Sums of one panel for a block of hidden rows: `[2 * hidden row + part][vocabulary row]`.
pub(crate) type Sums = [[i32; PANEL_ROWS]; TILE_PARTS];
/// Those of one hidden row. What counts is the coarse sum times 128 and the fine one together; kernels may divide that
/// between the two as suits them.
pub(crate) type PartSums = [[i32; PANEL_ROWS]; PARTS];

/// How the parts of a block of hidden rows lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartLayout {
    /// The first four columns of each part, then the next four; [`PARTS`] or [`BLOCK_PARTS`] of them lie side by side, of
    /// which the last may be unused.
    Quads {
        /// Parts that lie side by side.
        stride: usize,
    },
    /// The first 64 columns of each of [`TILE_PARTS`] parts, then the next 64.
    Tiles,
    /// The first four columns of each hidden row, then the next four; a column is 16 bits, `128 coarse + fine`.
    Words {
        /// Hidden rows that lie side by side, 1 or [`HIDDEN_BLOCK`], of which the last may be unused.
        rows: usize,
    },
}

impl PartLayout {
    /// Parts of several hidden rows side by side.
    pub(crate) const BLOCK: Self = Self::Quads { stride: BLOCK_PARTS };

    /// How kernels that want several hidden rows in the layout `several` want so many of `cols` columns.
    pub(crate) fn of(several: Self, hidden_rows: usize, cols: usize) -> Self {
        match several {
            Self::Words { .. } if hidden_rows == 1 => Self::Words { rows: 1 },
            _ if hidden_rows == 1 => Self::Quads { stride: PARTS },
            Self::Tiles if !cols.is_multiple_of(TILE_COLS) => Self::BLOCK,
            _ => several,
        }
    }

    /// Parts that lie side by side.
    pub(crate) fn stride(self) -> usize {
        match self {
            PartLayout::Quads { stride } => stride,
            PartLayout::Tiles => TILE_PARTS,
            PartLayout::Words { rows } => rows * PARTS,
        }
    }

    /// Hidden rows of a block.
    pub(crate) fn block(self) -> usize {
        self.stride() / PARTS
    }

    /// Writes part `part` of a block to its place in the block; the coarse part of a hidden row comes before its fine one.
    ///
    /// # Safety
    /// No other thread touches this part meanwhile.
    pub(crate) unsafe fn place(self, values: &[i8], part: usize, block: Shared<'_, i8>) {
        let (step, stride) = match self {
            PartLayout::Quads { stride } => (QUAD, stride),
            PartLayout::Tiles => (TILE_COLS, TILE_PARTS),
            // SAFETY: promised by the caller.
            PartLayout::Words { rows } => return unsafe { place_words(values, part, rows, block) },
        };
        for (i, values) in values.chunks_exact(step).enumerate() {
            let at = (i * stride + part) * step;
            // SAFETY: promised by the caller.
            unsafe { block.get_mut(at..at + step) }.copy_from_slice(values);
        }
    }
}

/// [`PartLayout::place`] for [`PartLayout::Words`] of so many rows.
///
/// # Safety
/// As there.
unsafe fn place_words(values: &[i8], part: usize, rows: usize, block: Shared<'_, i8>) {
    let (row, fine) = (part / PARTS, part % PARTS == 1);
    for (i, values) in values.as_chunks::<QUAD>().0.iter().enumerate() {
        let at = (i * rows + row) * QUAD * size_of::<i16>();
        // SAFETY: promised by the caller.
        let words = unsafe { block.get_mut(at..at + QUAD * size_of::<i16>()) };
        for (word, &q) in words.as_chunks_mut::<2>().0.iter_mut().zip(values) {
            let coarse = i16::from_ne_bytes(word.map(i8::cast_unsigned));
            let value = if fine { coarse + i16::from(q) } else { i16::from(q) * FINE as i16 };
            *word = value.to_ne_bytes().map(u8::cast_signed);
        }
    }
}

/// A panel and the parts of some hidden rows whose products are wanted.
pub(crate) struct Panel<'a> {
    /// `[quads][32][4]`.
    pub(crate) weights: &'a [i8],
    /// The parts.
    pub(crate) q: &'a [i8],
    /// How they lie there.
    pub(crate) layout: PartLayout,
    /// Sums of the int8 values of each part that is used, an even number of them.
    pub(crate) part_sums: &'a [i32],
}

impl Panel<'_> {
    /// Quads of a row, a multiple of four.
    pub(crate) fn quads(&self) -> usize {
        self.weights.len() / TILE
    }

    /// Checks, once a call, what the inner loops rely on.
    pub(crate) fn check(&self) {
        assert!(self.weights.len().is_multiple_of(4 * TILE));
        let stride = self.layout.stride();
        assert_eq!(self.q.len(), self.quads() * QUAD * stride);
        assert!((1..=stride.min(TILE_PARTS)).contains(&self.part_sums.len()));
        assert!(self.part_sums.len().is_multiple_of(PARTS) && stride.is_multiple_of(PARTS));
        assert!(self.layout != PartLayout::Tiles || (self.quads() * QUAD).is_multiple_of(TILE_COLS));
    }
}

/// What is kept of a vocabulary row `w = a q + e` beside its int8 values `q`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Int8Row {
    /// `a`; not a number if the row holds values that are not finite.
    pub(crate) scale: f32,
    /// At least `|e| + (n / 16 + 8) 2^-24 |w|`: what `|h|` is multiplied by.
    pub(crate) error: f32,
    /// At least `|a q|`: what `|d|` is multiplied by.
    pub(crate) norm: f32,
}

/// What is known of a hidden row `h = b (q1 + q2 / 128) + d` beside its int8 values, and how wide its intervals are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Hidden {
    /// `b`.
    pub(crate) scale: f32,
    /// Sums of the int8 values of each part.
    pub(crate) sums: [i32; PARTS],
    /// At least `|h|`.
    pub(crate) norm: f32,
    /// At least `|d|`.
    pub(crate) residual: f32,
    /// Half width for the rounding of the middle, as a part of the magnitudes it is made of.
    pub(crate) relative: f32,
    /// Half width for everything that underflows.
    pub(crate) floor: f32,
}

impl Hidden {
    /// The same row with intervals of no width: only the sums count.
    pub(crate) fn approximate(self) -> Self {
        Self { norm: 0.0, residual: 0.0, relative: 0.0, floor: 0.0, ..self }
    }
}

/// Intervals of the logits of a panel.
pub(crate) struct Intervals {
    pub(crate) upper: [f32; PANEL_ROWS],
    pub(crate) lower: [f32; PANEL_ROWS],
}

impl Intervals {
    pub(crate) const NONE: Self = Self { upper: [0.0; PANEL_ROWS], lower: [0.0; PANEL_ROWS] };
}

/// Scales, errors and norms of the rows of a panel, one after the other.
pub(crate) type PanelBounds = [[f32; PANEL_ROWS]; 3];

/// Quantises a stored row to int8. `row` is scratch of its length, `q` has the same.
///
/// Norms are computed in units of the scale, so that they neither overflow nor vanish. A row too small for that gets an
/// infinite error, as does one that is not finite: it is always computed in full, and noticed there.
#[inline(always)]
pub(crate) fn int8_row(dtype: DType, bytes: &[u8], row: &mut [f32], q: &mut [i8]) -> Int8Row {
    decode(dtype, bytes, row);
    let n = row.len() as f32;
    let largest = lanes::amax(row);
    let scale = largest / 127.0;
    let inverse = if largest >= SMALLEST { 1.0 / scale } else { 0.0 };
    for w in row.iter_mut() {
        *w *= inverse;
    }
    let row_norm = lanes::dot(row, row).sqrt();
    let mut squares = 0i32;
    for (q, w) in q.iter_mut().zip(row.iter_mut()) {
        *q = absmax::round_to_i8(*w);
        squares += i32::from(*q) * i32::from(*q);
        *w -= f32::from(*q);
    }
    // The inverse and the product with it each round by 2^-24 of at most 127 units.
    let error = lanes::dot(row, row).sqrt() + n.sqrt() * 127.0 * 2f32.powi(-22);
    let rounding = (n / lanes::LANES as f32 + 8.0) * 2f32.powi(-24);
    let error = (error + rounding * row_norm) * scale * SLACK;
    // A row of zeros has logits of zero; products with an inverse of zero are 0, or not a number.
    let scale = if row_norm.is_finite() { scale } else { f32::NAN };
    let exact = largest == 0.0 || (largest >= SMALLEST && error.is_finite());
    let error = if exact { error } else { f32::INFINITY };
    Int8Row { scale, error, norm: (squares as f32).sqrt() * scale * SLACK }
}

/// Quantises a hidden row to `q`, `[PARTS][padded]`, of which the ends are set to 0. `units` is scratch of `h`'s length.
///
/// With `u = fl(h / b)`, `q1 = round(u)` and `q2 = round(128 (u - q1))`, `|h - b (q1 + q2 / 128)|` is at most
/// `b (|u - q1 - q2 / 128| + |h / b - u|)`. Both differences in the first norm are exact: they are multiples of the last
/// bit of `u` and no larger than it. The second norm is at most 2^-22 of `|u|`: the inverse of `b` and the product with it
/// round. A row that is not finite has a scale that is no number, and so have all its intervals.
#[inline(always)]
pub(crate) fn int8_hidden(h: &[f32], units: &mut [f32], q: &mut [i8]) -> Hidden {
    let n = h.len() as f32;
    let scale = lanes::amax(h).max(SMALLEST) / 127.0;
    let inverse = 1.0 / scale;
    for (u, &h) in units.iter_mut().zip(h) {
        *u = h * inverse;
    }
    let norm = lanes::dot(units, units).sqrt();
    let (coarse, fine) = q.split_at_mut(q.len() / PARTS);
    let mut sums = [0i32; PARTS];
    for ((coarse, fine), u) in coarse.iter_mut().zip(fine.iter_mut()).zip(units.iter_mut()) {
        *coarse = absmax::round_to_i8(*u);
        *u -= f32::from(*coarse);
        // From -64 to 64, as the rest is at most half a unit.
        *fine = absmax::round_to_i8(*u * FINE);
        *u -= f32::from(*fine) / FINE;
        sums[0] += i32::from(*coarse);
        sums[1] += i32::from(*fine);
    }
    coarse[h.len()..].fill(0);
    fine[h.len()..].fill(0);
    let residual = (lanes::dot(units, units).sqrt() + norm * 2f32.powi(-22)) * scale * SLACK;
    Hidden {
        scale: if norm.is_finite() { scale } else { f32::NAN },
        sums,
        norm: norm * scale * SLACK,
        residual,
        // The sums as floats, adding them, the product of the scales, the product of both, the ends: 2^-24 each, of which
        // five.
        relative: 2f32.powi(-21),
        // Below the normal numbers each operation rounds by 2^-150 at most: once in the product of the scales, which sums
        // below 2^14 n multiply, n times in the full dot product, and a few times in the ends.
        floor: n * 2f32.powi(-135),
    }
}

/// Intervals that hold the logits of a panel's rows, from the exact sums. Gives a set of the rows whose upper end reaches
/// `threshold` or is not a number, which must not hide a row: a bit each, the first row's the lowest.
///
/// The sums are first divided between coarse and fine in the one way in which the fine one is from 0 to 127, so that the
/// ends do not depend on the kernel. The logit as the full-precision kernel computes it is `w h` but for its rounding; and
/// `w h = a b (q q1 + q q2 / 128) + (a q) d + e h`, of which the second part is at most `|a q| |d|` and the third at most
/// `|e| |h|` by Cauchy-Schwarz. The two sums may have opposite signs, so that the rounding of the first is bounded by
/// their magnitudes, not by what is left of them; dividing by 128 is exact. All terms of the half width are positive; what
/// rounding takes from them, [`SLACK`] and the spare part of [`Hidden::relative`] have added.
#[inline(always)]
pub(crate) fn int8_intervals(
    sums: &PartSums,
    bounds: &PanelBounds,
    h: &Hidden,
    threshold: f32,
    out: &mut Intervals,
) -> u32 {
    let [scale, error, norm] = bounds;
    let mut reached = 0u32;
    for l in 0..PANEL_ROWS {
        let carry = sums[1][l] >> FINE_BITS;
        let (coarse, fine) = ((sums[0][l] + carry) as f32, (sums[1][l] - (carry << FINE_BITS)) as f32 / FINE);
        let unit = scale[l] * h.scale;
        let middle = (coarse + fine) * unit;
        let magnitude = (coarse.abs() + fine.abs()) * unit;
        let width = (error[l] * h.norm + norm[l] * h.residual) + (magnitude * h.relative + h.floor);
        let upper = middle + width;
        out.upper[l] = upper;
        out.lower[l] = middle - width;
        reached |= u32::from(!below(upper, threshold)) << l;
    }
    reached
}

/// Whether a value is a number and below `threshold`.
#[inline(always)]
pub(crate) fn below(value: f32, threshold: f32) -> bool {
    value < threshold
}

/// Decodes stored numbers, exactly, in code that compilers vectorise.
#[inline(always)]
fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * dtype.size());
    match dtype {
        DType::BF16 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, &b)| *o = bf16_to_f32(b)),
        DType::F16 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, &b)| *o = f16_to_f32(b)),
        DType::F32 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, &b)| *o = f32::from_le_bytes(b)),
    }
}

/// What counts of the sums of one hidden row.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn totals(sums: &PartSums) -> [i64; PANEL_ROWS] {
    std::array::from_fn(|l| (i64::from(sums[0][l]) << FINE_BITS) + i64::from(sums[1][l]))
}

/// Exact sums of a panel in plain Rust, of parts that lie quad by quad.
pub(super) fn scalar_sums(p: &Panel<'_>, out: &mut Sums) {
    p.check();
    for (m, out) in out.iter_mut().enumerate().take(p.part_sums.len()) {
        *out = [0; PANEL_ROWS];
        let quads = p.q.as_chunks::<QUAD>().0.iter().skip(m).step_by(p.layout.stride());
        for (tile, q) in p.weights.as_chunks::<TILE>().0.iter().zip(quads) {
            for (sum, w) in out.iter_mut().zip(tile.as_chunks::<QUAD>().0) {
                *sum += (0..QUAD).map(|i| i32::from(w[i]) * i32::from(q[i])).sum::<i32>();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{ALL, KernelSet};

    fn available() -> impl Iterator<Item = &'static KernelSet> {
        ALL.iter().filter(|set| set.is_available())
    }

    /// Numbers from -1 to 1.
    fn numbers(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        }
    }

    #[test]
    fn sums_are_exact_for_every_set_and_number_of_rows() {
        for quads in [4usize, 8, 20, 640] {
            for hidden in 1..=HIDDEN_BLOCK {
                let mut next = numbers(quads as u64);
                // A third of the values are the largest there are.
                let mut value = || match next() {
                    v if v > 0.66 => 127,
                    v if v < -0.66 => -127,
                    v => (v * 192.0) as i8,
                };
                let weights: Vec<i8> = (0..quads * TILE).map(|_| value()).collect();
                let parts: Vec<Vec<i8>> =
                    (0..hidden * PARTS).map(|_| (0..quads * QUAD).map(|_| value()).collect()).collect();
                let part_sums: Vec<i32> =
                    parts.iter().map(|part| part.iter().map(|&q| i32::from(q)).sum()).collect();
                for set in available() {
                    let mut sums = [[0; PANEL_ROWS]; TILE_PARTS];
                    let layout = PartLayout::of(set.hidden_layout, hidden, quads * QUAD);
                    let mut q = vec![0; layout.stride() * quads * QUAD];
                    for (i, part) in parts.iter().enumerate() {
                        // SAFETY: there is only this thread.
                        unsafe { layout.place(part, i, Shared::new(&mut q)) };
                    }
                    let panel = Panel { weights: &weights, q: &q, layout, part_sums: &part_sums };
                    // SAFETY: the set is available.
                    unsafe { (set.int8_sums)(&panel, &mut sums) };
                    for (row, sums) in parts.as_chunks::<PARTS>().0.iter().zip(sums.as_chunks().0) {
                        for (lane, &found) in totals(sums).iter().enumerate() {
                            let tiles = weights.chunks_exact(TILE).flat_map(|t| &t[lane * QUAD..][..QUAD]);
                            let hidden_row = row[0].iter().zip(&row[1]);
                            let want: i64 = tiles
                                .zip(hidden_row)
                                .map(|(&w, (&q1, &q2))| i64::from(w) * (128 * i64::from(q1) + i64::from(q2)))
                                .sum();
                            assert_eq!(found, want, "{}: {quads} quads, {hidden} hidden rows", set.name);
                        }
                    }
                }
            }
        }
    }

    /// Rows and hidden rows of all kinds: the interval must hold the logit, as computed and in truth.
    #[test]
    fn intervals_hold_the_logits() {
        let scales = [1.0, 1e-3, 1e-12, 1e-25, 1e-30, 1e-36, 1e-42, 1e12, 1e20, 1e34, 0.0];
        for cols in [16usize, 100, 1040] {
            let mut next = numbers(cols as u64);
            for (&w_scale, &h_scale) in scales.iter().flat_map(|w| scales.iter().map(move |h| (w, h))) {
                let mut row = |scale: f32| -> Vec<f32> {
                    (0..cols).map(|i| next() * scale * if i % 17 == 3 { 40.0 } else { 0.3 }).collect()
                };
                let (w, h) = (row(w_scale), row(h_scale));
                let (logit, truth) = (
                    lanes::dot(&w, &h),
                    w.iter().zip(&h).map(|(&w, &h)| f64::from(w) * f64::from(h)).sum::<f64>(),
                );
                for set in available() {
                    let (upper, lower) = interval(set, &w, &h);
                    let holds = lower <= logit && logit <= upper;
                    let holds = holds && f64::from(lower) <= truth && truth <= f64::from(upper);
                    assert!(
                        holds || upper.is_nan() || !logit.is_finite(),
                        "{}: {lower}..{upper} lacks {logit} ({truth}); {cols} columns, {w_scale} {h_scale}",
                        set.name
                    );
                    if (1e-12..=1e12).contains(&w_scale) && (1e-12..=1e12).contains(&h_scale) {
                        let norms = (lanes::dot(&w, &w).sqrt()) * (lanes::dot(&h, &h).sqrt());
                        assert!(upper - lower < 0.1 * norms, "{upper} - {lower} is wide for {norms}");
                    }
                }
            }
        }
    }

    /// The interval of one row, by the kernels of a set.
    fn interval(set: &KernelSet, w: &[f32], h: &[f32]) -> (f32, f32) {
        let padded = w.len().next_multiple_of(COLS_STEP);
        let mut scratch = vec![0.0; w.len()];
        let (mut q, mut hq) = (vec![0i8; padded], vec![0i8; PARTS * padded]);
        let mut weights = vec![0i8; padded * PANEL_ROWS];
        let mut sums = [[0; PANEL_ROWS]; TILE_PARTS];
        let mut out = Intervals::NONE;
        // SAFETY: the set is available.
        unsafe {
            let row = (set.int8_row)(DType::F32, &DType::F32.encode(w), &mut scratch, &mut q[..w.len()]);
            let hidden = (set.int8_hidden)(h, &mut scratch, &mut hq);
            for (tile, q) in weights.as_chunks_mut::<TILE>().0.iter_mut().zip(q.as_chunks::<QUAD>().0) {
                tile[..QUAD].copy_from_slice(q);
            }
            let layout = PartLayout::of(set.hidden_layout, 1, padded);
            let mut placed = vec![0; hq.len()];
            for (part, values) in hq.chunks_exact(padded).enumerate() {
                layout.place(values, part, Shared::new(&mut placed));
            }
            let panel = Panel { weights: &weights, q: &placed, layout, part_sums: &hidden.sums };
            (set.int8_sums)(&panel, &mut sums);
            let mut bounds = [[0.0; PANEL_ROWS]; 3];
            (bounds[0][0], bounds[1][0], bounds[2][0]) = (row.scale, row.error, row.norm);
            (set.int8_intervals)(sums.first_chunk().unwrap(), &bounds, &hidden, f32::INFINITY, &mut out);
        }
        (out.upper[0], out.lower[0])
    }

    #[test]
    fn rows_that_are_no_numbers_have_no_interval() {
        let fine = vec![1.0f32; 20];
        for set in available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut row = fine.clone();
                row[7] = bad;
                assert!(interval(set, &row, &fine).0.is_nan(), "{}", set.name);
                assert!(interval(set, &fine, &row).0.is_nan(), "{}", set.name);
            }
        }
    }
}
