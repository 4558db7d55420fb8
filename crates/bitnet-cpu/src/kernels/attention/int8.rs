//! Attention over int8 keys and values: exact integer sums by dot-product instructions.
//!
//! Sums fit 32 bits: a score has at most `255 * 127` an element of the head, a weighted value `255 * 127 * 32`.

use super::{AttendScratch, BLOCKS, INT8_BLOCK, Query, RangeWork, STATE_HEAD, prefetch, softmax, state_len};
use crate::kernels::dots16::Dots16;
use crate::kv::BLOCK_SIZE;
use bitnet_model::kv::{self, RANGE};

/// Quantised queries: `[quads][H]` times four int8.
struct Queries<const H: usize> {
    quads: usize,
    words: *const i32,
    /// What each accumulator starts with: it takes back what unsigned keys add.
    start: [i32; H],
    /// Scale of each query, times that of all scores.
    factors: [f32; H],
}

/// States of one range.
///
/// # Safety
/// The processor can run `V`; queries and pieces fit the layout.
#[inline(always)]
pub(super) unsafe fn range<V: Dots16, const H: usize>(
    work: &RangeWork<'_, H>,
    queries: [Query<'_>; H],
    scratch: &mut AttendScratch,
) {
    let queries = quantize::<V, H>(work, queries, scratch);
    for block in work.first_block..work.blocks {
        // SAFETY: keys and queries as promised; scores have room for a block of each query.
        unsafe {
            let out = scratch.scores.as_mut_ptr().add(block * BLOCK_SIZE);
            if V::WIDE {
                scores::<V, H, 2>(work, block, &queries, out, 0);
            } else {
                scores::<V, H, 1>(work, block, &queries, out, 0);
                scores::<V, H, 1>(work, block, &queries, out, 1);
            }
        }
    }
    softmax(work, &mut scratch.scores, &mut scratch.states);
    let mut factors = [[0.0; BLOCKS]; H];
    for h in 0..H {
        for block in work.first_block..work.counts[h].div_ceil(BLOCK_SIZE) {
            let at = h * RANGE + block * BLOCK_SIZE;
            let valid = (work.counts[h] - block * BLOCK_SIZE).min(BLOCK_SIZE);
            let q = &mut scratch.weights[at..at + BLOCK_SIZE];
            // SAFETY: a block has 32 scales of values.
            let scales = unsafe { &*work.scales(block).1.cast::<[f32; BLOCK_SIZE]>() };
            factors[h][block] = block_weights(&scratch.scores[at..at + BLOCK_SIZE], scales, valid, q);
        }
    }
    let columns = work.layout.columns();
    let mut column = 0;
    while column < columns {
        // SAFETY: these columns are inside the rows of values; the rest is promised by the caller.
        unsafe {
            if V::WIDE && H <= 4 && column + 64 <= columns {
                weigh_columns::<V, H, 4>(work, scratch, &factors, column);
                column += 64;
            } else if V::WIDE && column + 32 <= columns {
                weigh_columns::<V, H, 2>(work, scratch, &factors, column);
                column += 32;
            } else {
                weigh_columns::<V, H, 1>(work, scratch, &factors, column);
                column += 16;
            }
        }
    }
}

/// Quantises the queries and puts them side by side.
#[inline(always)]
fn quantize<V: Dots16, const H: usize>(
    work: &RangeWork<'_, H>,
    queries: [Query<'_>; H],
    scratch: &mut AttendScratch,
) -> Queries<H> {
    let (d, quads) = (work.layout.head_dim, work.layout.quads());
    let words: &mut [i32] = bytemuck::cast_slice_mut(&mut scratch.queries[..]);
    let (mut start, mut factors) = ([0; H], [0.0; H]);
    for (h, query) in queries.iter().enumerate() {
        factors[h] = kv::quantize_row(query.head, &mut scratch.row[..d]) * work.scale;
        scratch.row[d..4 * quads].fill(0);
        let mut sum = 0i32;
        for (to, quad) in words.chunks_exact_mut(H).zip(scratch.row[..4 * quads].as_chunks::<4>().0) {
            to[h] = i32::from_le_bytes(quad.map(|q| q as u8));
            sum += quad.iter().map(|&q| i32::from(q)).sum::<i32>();
        }
        start[h] = -V::KEY_OFFSET * sum;
    }
    assert!(words.len() >= quads * H);
    Queries { quads, words: words.as_ptr(), start, factors }
}

/// Scores of one block: positions `16 * part ..`, `16 * P` of them.
///
/// # Safety
/// As [`range`]; `out` has room for a block in rows that are [`RANGE`] apart.
#[inline(always)]
unsafe fn scores<V: Dots16, const H: usize, const P: usize>(
    work: &RangeWork<'_, H>,
    block: usize,
    queries: &Queries<H>,
    out: *mut f32,
    part: usize,
) {
    let (keys, ahead) = (work.keys(block), work.keys_after(block));
    // SAFETY: promised by the caller.
    unsafe {
        let mut acc = [[V::ints(0); P]; H];
        for h in 0..H {
            acc[h] = [V::ints(queries.start[h]); P];
        }
        for quad in 0..queries.quads {
            let row = quad * BLOCK_SIZE * 4;
            if part == 0 {
                prefetch(ahead.wrapping_add(row));
                prefetch(ahead.wrapping_add(row + 64));
            }
            let mut key = [V::load_keys(keys.add(row + 64 * part)); P];
            for p in 1..P {
                key[p] = V::load_keys(keys.add(row + 64 * (part + p)));
            }
            for h in 0..H {
                let q = *queries.words.add(quad * H + h);
                for p in 0..P {
                    acc[h][p] = V::dot_keys(acc[h][p], key[p], q);
                }
            }
        }
        let scales = work.scales(block).0;
        for p in 0..P {
            let scale = V::load(scales.add(16 * (part + p)));
            for h in 0..H {
                let factor = scale.mul(V::splat(queries.factors[h]));
                V::floats(acc[h][p]).mul(factor).store(out.add(h * RANGE + 16 * (part + p)));
            }
        }
    }
}

/// Integer weights of one block, 0 from position `valid` on, and their factor.
#[inline(always)]
fn block_weights(weights: &[f32], scales: &[f32; INT8_BLOCK], valid: usize, q: &mut [u8]) -> f32 {
    let mut scaled = [0.0; INT8_BLOCK];
    for (s, (w, scale)) in scaled.iter_mut().zip(weights.iter().zip(scales)) {
        *s = w * scale;
    }
    // Left-over scales may be anything.
    scaled[valid..].fill(0.0);
    kv::quantize_weights(&scaled, q)
}

/// Columns `column .. column + 16 * C` of the weighted values: the blocks that all queries have together, the others for
/// each query alone.
///
/// # Safety
/// As [`range`]; the columns are inside the rows of values.
#[inline(always)]
unsafe fn weigh_columns<V: Dots16, const H: usize, const C: usize>(
    work: &RangeWork<'_, H>,
    scratch: &mut AttendScratch,
    factors: &[[f32; BLOCKS]; H],
    column: usize,
) {
    let len = state_len(work.layout);
    assert!(scratch.states.len() >= H * len && STATE_HEAD + column + 16 * C <= len);
    let (weights, out) = (scratch.weights.as_ptr(), scratch.states.as_mut_ptr());
    // SAFETY: promised by the caller; states have these columns, and weights a row of the range for each query.
    unsafe {
        let out = out.add(STATE_HEAD + column);
        for h in 0..H {
            for c in 0..C {
                V::zero().store(out.add(h * len + 16 * c));
            }
        }
        let common = work.counts[0].div_ceil(BLOCK_SIZE);
        for block in work.first_block..common {
            let mut of_block = [0.0; H];
            for h in 0..H {
                of_block[h] = factors[h][block];
            }
            let groups = groups(work.counts[H - 1], block);
            weigh::<V, H, H, C>(work, block, groups, weights, of_block, column, out);
        }
        for h in 1..H {
            for block in common..work.counts[h].div_ceil(BLOCK_SIZE) {
                let (weights, out) = (weights.add(h * RANGE), out.add(h * len));
                let groups = groups(work.counts[h], block);
                weigh::<V, H, 1, C>(work, block, groups, weights, [factors[h][block]], column, out);
            }
        }
    }
}

/// Groups of four positions in a block of which some count for a query that attends to `count` positions.
#[inline(always)]
fn groups(count: usize, block: usize) -> usize {
    (count - block * BLOCK_SIZE).min(BLOCK_SIZE).div_ceil(4)
}

/// Adds the weighted values of the first `groups` groups of one block to `out`, for `N` of the `H` queries; weights beyond
/// are zeros. (The number is not a constant also lest the loop be unrolled whole, with all fetches in one burst.)
///
/// # Safety
/// As [`weigh_columns`].
#[inline(always)]
unsafe fn weigh<V: Dots16, const H: usize, const N: usize, const C: usize>(
    work: &RangeWork<'_, H>,
    block: usize,
    groups: usize,
    weights: *const u8,
    factors: [f32; N],
    column: usize,
    out: *mut f32,
) {
    let (len, row_bytes) = (state_len(work.layout), work.layout.columns() * 4);
    // SAFETY: promised by the caller.
    unsafe {
        let values = work.values(block).add(column * 4);
        let ahead = work.values_after(block).wrapping_add(column * 4);
        let weights = weights.add(block * BLOCK_SIZE).cast::<i32>();
        let mut acc = [[V::ints(0); C]; N];
        for group in 0..groups {
            let row = group * row_bytes;
            let mut value = [V::load_values(values.add(row)); C];
            for c in 0..C {
                prefetch(ahead.wrapping_add(row + 64 * c));
                value[c] = V::load_values(values.add(row + 64 * c));
            }
            for n in 0..N {
                let w = weights.add(n * (RANGE / 4) + group).read_unaligned();
                for c in 0..C {
                    acc[n][c] = V::dot_values(acc[n][c], value[c], w);
                }
            }
        }
        for n in 0..N {
            let factor = V::splat(factors[n]);
            for c in 0..C {
                let to = out.add(n * len + 16 * c);
                V::floats(acc[n][c]).fma(factor, V::load(to)).store(to);
            }
        }
    }
}
