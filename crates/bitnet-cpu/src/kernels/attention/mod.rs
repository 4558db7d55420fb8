//! Attention of a few queries that share a key/value head, written once over sixteen lanes and inlined into every
//! kernel set.
//!
//! Positions come in ranges of [`RANGE`]; each range gives a *state* (largest score, sum of weights, weighted values),
//! and states are merged in order, as the oracle does it. Scores of a range stay in the fastest cache. Queries are
//! independent: which of them run side by side changes no bit.

mod float;
mod int8;

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::lanes;
use bitnet_model::kv::{self, INT8_BLOCK, RANGE};
use bitnet_model::{ExecError, KvType};

use super::dots16::Dots16;
use super::prefetch::line as prefetch;
use crate::kv::{BLOCK_SIZE, KvLayout};

/// Queries that run side by side, at most; see also [`Dots16::QUERIES`].
pub(crate) const QUERIES: usize = 8;
/// Blocks of a range.
const BLOCKS: usize = RANGE / BLOCK_SIZE;
/// Floats of a state before the weighted values: the largest score, the sum of the weights, padding.
const STATE_HEAD: usize = lanes::LANES;

/// Floats of a state for heads with so many (padded) columns.
#[inline(always)]
pub(crate) fn state_len(layout: KvLayout) -> usize {
    STATE_HEAD + layout.columns()
}

/// One query: a rotated head of one token, and the positions it attends to, from `first` up to `limit`, without it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) head: &'a [f32],
    pub(crate) first: usize,
    pub(crate) limit: usize,
}

/// Attention of some queries over one range.
pub(crate) struct Attend<'a, 'k> {
    pub(crate) layout: KvLayout,
    /// What scores are multiplied by.
    pub(crate) scale: f32,
    /// One to [`QUERIES`] queries with ascending first positions and limits.
    pub(crate) queries: &'a [Query<'a>],
    /// Number of the range. Queries without positions in it are passed over.
    pub(crate) range: usize,
    /// Whether to set the states instead of merging with what is there; those of queries whose first position is in this
    /// range are set in any case.
    pub(crate) fresh: bool,
    /// The piece of the key/value head in each block of positions.
    pub(crate) piece: &'a dyn Fn(usize) -> &'k [u8],
}

/// Scratch of one thread.
pub(crate) struct AttendScratch {
    /// Scores, then weights, `[QUERIES][RANGE]`.
    scores: AlignedBuf<f32>,
    /// Weights as integers, `[QUERIES][RANGE]`.
    weights: AlignedBuf<u8>,
    /// Queries side by side: `[head_dim][queries]` floats, or `[head_dim / 4][queries]` times four int8.
    queries: AlignedBuf<f32>,
    /// One quantised query, padded.
    row: AlignedBuf<i8>,
    /// States of one range.
    states: AlignedBuf<f32>,
}

impl AttendScratch {
    pub(crate) fn new(layout: KvLayout) -> Result<Self, ExecError> {
        Ok(Self {
            scores: AlignedBuf::zeroed(QUERIES * RANGE)?,
            weights: AlignedBuf::zeroed(QUERIES * RANGE)?,
            queries: AlignedBuf::zeroed(QUERIES * layout.columns())?,
            row: AlignedBuf::zeroed(layout.columns())?,
            states: AlignedBuf::zeroed(QUERIES * state_len(layout))?,
        })
    }
}

/// One range as the inner functions see it.
struct RangeWork<'a, const H: usize> {
    layout: KvLayout,
    /// What scores are multiplied by.
    scale: f32,
    /// Position in the range where each query begins to attend, ascending.
    starts: [usize; H],
    /// Position in the range where each query ends to attend, ascending, beyond its start.
    counts: [usize; H],
    /// Pieces of the range's blocks, of which those with positions count.
    pieces: [&'a [u8]; BLOCKS],
    /// The first block that a query attends to.
    first_block: usize,
    /// End of the blocks with positions.
    blocks: usize,
}

impl<const H: usize> RangeWork<'_, H> {
    /// Keys of a block.
    #[inline(always)]
    fn keys(&self, block: usize) -> *const u8 {
        self.pieces[block].as_ptr()
    }

    /// Values of a block.
    #[inline(always)]
    fn values(&self, block: usize) -> *const u8 {
        self.pieces[block][self.layout.key_bytes()..].as_ptr()
    }

    /// Scales of the keys and of the values of a block, int8 only.
    #[inline(always)]
    fn scales(&self, block: usize) -> (*const f32, *const f32) {
        let scales = self.pieces[block][self.layout.scales_at()..].as_ptr().cast::<f32>();
        (scales, scales.wrapping_add(BLOCK_SIZE))
    }

    /// What to fetch while the keys of a block are read: the next keys, at last the first values.
    #[inline(always)]
    fn keys_after(&self, block: usize) -> *const u8 {
        if block + 1 < self.blocks { self.keys(block + 1) } else { self.values(self.first_block) }
    }

    /// What to fetch while the values of a block are read: the next values.
    #[inline(always)]
    fn values_after(&self, block: usize) -> *const u8 {
        self.values((block + 1).min(self.blocks - 1))
    }
}

/// Runs `a` on `states`, `[queries][state_len]`.
///
/// # Safety
/// The processor can run `V`.
#[inline(always)]
pub(crate) unsafe fn attend<V: Dots16>(a: &Attend<'_, '_>, scratch: &mut AttendScratch, states: &mut [f32]) {
    let (len, count) = (state_len(a.layout), a.queries.len());
    assert!((1..=QUERIES).contains(&count) && states.len() == count * len);
    assert!(a.queries.iter().all(|q| q.head.len() == a.layout.head_dim));
    assert!(a.queries.is_sorted_by_key(|q| q.limit));
    assert!(a.queries.is_sorted_by_key(|q| q.first) && a.queries.iter().all(|q| q.first < q.limit));
    let mut start = a.queries.iter().take_while(|q| q.limit <= a.range * RANGE).count();
    let count = a.queries.iter().take_while(|q| q.first < (a.range + 1) * RANGE).count();
    while start < count {
        let states = &mut states[start * len..];
        // SAFETY: promised by the caller; lengths were checked above.
        unsafe {
            start += match count - start {
                8.. if V::QUERIES >= 8 => run::<V, 8>(a, start, scratch, states),
                4.. => run::<V, 4>(a, start, scratch, states),
                2.. => run::<V, 2>(a, start, scratch, states),
                _ => run::<V, 1>(a, start, scratch, states),
            };
        }
    }
}

/// `H` queries from number `start` on, each of which has positions in the range, and their states; returns `H`.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn run<V: Dots16, const H: usize>(
    a: &Attend<'_, '_>,
    start: usize,
    scratch: &mut AttendScratch,
    states: &mut [f32],
) -> usize {
    let mut queries = [a.queries[start]; H];
    queries.copy_from_slice(&a.queries[start..start + H]);
    let (mut starts, mut counts) = ([0; H], [0; H]);
    for h in 0..H {
        starts[h] = queries[h].first.saturating_sub(a.range * RANGE);
        counts[h] = (queries[h].limit - a.range * RANGE).min(RANGE);
    }
    let (first_block, blocks) = (starts[0] / BLOCK_SIZE, counts[H - 1].div_ceil(BLOCK_SIZE));
    let mut pieces = [&[] as &[u8]; BLOCKS];
    for (b, piece) in pieces.iter_mut().enumerate().take(blocks).skip(first_block) {
        *piece = (a.piece)(a.range * BLOCKS + b);
        assert_eq!(piece.len(), a.layout.piece_bytes());
    }
    let work = RangeWork { layout: a.layout, scale: a.scale, starts, counts, pieces, first_block, blocks };
    // SAFETY: promised by the caller; the pieces were measured above.
    unsafe {
        match a.layout.kv_type {
            KvType::F32 => float::range::<V, float::Single, H>(&work, queries, scratch),
            KvType::F16 => float::range::<V, float::Half, H>(&work, queries, scratch),
            KvType::Int8 => int8::range::<V, H>(&work, queries, scratch),
        }
    }
    let len = state_len(a.layout);
    let (states, new) = (&mut states[..H * len], &scratch.states[..H * len]);
    for (query, (state, new)) in queries.iter().zip(states.chunks_exact_mut(len).zip(new.chunks_exact(len))) {
        if a.fresh || query.first / RANGE == a.range {
            state.copy_from_slice(new);
        } else {
            merge(state, new);
        }
    }
    H
}

/// Puts the state of later positions beside that of earlier ones.
#[inline(always)]
pub(crate) fn merge(state: &mut [f32], next: &[f32]) {
    let (head, out) = state.split_at_mut(STATE_HEAD);
    let (next_head, next_out) = next.split_at(STATE_HEAD);
    let max = if next_head[0] > head[0] { next_head[0] } else { head[0] };
    let (old, new) = (lanes::exp(head[0] - max), lanes::exp(next_head[0] - max));
    (head[0], head[1]) = (max, next_head[1].mul_add(new, head[1] * old));
    for (o, &n) in out.iter_mut().zip(next_out) {
        *o = n.mul_add(new, *o * old);
    }
}

/// The result of a query: its weighted values over the sum of its weights.
pub(crate) fn finish(state: &[f32], out: &mut [f32]) {
    let inverse = 1.0 / state[1];
    for (o, &v) in out.iter_mut().zip(&state[STATE_HEAD..]) {
        *o = v * inverse;
    }
}

/// Turns the scores of each query into weights, `exp(score - max)`, up to the end of the last block with 0 outside its
/// positions; puts the largest score and the sum of the weights into the states.
#[inline(always)]
fn softmax<const H: usize>(work: &RangeWork<'_, H>, scores: &mut [f32], states: &mut [f32]) {
    let len = state_len(work.layout);
    for (h, state) in states.chunks_exact_mut(len).enumerate().take(H) {
        let row = &mut scores[h * RANGE..][..work.blocks * BLOCK_SIZE];
        row[..work.starts[h]].fill(f32::NEG_INFINITY);
        row[work.counts[h]..].fill(f32::NEG_INFINITY);
        let (vectors, _) = row.as_chunks_mut::<{ lanes::LANES }>();
        let mut max = [f32::NEG_INFINITY; lanes::LANES];
        for v in vectors.iter() {
            for l in 0..lanes::LANES {
                max[l] = if v[l] > max[l] { v[l] } else { max[l] };
            }
        }
        let max = max.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
        let mut sum = [0.0; lanes::LANES];
        for v in vectors {
            for l in 0..lanes::LANES {
                v[l] = lanes::exp(v[l] - max);
                sum[l] += v[l];
            }
        }
        (state[0], state[1]) = (max, lanes::fold(sum));
    }
}

/// Encodes one row of keys or values as the cache stores it; returns its scale (1 where there is none).
///
/// # Panics
/// If the lengths do not fit.
#[inline(always)]
pub(crate) fn encode(kv_type: KvType, row: &[f32], out: &mut [u8]) -> f32 {
    match kv_type {
        KvType::F32 => {
            assert_eq!(out.len(), 4 * row.len());
            for (o, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(row) {
                *o = x.to_ne_bytes();
            }
        }
        KvType::F16 => {
            assert_eq!(out.len(), 2 * row.len());
            for (o, &x) in out.as_chunks_mut::<2>().0.iter_mut().zip(row) {
                *o = kv::f16_bits(x).to_le_bytes();
            }
        }
        KvType::Int8 => return kv::quantize_row(row, bytemuck::cast_slice_mut(out)),
    }
    1.0
}
