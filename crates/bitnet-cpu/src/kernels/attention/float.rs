//! Attention over keys and values that are floats: f32, or f16 widened when loaded.

use super::{AttendScratch, Query, RangeWork, STATE_HEAD, prefetch, softmax, state_len};
use crate::kernels::dots16::Dots16;
use crate::kernels::lanes16::Lanes16;
use crate::kv::BLOCK_SIZE;
use bitnet_model::kv::RANGE;

/// How an element is stored.
pub(super) trait Element {
    /// Bytes of one.
    const BYTES: usize;
    /// # Safety
    /// As [`Lanes16::load`].
    unsafe fn load<V: Lanes16>(p: *const u8) -> V;
}

/// f32.
pub(super) struct Single;
/// f16.
pub(super) struct Half;

impl Element for Single {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<V: Lanes16>(p: *const u8) -> V {
        // SAFETY: promised by the caller.
        unsafe { V::load(p.cast()) }
    }
}

impl Element for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Lanes16>(p: *const u8) -> V {
        // SAFETY: promised by the caller.
        unsafe { V::load_f16(p) }
    }
}

/// States of one range.
///
/// # Safety
/// The processor can run `V`; queries and pieces fit the layout.
#[inline(always)]
pub(super) unsafe fn range<V: Dots16, E: Element, const H: usize>(
    work: &RangeWork<'_, H>,
    queries: [Query<'_>; H],
    scratch: &mut AttendScratch,
) {
    let d = work.layout.head_dim;
    for (h, query) in queries.iter().enumerate() {
        for (to, &q) in scratch.queries.chunks_exact_mut(H).zip(query.head) {
            to[h] = q;
        }
    }
    assert!(scratch.queries.len() >= d * H);
    for block in work.first_block..work.blocks {
        // SAFETY: keys and queries as promised; scores have room for a block of each query.
        unsafe {
            let (keys, ahead) = (work.keys(block), work.keys_after(block));
            let out = scratch.scores.as_mut_ptr().add(block * BLOCK_SIZE);
            let queries = scratch.queries.as_ptr();
            if V::WIDE {
                scores::<V, E, H, 2>(work, keys, queries, out, 0, ahead);
            } else {
                scores::<V, E, H, 1>(work, keys, queries, out, 0, ahead);
                scores::<V, E, H, 1>(work, keys, queries, out, 1, ahead);
            }
        }
    }
    softmax(work, &mut scratch.scores, &mut scratch.states);
    let columns = work.layout.columns();
    let mut column = 0;
    while column < columns {
        // SAFETY: these columns are inside the rows of values; the rest is promised by the caller.
        unsafe {
            if V::WIDE && H <= 4 && column + 64 <= columns {
                weigh_columns::<V, E, H, 4>(work, scratch, column);
                column += 64;
            } else if V::WIDE && column + 32 <= columns {
                weigh_columns::<V, E, H, 2>(work, scratch, column);
                column += 32;
            } else {
                weigh_columns::<V, E, H, 1>(work, scratch, column);
                column += 16;
            }
        }
    }
}

/// Scores of one block: positions `16 * part ..`, `16 * P` of them.
///
/// # Safety
/// `keys` are `[d][32]`, `queries` `[d][H]`, `out` has room for a block in rows that are [`RANGE`] apart.
#[inline(always)]
unsafe fn scores<V: Dots16, E: Element, const H: usize, const P: usize>(
    work: &RangeWork<'_, H>,
    keys: *const u8,
    queries: *const f32,
    out: *mut f32,
    part: usize,
    ahead: *const u8,
) {
    let d = work.layout.head_dim;
    // SAFETY: promised by the caller.
    unsafe {
        let scale = V::splat(work.scale);
        let mut acc = [[V::zero(); P]; H];
        for i in 0..d {
            let row = i * BLOCK_SIZE * E::BYTES;
            if part == 0 {
                prefetch(ahead.wrapping_add(row));
                if E::BYTES == 4 {
                    prefetch(ahead.wrapping_add(row + 64));
                }
            }
            let mut key = [V::zero(); P];
            for p in 0..P {
                key[p] = E::load(keys.add(row + 16 * (part + p) * E::BYTES));
            }
            for h in 0..H {
                let q = V::splat(*queries.add(i * H + h));
                for p in 0..P {
                    acc[h][p] = q.fma(key[p], acc[h][p]);
                }
            }
        }
        for h in 0..H {
            for p in 0..P {
                acc[h][p].mul(scale).store(out.add(h * RANGE + 16 * (part + p)));
            }
        }
    }
}

/// Columns `column .. column + 16 * C` of the weighted values: the positions that all queries have together, the others
/// for each query alone.
///
/// # Safety
/// As [`range`]; the columns are inside the rows of values.
#[inline(always)]
unsafe fn weigh_columns<V: Dots16, E: Element, const H: usize, const C: usize>(
    work: &RangeWork<'_, H>,
    scratch: &mut AttendScratch,
    column: usize,
) {
    let len = state_len(work.layout);
    assert!(scratch.states.len() >= H * len && STATE_HEAD + column + 16 * C <= len);
    let (weights, out) = (scratch.scores.as_ptr(), scratch.states.as_mut_ptr());
    // SAFETY: promised by the caller; states have these columns, and weights a row of the range for each query.
    unsafe {
        let out = out.add(STATE_HEAD + column);
        for h in 0..H {
            for c in 0..C {
                V::zero().store(out.add(h * len + 16 * c));
            }
        }
        let common = work.first_block * BLOCK_SIZE..work.counts[0];
        weigh::<V, E, H, H, C>(work, weights, common, column, out);
        for h in 1..H {
            let rest = work.counts[0]..work.counts[h];
            if !rest.is_empty() {
                weigh::<V, E, H, 1, C>(work, weights.add(h * RANGE), rest, column, out.add(h * len));
            }
        }
    }
}

/// Adds the weighted values of some positions to `out`, for `N` of the `H` queries.
///
/// # Safety
/// As [`weigh_columns`].
#[inline(always)]
unsafe fn weigh<V: Dots16, E: Element, const H: usize, const N: usize, const C: usize>(
    work: &RangeWork<'_, H>,
    weights: *const f32,
    positions: std::ops::Range<usize>,
    column: usize,
    out: *mut f32,
) {
    let (len, row_bytes) = (state_len(work.layout), work.layout.columns() * E::BYTES);
    // SAFETY: promised by the caller.
    unsafe {
        let mut acc = [[V::zero(); C]; N];
        for n in 0..N {
            for c in 0..C {
                acc[n][c] = V::load(out.add(n * len + 16 * c));
            }
        }
        let mut start = positions.start;
        while start < positions.end {
            let block = start / BLOCK_SIZE;
            let end = positions.end.min((block + 1) * BLOCK_SIZE);
            let values = work.values(block).add(column * E::BYTES);
            let ahead = work.values_after(block).wrapping_add(column * E::BYTES);
            for j in start..end {
                let row = (j % BLOCK_SIZE) * row_bytes;
                for line in 0..(16 * C * E::BYTES).div_ceil(64) {
                    prefetch(ahead.wrapping_add(row + 64 * line));
                }
                let mut value = [V::zero(); C];
                for c in 0..C {
                    value[c] = E::load(values.add(row + 16 * c * E::BYTES));
                }
                for n in 0..N {
                    let w = V::splat(*weights.add(n * RANGE + j));
                    for c in 0..C {
                        acc[n][c] = w.fma(value[c], acc[n][c]);
                    }
                }
            }
            start = end;
        }
        for n in 0..N {
            for c in 0..C {
                acc[n][c].store(out.add(n * len + 16 * c));
            }
        }
    }
}
