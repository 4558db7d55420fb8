//! Attention of a layer: how `kernels/attention.cu` shares it among blocks of threads, and its launch.
//!
//! A block has one token, up to four query heads of one key head, and all ranges of positions or, where tokens are few, one of
//! them. Blocks of a range each are a cluster if the device runs all clusters of a launch at a time, one block a
//! multiprocessor: a layer's attention to 14 ranges takes 7.2 us then instead of 7.9 (H200).

use bitnet_model::ModelSpec;
use bytemuck::bytes_of;

use crate::CudaError;
use crate::args::AttentionArgs;
use crate::forward::Pass;
use crate::gpu::{Address, GpuFacts, MOST_CLUSTER};
use crate::scratch::RANGE;

/// Places of the counters that blocks of threads share ranges with.
pub(crate) const COUNTERS: usize = 1 << 16;
/// Bytes of shared memory of attention to tiles, beside keys and values: queries and weights. `kernels/attention_many.cu`
const TILE_SHARED: usize = 128 * 32 * 4 + 4 * RANGE * 8 * 4;
/// Pieces of keys or values that it has there at a time.
const TILE_PIECES: usize = 3;
/// Bytes of static shared memory, rounded up.
const STATIC: usize = 13 << 10;
/// Most query heads of a block of threads.
const HEADS: usize = 4;
/// Most elements of a head that a block of threads has.
const ELEMENTS: usize = 128;

/// What a block of threads has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// One query head.
    One,
    /// Up to two query heads of a key head, which read keys and values together.
    Two,
    /// Up to four.
    Four,
    /// The same where there are so many blocks that more of them at once count most.
    FourOfMany,
}

impl Kind {
    fn heads(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four | Self::FourOfMany => HEADS,
        }
    }
}

/// Which ranges a block has: `SPLIT_*` of `kernels/attention.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Split {
    /// All of them.
    None,
    /// One. The last block to be done merges what all have left in the device's memory.
    Apart,
    /// One. The blocks of all ranges merge them together.
    Cluster,
}

/// How attention of a layer is shared among blocks of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sharing {
    kind: Kind,
    split: Split,
    /// Groups of query heads.
    parts: usize,
    /// Blocks that share the elements of a head.
    slices: usize,
    /// Ranges of positions that there is room for.
    pub(crate) ranges: usize,
}

impl Sharing {
    /// For `rows` tokens that attend to at most `ranges` ranges. `steady` passes are recorded, and shall seldom differ.
    pub(crate) fn new(spec: &ModelSpec, rows: usize, ranges: usize, steady: bool, facts: &GpuFacts) -> Self {
        let slices = spec.head_dim.div_ceil(ELEMENTS);
        let room = if steady { rounded(ranges) } else { ranges };
        if let Some(kind) = in_clusters(spec, rows * slices, room, facts) {
            return Self { kind, split: Split::Cluster, parts: parts_of(spec, kind), slices, ranges: room };
        }
        let multiprocessors = facts.multiprocessors as usize;
        let parts = parts_of(spec, apart(spec, rows, ranges, multiprocessors));
        let blocks = rows * parts;
        if ranges > 1 && blocks < 2 * multiprocessors && blocks * slices <= COUNTERS {
            let kind = apart(spec, rows, room, multiprocessors);
            return Self { kind, split: Split::Apart, parts: parts_of(spec, kind), slices, ranges: room };
        }
        let kind = apart(spec, rows, 1, multiprocessors);
        let ranges = if steady { ranges.next_power_of_two() } else { ranges };
        Self { kind, split: Split::None, parts: parts_of(spec, kind), slices, ranges }
    }

    /// The same where tokens that follow each other share keys and values, and no block has only one range.
    pub(crate) fn whole(self) -> Self {
        Self { split: Split::None, ..self }
    }

    /// Ranges of a token that blocks leave in the device's memory.
    pub(crate) fn left_ranges(&self) -> usize {
        if self.split == Split::Apart { self.ranges } else { 0 }
    }
}

/// Ranges that a recorded pass has room for: at most a quarter more than there are, so that few numbers of them are recorded.
/// Blocks without a range end at once.
fn rounded(ranges: usize) -> usize {
    ranges.next_multiple_of((ranges.next_power_of_two() / 4).max(1))
}

/// Groups of query heads, each of one key head.
fn parts_of(spec: &ModelSpec, kind: Kind) -> usize {
    spec.num_kv_heads * (spec.num_heads / spec.num_kv_heads).div_ceil(kind.heads())
}

/// The fewest heads of a block with which all clusters run at a time, each block on a multiprocessor of its own.
fn in_clusters(spec: &ModelSpec, rows: usize, ranges: usize, facts: &GpuFacts) -> Option<Kind> {
    if !(2..=MOST_CLUSTER).contains(&ranges) {
        return None;
    }
    [Kind::One, Kind::Two, Kind::Four].into_iter().find(|&kind| {
        let clusters = parts_of(spec, kind) * rows;
        clusters <= facts.clusters[ranges] as usize && clusters * ranges <= facts.multiprocessors as usize
    })
}

/// Query heads of a key head read keys and values together, unless blocks are few.
fn apart(spec: &ModelSpec, rows: usize, ranges: usize, multiprocessors: usize) -> Kind {
    let blocks = |kind| parts_of(spec, kind) * rows * ranges;
    // Short texts leave time to read again, until some multiprocessors have several blocks.
    let room = if ranges == 1 { multiprocessors * 3 / 2 } else { multiprocessors };
    if spec.num_heads == spec.num_kv_heads || blocks(Kind::One) <= room {
        Kind::One
    } else if ranges > 1 && blocks(Kind::Two) <= multiprocessors * 2 / 3 {
        Kind::Two
    } else if blocks(Kind::Four) <= 2 * multiprocessors {
        Kind::Four
    } else {
        Kind::FourOfMany
    }
}

/// Bytes of shared memory of attention to tiles.
pub(crate) fn tile_shared(key_bytes: usize) -> usize {
    TILE_SHARED + TILE_PIECES * key_bytes
}

impl Pass<'_> {
    /// Attention of a layer: from queries, and the cache that has the keys and values of this pass, to one row a token.
    ///
    /// # Errors
    /// If the device refuses the launch.
    pub(crate) fn attention(&mut self, layer: usize, q: Address, out: Address) -> Result<(), CudaError> {
        let (places, spec, sizes) = (self.scratch.places, self.spec(), self.sizes);
        let Sharing { kind, split, parts, slices, ranges } = sizes.attention;
        let window = match &spec.extras.sliding {
            Some(sliding) if spec.is_sliding(layer) => sliding.window as u32,
            _ => 0,
        };
        let staged_bytes = self.gpu.facts().shared_bytes as usize - STATIC;
        let args = AttentionArgs {
            q,
            out,
            positions: self.scratch.at(places.positions),
            table_offsets: self.scratch.at(places.table_offsets),
            table: self.scratch.at(places.table),
            partials: self.scratch.at(places.partials),
            counters: self.counters,
            tiles: self.scratch.at(places.tiles),
            layer_offset: (layer * self.kv.layer_bytes()) as u64,
            q_stride: self.qkv_stride() as u32,
            out_stride: spec.q_size() as u32,
            heads: spec.num_heads as u32,
            kv_heads: spec.num_kv_heads as u32,
            head_dim: self.kv.head_dim as u32,
            padded_dim: self.kv.padded_dim() as u32,
            piece_bytes: self.kv.piece_bytes() as u32,
            key_bytes: self.kv.key_bytes() as u32,
            window,
            slices: slices as u32,
            ranges: ranges as u32,
            split: split as u32,
            scale: spec.attention_scale(),
            value_bytes: self.kv.key_bytes() as u32,
            staged: (staged_bytes / self.kv.key_bytes()).clamp(1, RANGE / crate::BLOCK_SIZE) as u32,
            pad: 0,
        };
        if sizes.tiles > 0 {
            let shared = tile_shared(self.kv.key_bytes()) as u32;
            let grid = [parts_of(spec, Kind::Four), sizes.tiles, 1];
            return self.launch("attention_many", grid, 128, shared, bytes_of(&args));
        }
        let kernels = [
            ["attention_f32_1", "attention_f32_2", "attention_f32_4", "attention_f32_4"],
            ["attention_f16_1", "attention_f16_2", "attention_f16_4", "attention_f16_4_many"],
            ["attention_int8_1", "attention_int8_2", "attention_int8_4", "attention_int8_4_many"],
        ];
        let kernel = kernels[self.kv.type_code() as usize][kind as usize];
        let own = if split == Split::None { 1 } else { ranges };
        let cluster = if split == Split::Cluster { ranges } else { 1 };
        let shared = args.staged * args.value_bytes;
        let grid = [parts * slices, own, sizes.rows];
        self.launch_clusters(kernel, grid, cluster, RANGE as u32, shared, bytes_of(&args))
    }
}

#[cfg(test)]
mod tests {
    use bitnet_model::synth::ShapePreset;

    use super::*;

    /// A device like an H200.
    fn facts() -> GpuFacts {
        GpuFacts {
            name: String::new(),
            kernels: "sm_90",
            tensor_cores: true,
            multiprocessors: 132,
            row_threads: 256,
            shared_bytes: 113 << 10,
            most_shared_bytes: 219 << 10,
            clusters: std::array::from_fn(|blocks| if blocks < 2 { 0 } else { 8 * (16 / blocks as u32) }),
        }
    }

    fn sharing(rows: usize, ranges: usize) -> (Kind, Split, usize) {
        let spec = ShapePreset::parse("2b4t").expect("a preset").spec();
        let s = Sharing::new(&spec, rows, ranges, true, &facts());
        (s.kind, s.split, s.ranges)
    }

    #[test]
    fn one_text_fills_the_device_in_clusters() {
        assert_eq!(sharing(1, 1), (Kind::One, Split::None, 1));
        assert_eq!(sharing(1, 4), (Kind::One, Split::Cluster, 4));
        // Twenty clusters of six do not run at a time.
        assert_eq!(sharing(1, 5), (Kind::Two, Split::Cluster, 6));
        assert_eq!(sharing(1, 9), (Kind::Four, Split::Cluster, 12));
        assert_eq!(sharing(1, 14), (Kind::Four, Split::Cluster, 16));
        assert_eq!(sharing(1, 17), (Kind::Four, Split::Apart, 24));
    }

    #[test]
    fn several_texts_leave_their_ranges_apart_or_have_all_of_them() {
        assert_eq!(sharing(2, 14), (Kind::Four, Split::Apart, 16));
        assert_eq!(sharing(8, 4), (Kind::Four, Split::Apart, 4));
        assert_eq!(sharing(64, 5), (Kind::FourOfMany, Split::None, 8));
    }

    #[test]
    fn ranges_are_rounded_by_a_quarter_at_most() {
        assert_eq!([1, 3, 4, 5, 8, 9, 16, 17, 100].map(rounded), [1, 3, 4, 6, 8, 12, 16, 24, 128]);
    }
}
