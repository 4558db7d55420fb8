//! Memory that forward passes reuse: it grows when a batch needs more and is never allocated in steady decoding.

use std::sync::atomic::AtomicUsize;

use bitnet_core::buffer::AlignedBuf;
use bitnet_core::memory_pool::{MemoryPool, PoolBuf};
use bitnet_model::kv::RANGE;
use bitnet_model::reference::rope_angles;
use bitnet_model::{ExecError, ModelSpec};

use crate::attention::{SPLIT_ROWS, TILE};
use crate::forward::FFN_STRIDE;
use crate::kernels::attention::{AttendScratch, state_len};
use crate::kernels::{RowLayout, code_bytes};
use crate::kv::KvLayout;
use crate::search::{OutputScratch, OutputThread};

/// Buffers of a batch, `[rows][stride]` each, with strides padded to whole strips.
pub(crate) struct Scratch {
    /// Residual stream.
    pub(crate) x: PoolBuf<f32>,
    /// Queries, keys and values, each part padded to whole strips.
    pub(crate) qkv: PoolBuf<f32>,
    /// Output of attention.
    pub(crate) attention: PoolBuf<f32>,
    /// The activated product of gate and up.
    pub(crate) gate: PoolBuf<f32>,
    /// Quantised rows, in blocks as products read them.
    pub(crate) q: PoolBuf<i8>,
    /// Activation scales of the quantised rows.
    pub(crate) scales: PoolBuf<f32>,
    /// Sums of the quantised rows.
    pub(crate) sums: PoolBuf<i32>,
    /// Normed rows for the output layer.
    pub(crate) normed: PoolBuf<f32>,
    /// What the int8 output layer needs.
    pub(crate) output: OutputScratch,
    /// What attention or the feed-forward part gives, where a norm stands behind them.
    pub(crate) branch: PoolBuf<f32>,
    /// For each product of a pass, [`PRODUCTS`] a layer, the pieces of work given out so far.
    pub(crate) pieces: Vec<AtomicUsize>,
    /// States of ranges of attention, when these are shared out.
    pub(crate) states: PoolBuf<f32>,
    /// For each layer, the units of attention given out so far.
    pub(crate) units: Vec<AtomicUsize>,
    /// What each thread needs for itself.
    pub(crate) threads: Vec<ThreadScratch>,
    rows: usize,
    logit_rows: usize,
    widths: Widths,
    heads: Heads,
    memory: MemoryPool,
}

/// What the scratch of attention depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) query_heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) layout: KvLayout,
}

/// Padded widths of the buffers, in elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Widths {
    pub(crate) hidden: usize,
    pub(crate) qkv: usize,
    pub(crate) attention: usize,
    pub(crate) ffn: usize,
    /// The longest activation row, padded to whole groups.
    pub(crate) longest: usize,
    /// Rows that are normed once more: the stream's where each projection has a norm of its own, else 0.
    pub(crate) chained: usize,
    /// Rows that are normed before they are added to the stream: its own where there are such norms, else 0.
    pub(crate) branch: usize,
}

/// Products of a layer that share out their work separately, at most.
pub(crate) const PRODUCTS: usize = 7;

/// What a thread quantises rows with.
pub(crate) struct RowScratch {
    /// A normed row.
    pub(crate) h: AlignedBuf<f32>,
    /// A normed row that is to be normed once more.
    pub(crate) chained: AlignedBuf<f32>,
    /// A quantised row: the only one, which each thread quantises itself, or one on its way to the shared rows.
    pub(crate) q: AlignedBuf<i8>,
    pub(crate) scale: [f32; 1],
    pub(crate) sum: [i32; 1],
}

/// What a thread multiplies with.
pub(crate) struct ProductScratch {
    /// Factors of the rows.
    pub(crate) factors: PoolBuf<f32>,
    /// Unpacked codes of a few strips, when there are several rows.
    pub(crate) codes: PoolBuf<u8>,
}

/// Gate and up projections of a few strips, `[rows][FFN_STRIDE]` each.
pub(crate) struct FfnScratch {
    pub(crate) gate: PoolBuf<f32>,
    pub(crate) up: PoolBuf<f32>,
}

/// Memory of one thread.
pub(crate) struct ThreadScratch {
    pub(crate) row: RowScratch,
    pub(crate) product: ProductScratch,
    pub(crate) ffn: FfnScratch,
    /// Inner scratch of attention.
    pub(crate) attend: AttendScratch,
    /// States of the queries of a tile.
    pub(crate) states: AlignedBuf<f32>,
    /// A row of keys or values as the cache stores it.
    pub(crate) encoded: AlignedBuf<u8>,
    /// What reading rows and the output layer need.
    pub(crate) output: OutputThread,
}

impl Scratch {
    pub(crate) fn new(
        threads: usize,
        layers: usize,
        widths: Widths,
        heads: Heads,
        memory: MemoryPool,
    ) -> Result<Self, ExecError> {
        let tile_queries = TILE * heads.query_heads / heads.kv_heads;
        let mut own = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (h, q) = (AlignedBuf::zeroed(widths.longest)?, AlignedBuf::zeroed(widths.longest)?);
            own.push(ThreadScratch {
                row: RowScratch {
                    h,
                    chained: AlignedBuf::zeroed(widths.chained)?,
                    q,
                    scale: [0.0],
                    sum: [0],
                },
                product: ProductScratch { factors: PoolBuf::default(), codes: PoolBuf::default() },
                ffn: FfnScratch { gate: PoolBuf::default(), up: PoolBuf::default() },
                attend: AttendScratch::new(heads.layout)?,
                states: AlignedBuf::zeroed(tile_queries * state_len(heads.layout))?,
                encoded: AlignedBuf::zeroed(heads.layout.row_bytes())?,
                output: OutputThread::default(),
            });
        }
        Ok(Self {
            x: PoolBuf::default(),
            qkv: PoolBuf::default(),
            attention: PoolBuf::default(),
            gate: PoolBuf::default(),
            q: PoolBuf::default(),
            scales: PoolBuf::default(),
            sums: PoolBuf::default(),
            normed: PoolBuf::default(),
            output: OutputScratch::new()?,
            branch: PoolBuf::default(),
            pieces: (0..PRODUCTS * layers).map(|_| AtomicUsize::new(0)).collect(),
            states: PoolBuf::default(),
            units: (0..layers).map(|_| AtomicUsize::new(0)).collect(),
            threads: own,
            rows: 0,
            logit_rows: 0,
            widths,
            heads,
            memory,
        })
    }

    pub(crate) fn widths(&self) -> Widths {
        self.widths
    }

    /// Makes room for `rows` tokens, `logit_rows` of them with logits, and attention over `positions`.
    ///
    /// # Errors
    /// If the memory is not there; the next call that needs it tries again.
    pub(crate) fn ensure(
        &mut self,
        rows: usize,
        logit_rows: usize,
        positions: usize,
    ) -> Result<(), ExecError> {
        let (w, memory) = (self.widths, &self.memory);
        if rows > self.rows {
            self.rows = 0;
            let room = rows.next_power_of_two().min(rows.next_multiple_of(64));
            self.x.grow(memory, room * w.hidden)?;
            self.qkv.grow(memory, room * w.qkv)?;
            self.attention.grow(memory, room * w.attention)?;
            self.gate.grow(memory, room * w.ffn)?;
            self.branch.grow(memory, room * w.branch)?;
            let layouts = [RowLayout::Quads, RowLayout::Tiles];
            self.q.grow(memory, layouts.map(|l| l.len(room, w.longest)).into_iter().fold(0, usize::max))?;
            self.scales.grow(memory, room)?;
            self.sums.grow(memory, room)?;
            for t in &mut self.threads {
                t.product.factors.grow(memory, room)?;
                t.ffn.gate.grow(memory, room * FFN_STRIDE)?;
                t.ffn.up.grow(memory, room * FFN_STRIDE)?;
                if rows > 1 {
                    t.product.codes.grow(memory, code_bytes(room, w.longest))?;
                }
            }
            self.rows = room;
        }
        if logit_rows > self.logit_rows {
            self.logit_rows = 0;
            self.normed.grow(memory, logit_rows * w.hidden)?;
            self.logit_rows = logit_rows;
        }
        let ranges = positions.div_ceil(RANGE);
        if self.threads.len() > 1 && rows <= SPLIT_ROWS && ranges > 1 {
            let states = rows * self.heads.query_heads * ranges.next_power_of_two();
            self.states.grow(memory, states * state_len(self.heads.layout))?;
        }
        Ok(())
    }
}

/// Cosines and sines of all positions seen so far, for all layers, and those of layers with a sliding window.
pub(crate) struct RopeTable {
    global: Angles,
    sliding: Option<Angles>,
    half: usize,
}

/// `[position][head_dim / 2]`.
#[derive(Default)]
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    pub(crate) fn new(spec: &ModelSpec) -> Self {
        let sliding = spec.extras.sliding.as_ref().map(|_| Angles::default());
        Self { global: Angles::default(), sliding, half: spec.head_dim / 2 }
    }

    /// Fills the tables up to `positions`.
    pub(crate) fn ensure(&mut self, spec: &ModelSpec, positions: usize) {
        let half = self.half;
        for (sliding, angles) in [(false, Some(&mut self.global)), (true, self.sliding.as_mut())] {
            let Some(Angles { cos, sin }) = angles else { continue };
            let have = cos.len() / half;
            if have < positions {
                let want = positions.next_power_of_two().max(64);
                cos.resize(want * half, 0.0);
                sin.resize(want * half, 0.0);
                for p in have..want {
                    let range = p * half..(p + 1) * half;
                    rope_angles(spec, sliding, p, &mut cos[range.clone()], &mut sin[range]);
                }
            }
        }
    }

    /// Angles of a position, in a layer with or without a sliding window.
    pub(crate) fn at(&self, position: usize, sliding: bool) -> (&[f32], &[f32]) {
        let angles = self.sliding.as_ref().filter(|_| sliding).unwrap_or(&self.global);
        let range = position * self.half..(position + 1) * self.half;
        (&angles.cos[range.clone()], &angles.sin[range])
    }
}
