//! [`Scratch`]: where everything lies that one pass needs on the device, in one buffer of the pool.
//!
//! The first part is what the host sends: tokens, positions, addresses of blocks, wants. It is one copy. The last part is
//! what comes back.

use bitnet_core::device_pool::Lent;
use bitnet_model::{Batch, Draw, DrawStep, LogitRows, ModelSpec, Sequence};
use bytemuck::{Pod, Zeroable};

use crate::BLOCK_SIZE;
use crate::attention::Sharing;
use crate::gemm::{LEAST_TILE, TILE_TOKENS};
use crate::gpu::Address;
use crate::kv::KvCache;
use crate::layout::GROUP;
use crate::output::Top;

/// Positions with a softmax of their own; see `kernels/attention.cu`.
pub(crate) const RANGE: usize = bitnet_model::kv::RANGE;
/// Consecutive tokens that attention computes together.
const TILE: usize = 8;
/// Rows of logits that are computed at a time.
pub(crate) const LOGIT_ROWS: usize = 64;
/// Logits of a chunk of which only the largest counts at first: those of a block of threads in `kernels/scan.cu`.
pub(crate) const CHUNK: usize = 128;
/// Bytes of shared memory that every device has without being asked.
pub(crate) const SHARED: usize = 48 << 10;
/// Alignment of every part.
const ALIGN: usize = 256;

/// Sizes of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sizes {
    /// New tokens.
    pub(crate) rows: usize,
    /// Rows that give something.
    pub(crate) picked: usize,
    /// How attention is shared among blocks of threads.
    pub(crate) attention: Sharing,
    /// Addresses of blocks of all sequences.
    pub(crate) table: usize,
    /// Tiles of consecutive tokens that share keys and values in attention; 0 if each token is for itself.
    pub(crate) tiles: usize,
    /// Whether logits are wanted, not hidden states.
    pub(crate) logits: bool,
    /// Whether the first layer gets rows from the host.
    pub(crate) from_rows: bool,
    /// Rows whose largest logits are wanted, which are the first of those that give something; room for each, and words of
    /// sets of tokens.
    pub(crate) top: usize,
    pub(crate) capacity: usize,
    pub(crate) mask_words: usize,
    /// Whether the device draws for any of them.
    pub(crate) draws: bool,
}

/// Places in the buffer, from its beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Places {
    pub(crate) tokens: usize,
    pub(crate) positions: usize,
    pub(crate) table_offsets: usize,
    pub(crate) picked: usize,
    pub(crate) slots: usize,
    pub(crate) table: usize,
    pub(crate) tiles: usize,
    pub(crate) top_counts: usize,
    pub(crate) mask_at: usize,
    pub(crate) mask_len: usize,
    pub(crate) masks: usize,
    pub(crate) draws: usize,
    /// Zero if all results are numbers. The end of what the host sends, the start of what it gets.
    pub(crate) flags: usize,
    pub(crate) found: usize,
    pub(crate) hidden: usize,
    pub(crate) logits: usize,
    pub(crate) maxima: usize,
    /// Images of hidden rows, and what is known of each.
    pub(crate) parts: usize,
    pub(crate) hidden_images: usize,
    pub(crate) input_rows: usize,
    pub(crate) x: usize,
    pub(crate) q8: usize,
    pub(crate) scales: usize,
    pub(crate) sums: usize,
    pub(crate) qkv: usize,
    pub(crate) attention: usize,
    pub(crate) ffn: usize,
    pub(crate) gate_up: usize,
    pub(crate) branch: usize,
    pub(crate) long_rows: usize,
    pub(crate) partials: usize,
    pub(crate) total: usize,
}

impl Places {
    /// Lays out a pass of these sizes.
    pub(crate) fn new(spec: &ModelSpec, sizes: &Sizes, padded_dim: usize) -> Self {
        let mut end = 0;
        let mut part = |bytes: usize| {
            let start = end;
            end = (start + bytes).next_multiple_of(ALIGN);
            start
        };
        let Sizes { rows, picked, top, .. } = *sizes;
        let extras = &spec.extras;
        let widest = spec.hidden_size.max(spec.q_size()).max(spec.intermediate_size);
        let wide = spec.q_size() + 2 * spec.kv_size();
        let quantised = rows.next_multiple_of(if rows > LEAST_TILE { TILE_TOKENS } else { LEAST_TILE });
        let some = |there: bool, size: usize| if there { size } else { 0 };
        let chunk = picked.min(LOGIT_ROWS);
        let pitch = spec.hidden_size.next_multiple_of(16);
        let places = Self {
            tokens: part(4 * rows),
            positions: part(4 * rows),
            table_offsets: part(4 * rows),
            picked: part(4 * picked),
            slots: part(8 * rows),
            table: part(8 * sizes.table),
            tiles: part(8 * sizes.tiles),
            top_counts: part(4 * top),
            mask_at: part(4 * top),
            mask_len: part(4 * top),
            masks: part(4 * sizes.mask_words),
            draws: part(some(sizes.draws, top * size_of::<RowDraw>())),
            flags: part(4),
            found: part(top * found_bytes(sizes.capacity)),
            hidden: part(4 * picked * pitch),
            logits: part(some(sizes.logits, 4 * chunk * spec.vocab_size)),
            maxima: part(8 * top * spec.vocab_size.div_ceil(CHUNK)),
            parts: part(2 * top * spec.hidden_size.next_multiple_of(GROUP)),
            hidden_images: part(16 * top),
            input_rows: part(some(sizes.from_rows, 4 * rows * spec.hidden_size)),
            x: part(4 * rows * spec.hidden_size),
            q8: part(quantised * widest.next_multiple_of(GROUP)),
            scales: part(4 * rows),
            sums: part(4 * rows),
            qkv: part(4 * rows * wide),
            attention: part(4 * rows * spec.q_size()),
            ffn: part(4 * rows * spec.intermediate_size),
            gate_up: part(some(extras.projection_norms, 8 * rows * spec.intermediate_size)),
            branch: part(some(extras.post_norms, 4 * rows * spec.hidden_size)),
            long_rows: part(some(is_long(widest), 4 * rows.max(picked) * widest)),
            partials: part(4 * rows * sizes.attention.left_ranges() * spec.num_heads * (padded_dim + 4)),
            total: 0,
        };
        Self { total: end, ..places }
    }
}

/// How the device draws for a row, as `kernels/draw.cu` reads it.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RowDraw {
    number: f64,
    /// How many logits count; 0: no draw.
    k: u32,
    /// Two bits a step: 1 temperature, 2 top-p, 3 min-p.
    kinds: u32,
    values: [f32; 4],
}

impl RowDraw {
    fn of(draw: &Draw) -> Self {
        let mut row = Self {
            number: draw.number,
            k: draw.k.clamp(1, u32::MAX as usize) as u32,
            kinds: 0,
            values: [0.0; 4],
        };
        for (i, step) in draw.steps.iter().enumerate() {
            let (kind, value) = match *step {
                None => (0, 0.0),
                Some(DrawStep::Temperature(value)) => (1, value),
                Some(DrawStep::TopP(share)) => (2, share),
                Some(DrawStep::MinP(share)) => (3, share),
            };
            row.kinds |= kind << (2 * i);
            row.values[i] = value;
        }
        row
    }
}

/// Whether a row is too long to be normed in shared memory, where 2 KiB are for other things.
pub(crate) fn is_long(len: usize) -> bool {
    4 * len + 2048 > SHARED
}

/// Bytes of what is found of one row: a count, padding, pairs of a token and its logit.
pub(crate) fn found_bytes(capacity: usize) -> usize {
    4 * (2 + 2 * capacity)
}

/// The buffer of a pass.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) places: Places,
    pub(crate) buffer: Lent<Address>,
}

impl Scratch {
    /// Address of a part.
    pub(crate) fn at(&self, place: usize) -> Address {
        self.buffer.buffer + place as u64
    }
}

/// What the host sends for a pass.
pub(crate) struct Inputs {
    pub(crate) bytes: Vec<u8>,
}

impl Inputs {
    /// Tokens, positions and addresses of blocks of a batch that was checked. Each sequence has `stride` addresses, or as many as
    /// it needs if that is `None`. `order` are the rows that give something in the order in which they are computed.
    pub(crate) fn new(
        places: &Places,
        sequences: &[Sequence<'_>],
        kv: &KvCache,
        stride: Option<usize>,
        order: &[usize],
    ) -> Self {
        let mut inputs = Self { bytes: vec![0; places.found] };
        let (mut row, mut picked, mut table) = (0, Vec::with_capacity(order.len()), 0);
        for s in sequences {
            let last = s.position + s.tokens.len() - 1;
            let used = last / BLOCK_SIZE + 1;
            let addresses = inputs.bytes[places.table + 8 * table..][..8 * used].as_chunks_mut().0;
            for (address, &block) in addresses.iter_mut().zip(s.blocks) {
                *address = kv.address(block).to_le_bytes();
            }
            for (i, &token) in s.tokens.iter().enumerate() {
                let position = s.position + i;
                inputs.put(places.tokens, row, token.to_le_bytes());
                inputs.put(places.positions, row, (position as u32).to_le_bytes());
                inputs.put(places.table_offsets, row, (table as u32).to_le_bytes());
                let slot = kv.address(s.blocks[position / BLOCK_SIZE]);
                inputs.put(places.slots, row, slot.to_le_bytes());
                let wanted = match s.logits {
                    LogitRows::None => false,
                    LogitRows::Last => position == last,
                    LogitRows::All => true,
                };
                if wanted {
                    picked.push(row as u32);
                }
                row += 1;
            }
            table += stride.unwrap_or(used);
        }
        if places.top_counts > places.tiles {
            inputs.add_tiles(places.tiles, sequences);
        }
        for (i, &which) in order.iter().enumerate() {
            inputs.put(places.picked, i, picked[which].to_le_bytes());
        }
        inputs
    }

    fn add_tiles(&mut self, place: usize, sequences: &[Sequence<'_>]) {
        let (mut row, mut tile) = (0, 0);
        for s in sequences {
            for start in (0..s.tokens.len()).step_by(TILE) {
                let count = TILE.min(s.tokens.len() - start);
                self.put(place, 2 * tile, ((row + start) as u32).to_le_bytes());
                self.put(place, 2 * tile + 1, (count as u32).to_le_bytes());
                tile += 1;
            }
            row += s.tokens.len();
        }
    }

    /// What the rows want that give their largest logits.
    pub(crate) fn add_tops(&mut self, places: &Places, tops: &[Top<'_>]) {
        let mut words = 0;
        for (i, Top { want, draw }) in tops.iter().enumerate() {
            if let Some(draw) = draw {
                self.put(places.draws, i, bytemuck::cast::<_, [u8; size_of::<RowDraw>()]>(RowDraw::of(draw)));
            }
            self.put(places.top_counts, i, (want.k.clamp(1, u32::MAX as usize) as u32).to_le_bytes());
            let Some(set) = want.allowed else {
                self.put(places.mask_at, i, u32::MAX.to_le_bytes());
                continue;
            };
            let (at, count) = (words, set.words());
            self.put(places.mask_at, i, (at as u32).to_le_bytes());
            self.put(places.mask_len, i, (count as u32).to_le_bytes());
            (0..count).for_each(|word| self.put(places.masks, at + word, set.word(word).to_le_bytes()));
            words += count;
        }
    }

    #[inline]
    fn put<const N: usize>(&mut self, place: usize, index: usize, bytes: [u8; N]) {
        let at = place + index * N;
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }
}

/// Tiles of consecutive tokens of a batch.
pub(crate) fn tile_count(batch: &Batch<'_>) -> usize {
    batch.sequences.iter().map(|s| s.tokens.len().div_ceil(TILE)).sum()
}

/// Addresses of blocks that a batch needs.
pub(crate) fn table_len(batch: &Batch<'_>) -> usize {
    batch.sequences.iter().map(|s| (s.position + s.tokens.len()).div_ceil(BLOCK_SIZE)).sum()
}

/// Refuses what kernels were not written for.
///
/// # Errors
/// What is too large.
pub(crate) fn check_spec(spec: &ModelSpec) -> Result<(), String> {
    let longest_hidden = SHARED / 4 - 256;
    if spec.head_dim > 256 {
        return Err(format!("heads of {} elements; the longest is 256", spec.head_dim));
    }
    if spec.hidden_size.next_multiple_of(16) > longest_hidden {
        return Err(format!("a hidden size of {}; the largest is {longest_hidden}", spec.hidden_size));
    }
    Ok(())
}
