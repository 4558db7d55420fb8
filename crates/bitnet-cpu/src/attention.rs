//! The attention phase of a forward pass: rotation, storing keys and values, and how threads share the queries.
//!
//! Rows of one sequence are taken in tiles of [`TILE`], so that their queries read a range of keys and values from a near
//! cache. A unit of work is a tile and a key/value head; when there are few of them (decoding) it is one range of
//! positions as well, and the states of the ranges are merged afterwards. Units are handed out to whoever is free. None of
//! this changes a bit: every state belongs to one query and one range, and states are merged in order.
//!
//! Where every sequence is one tile (decoding, mostly), one thread stores the keys and values of a key/value head and
//! attends with them: no thread waits for another in between, and keys stay in the cache of the core that wrote them.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::pool::Team;
use bitnet_model::kv::RANGE;
use bitnet_model::reference::rope_rotate;
use bitnet_model::{ModelSpec, Sequence};

use crate::kernels::attention::{self, Attend, QUERIES, Query, state_len};
use crate::kernels::{KernelSet, prefetch};
use crate::kv::{BLOCK_SIZE, KvCache, KvPart};
use crate::schedule::Ranges;
use crate::scratch::{RopeTable, ThreadScratch};
use crate::shared::Shared;

/// Rows of a sequence that attend together.
pub(crate) const TILE: usize = 8;
/// Batches with more rows than this have work enough for all threads without ranges of their own.
pub(crate) const SPLIT_ROWS: usize = 8;
/// So many units for each thread are enough.
const UNITS: usize = 8;

/// What the attention of a pass needs.
pub(crate) struct Attention<'a> {
    pub(crate) spec: &'a ModelSpec,
    pub(crate) kernels: &'static KernelSet,
    pub(crate) kv: &'a KvCache,
    pub(crate) rope: &'a RopeTable,
    pub(crate) sequences: &'a [Sequence<'a>],
    /// Rows of queries, keys and values.
    pub(crate) qkv: Shared<'a, f32>,
    pub(crate) qkv_stride: usize,
    /// Rows of results.
    pub(crate) out: Shared<'a, f32>,
    pub(crate) out_stride: usize,
    /// States of ranges, when these are shared out.
    pub(crate) states: Shared<'a, f32>,
    /// For each layer, the units given out so far.
    pub(crate) units: &'a [AtomicUsize],
}

/// Some consecutive rows of one sequence.
#[derive(Clone, Copy)]
struct Tile<'a> {
    blocks: &'a [u32],
    /// First row in the batch.
    row: usize,
    rows: usize,
    /// Position of the first row.
    position: usize,
    /// Where its states begin, in states.
    states: usize,
}

/// What a head of a row of `qkv` is, in their order there.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Query,
    Key,
    Value,
}

/// Where queries, keys and values of a layer begin in a row of `qkv`, and the norms over heads of queries and of keys, if
/// there are any.
#[derive(Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub(crate) starts: [usize; 3],
    pub(crate) norms: Option<&'a [Vec<f32>; 2]>,
}

/// One head of some rows.
struct Unit<'a> {
    part: Part,
    head: usize,
    /// Where its first row is in `qkv`.
    at: usize,
    /// The norm of such a head.
    norm: Option<&'a [f32]>,
}

impl Tile<'_> {
    /// The first range that one of its rows attends to.
    fn first_range(&self, spec: &ModelSpec, layer: usize) -> usize {
        spec.first_position(layer, self.position) / RANGE
    }

    /// End of the ranges that its last row attends to.
    fn ranges(&self) -> usize {
        (self.position + self.rows).div_ceil(RANGE)
    }
}

impl<'a> Attention<'a> {
    fn rows(&self) -> usize {
        self.sequences.iter().map(|s| s.tokens.len()).sum()
    }

    /// Query heads of a key/value head.
    fn group(&self) -> usize {
        self.spec.num_heads / self.spec.num_kv_heads
    }

    /// All tiles; the last rows of a sequence, which cost most, come first.
    fn tiles(&self) -> impl Iterator<Item = Tile<'a>> {
        let (mut row, mut states, heads) = (0, 0, self.spec.num_heads);
        let tiles = self.sequences.iter().flat_map(move |s| {
            let (start, len) = (row, s.tokens.len());
            row += len;
            (0..len.div_ceil(TILE)).rev().map(move |t| Tile {
                blocks: s.blocks,
                row: start + t * TILE,
                rows: TILE.min(len - t * TILE),
                position: s.position + t * TILE,
                states: 0,
            })
        });
        tiles.map(move |tile| {
            let at = states;
            states += tile.rows * heads * tile.ranges();
            Tile { states: at, ..tile }
        })
    }

    /// Whether ranges are units of their own; the same for all threads.
    fn splits(&self, threads: usize) -> bool {
        threads > 1
            && self.rows() <= SPLIT_ROWS
            && self.tiles().count() * self.spec.num_kv_heads < UNITS * threads
            && self.tiles().any(|t| t.ranges() > 1)
    }

    /// The whole phase: from queries, keys and values to results. Every thread of the team calls this, and a barrier follows.
    pub(crate) fn run(&self, layer: usize, heads: Heads<'_>, team: &Team<'_>, own: &mut ThreadScratch) {
        if self.sequences.iter().all(|s| s.tokens.len() <= TILE) && !self.splits(team.threads()) {
            return self.store_and_attend(layer, heads, team, own);
        }
        self.store(layer, heads, team, own);
        team.barrier();
        self.attend_units(layer, team, own);
    }

    /// Stores and attends for one key/value head of one sequence after the other; each sequence is one tile.
    fn store_and_attend(&self, layer: usize, heads: Heads<'_>, team: &Team<'_>, own: &mut ThreadScratch) {
        let (kv_heads, group) = (self.spec.num_kv_heads, self.group());
        for units in Ranges::singly(team, self.sequences.len() * kv_heads, &self.units[layer]) {
            let first = units.start / kv_heads;
            let all = self.tiles().skip(first).flat_map(|tile| (0..kv_heads).map(move |head| (tile, head)));
            let mut mine = all.skip(units.start - first * kv_heads).take(units.len()).peekable();
            while let Some((tile, head)) = mine.next() {
                if let Some(&(tile, head)) = mine.peek() {
                    self.prefetch(layer, tile, head);
                }
                let queries = (head * group..(head + 1) * group).map(|head| (Part::Query, head));
                for (part, head) in [(Part::Key, head), (Part::Value, head)].into_iter().chain(queries) {
                    let unit = self.unit(tile.row, part, head, heads);
                    let positions = tile.position..tile.position + tile.rows;
                    self.store_unit(layer, tile.blocks, positions, unit, own);
                }
                self.tile_unit(layer, tile, head, own);
            }
        }
    }

    /// Fetches the keys and values of a unit of this thread that are read first, and those beside which it writes.
    fn prefetch(&self, layer: usize, tile: Tile<'a>, kv_head: usize) {
        let first = self.spec.first_position(layer, tile.position) / BLOCK_SIZE;
        let last = (tile.position + tile.rows - 1) / BLOCK_SIZE;
        for block in [first, last].into_iter().take(1 + usize::from(first < last)) {
            // SAFETY: no other thread writes to the pieces of this thread's units.
            prefetch::bytes(unsafe { self.kv.piece(tile.blocks[block], layer, kv_head) });
        }
    }

    /// A head of the rows from `row` on.
    fn unit<'n>(&self, row: usize, part: Part, head: usize, heads: Heads<'n>) -> Unit<'n> {
        let Heads { starts, norms } = heads;
        let at = row * self.qkv_stride + starts[part as usize] + head * self.spec.head_dim;
        let norm = match part {
            Part::Query => norms.map(|n| n[0].as_slice()),
            Part::Key => norms.map(|n| n[1].as_slice()),
            Part::Value => None,
        };
        Unit { part, head, at, norm }
    }

    /// Rotates queries and keys and writes keys and values to the cache, for the units of this thread: one head each, for
    /// rows whose positions are in one block, so that no two threads write to the same piece. Units are dealt round, the
    /// dear ones (keys, which are scattered) first, each block to the next thread.
    fn store(&self, layer: usize, heads: Heads<'_>, team: &Team<'_>, own: &mut ThreadScratch) {
        let (query_heads, kv_heads) = (self.spec.num_heads, self.spec.num_kv_heads);
        let (mut row, mut number) = (0, 0);
        for s in self.sequences {
            let (mut position, end) = (s.position, s.position + s.tokens.len());
            while position < end {
                let positions = position..end.min((position / BLOCK_SIZE + 1) * BLOCK_SIZE);
                let first = (team.index() + number) % team.threads();
                for unit in (first..query_heads + 2 * kv_heads).step_by(team.threads()) {
                    let (part, head) = match unit {
                        _ if unit < kv_heads => (Part::Key, unit),
                        _ if unit < 2 * kv_heads => (Part::Value, unit - kv_heads),
                        _ => (Part::Query, unit - 2 * kv_heads),
                    };
                    let unit = self.unit(row, part, head, heads);
                    self.store_unit(layer, s.blocks, positions.clone(), unit, own);
                }
                row += positions.len();
                number += 1;
                position = positions.end;
            }
        }
    }

    /// One head for some positions of one block.
    fn store_unit(
        &self,
        layer: usize,
        blocks: &[u32],
        positions: Range<usize>,
        Unit { part, head, at, norm }: Unit<'_>,
        own: &mut ThreadScratch,
    ) {
        let encoded = &mut own.encoded[..self.kv.layout().row_bytes()];
        let sliding = self.spec.is_sliding(layer);
        let kv_part = match part {
            Part::Query => None,
            Part::Key => Some(KvPart::Key),
            Part::Value => Some(KvPart::Value),
        };
        for (i, position) in positions.enumerate() {
            let at = at + i * self.qkv_stride;
            // SAFETY: each head of each row is in one unit, and each unit is of one thread; the kernel set is available.
            unsafe {
                let values = self.qkv.get_mut(at..at + self.spec.head_dim);
                if let Some(norm) = norm {
                    let normed = &mut own.row.h[..self.spec.head_dim];
                    (self.kernels.rms_norm)(values, norm, self.spec.rms_norm_eps, normed);
                    values.copy_from_slice(normed);
                }
                if part != Part::Value {
                    let (cos, sin) = self.rope.at(position, sliding);
                    rope_rotate(values, cos, sin);
                }
                if let Some(kv_part) = kv_part {
                    let scale = (self.kernels.encode_kv)(self.kv.layout().kv_type, values, encoded);
                    let (block, slot) = (blocks[position / BLOCK_SIZE], position % BLOCK_SIZE);
                    self.kv.write(block, slot, layer, head, kv_part, encoded, scale);
                }
            }
        }
    }

    /// Attention of the units that fall to this thread, of stored keys and values.
    fn attend_units(&self, layer: usize, team: &Team<'_>, own: &mut ThreadScratch) {
        let kv_heads = self.spec.num_kv_heads;
        let split = self.splits(team.threads());
        let next = || self.units[layer].fetch_add(1, Ordering::Relaxed);
        let (mut unit, mut passed) = (next(), 0);
        for tile in self.tiles() {
            let parts = if split { tile.ranges() } else { 1 };
            while unit < passed + parts * kv_heads {
                let (kv_head, part) = ((unit - passed) / parts, (unit - passed) % parts);
                if split {
                    self.range_unit(layer, tile, kv_head, part, own);
                } else {
                    self.tile_unit(layer, tile, kv_head, own);
                }
                unit = next();
            }
            passed += parts * kv_heads;
        }
        if split {
            team.barrier();
            let units = self.tiles().flat_map(|tile| (0..kv_heads).map(move |head| (tile, head)));
            for (_, (tile, head)) in units.enumerate().filter(|(i, _)| i % team.threads() == team.index()) {
                self.merge_unit(layer, tile, head);
            }
        }
    }

    /// All ranges of a tile for one key/value head.
    fn tile_unit(&self, layer: usize, tile: Tile<'a>, kv_head: usize, own: &mut ThreadScratch) {
        let len = state_len(self.kv.layout());
        let queries = tile.rows * self.group();
        for range in tile.first_range(self.spec, layer)..tile.ranges() {
            let states = &mut own.states[..queries * len];
            self.attend(layer, tile, kv_head, range, false, &mut own.attend, states);
        }
        for (query, state) in own.states.chunks_exact(len).take(queries).enumerate() {
            self.finish(tile, kv_head, query, state);
        }
    }

    /// One range of a tile for one key/value head.
    fn range_unit(
        &self,
        layer: usize,
        tile: Tile<'a>,
        kv_head: usize,
        range: usize,
        own: &mut ThreadScratch,
    ) {
        let at = self.states_at(tile, kv_head, range);
        // SAFETY: the states of a unit belong to the thread that took it, until the next barrier.
        let states = unsafe { self.states.get_mut(at) };
        self.attend(layer, tile, kv_head, range, true, &mut own.attend, states);
    }

    /// Where the states of a unit are: `[kv_head][range][query]` for each tile.
    fn states_at(&self, tile: Tile<'_>, kv_head: usize, range: usize) -> Range<usize> {
        let (len, queries) = (state_len(self.kv.layout()), tile.rows * self.group());
        let at = (tile.states + (kv_head * tile.ranges() + range) * queries) * len;
        at..at + queries * len
    }

    /// Merges the states of all ranges of a tile for one key/value head.
    fn merge_unit(&self, layer: usize, tile: Tile<'a>, kv_head: usize) {
        let len = state_len(self.kv.layout());
        for query in 0..tile.rows * self.group() {
            let position = tile.position + query / self.group();
            let first = self.spec.first_position(layer, position) / RANGE;
            let ranges = (position + 1).div_ceil(RANGE);
            let state_at = |range| {
                let at = self.states_at(tile, kv_head, range).start + query * len;
                at..at + len
            };
            // SAFETY: behind the barrier the states of a query belong to one thread; the kernel set is available.
            unsafe {
                let state = self.states.get_mut(state_at(first));
                for range in first + 1..ranges {
                    (self.kernels.merge_states)(state, self.states.get(state_at(range)));
                }
                self.finish(tile, kv_head, query, state);
            }
        }
    }

    /// One range for all queries of a tile and key/value head, `QUERIES` or fewer at a time.
    #[allow(clippy::too_many_arguments, reason = "what to compute, where, and with what")]
    fn attend(
        &self,
        layer: usize,
        tile: Tile<'a>,
        kv_head: usize,
        range: usize,
        fresh: bool,
        scratch: &mut attention::AttendScratch,
        states: &mut [f32],
    ) {
        let (d, group, len) = (self.spec.head_dim, self.group(), state_len(self.kv.layout()));
        // SAFETY: keys and values are only read in this phase.
        let piece = |block: usize| unsafe { self.kv.piece(tile.blocks[block], layer, kv_head) };
        let query = |index: usize| {
            let at = (tile.row + index / group) * self.qkv_stride + (kv_head * group + index % group) * d;
            let position = tile.position + index / group;
            let first = self.spec.first_position(layer, position);
            // SAFETY: queries are only read in this phase.
            Query { head: unsafe { self.qkv.get(at..at + d) }, first, limit: position + 1 }
        };
        let count = tile.rows * group;
        let mut start = 0;
        while start < count {
            let together = QUERIES.min(count - start);
            let queries: [Query<'_>; QUERIES] = std::array::from_fn(|i| query(start + i.min(together - 1)));
            let a = Attend {
                layout: self.kv.layout(),
                scale: self.spec.attention_scale(),
                queries: &queries[..together],
                range,
                fresh,
                piece: &piece,
            };
            // SAFETY: the kernel set is available.
            unsafe {
                (self.kernels.attend)(&a, scratch, &mut states[start * len..(start + together) * len]);
            }
            start += together;
        }
    }

    /// Writes the result of a query.
    fn finish(&self, tile: Tile<'_>, kv_head: usize, query: usize, state: &[f32]) {
        let (d, group) = (self.spec.head_dim, self.group());
        let at = (tile.row + query / group) * self.out_stride + (kv_head * group + query % group) * d;
        // SAFETY: the results of a tile and key/value head belong to one thread.
        attention::finish(state, unsafe { self.out.get_mut(at..at + d) });
    }
}
