//! Memory that forward passes reuse: it grows when a batch needs more and is never allocated in steady decoding.

use std::sync::atomic::AtomicUsize;

use bitnet_core::buffer::AlignedBuf;
use bitnet_model::kv::RANGE;
use bitnet_model::reference::rope_angles;
use bitnet_model::{ExecError, ModelSpec};
use bytemuck::Zeroable;

use crate::attention::{SPLIT_ROWS, TILE};
use crate::forward::FFN_STRIDE;
use crate::kernels::attention::{AttendScratch, state_len};
use crate::kernels::{RowLayout, code_bytes};
use crate::kv::KvLayout;
use crate::search::{OutputScratch, OutputThread};

/// Buffers of a batch, `[rows][stride]` each, with strides padded to whole strips.
pub(crate) struct Scratch {
    /// Residual stream.
    pub(crate) x: AlignedBuf<f32>,
    /// Queries, keys and values, each part padded to whole strips.
    pub(crate) qkv: AlignedBuf<f32>,
    /// Output of attention.
    pub(crate) attention: AlignedBuf<f32>,
    /// The activated product of gate and up.
    pub(crate) gate: AlignedBuf<f32>,
    /// Quantised rows, in blocks as products read them.
    pub(crate) q: AlignedBuf<i8>,
    /// Activation scales of the quantised rows.
    pub(crate) scales: AlignedBuf<f32>,
    /// Sums of the quantised rows.
    pub(crate) sums: AlignedBuf<i32>,
    /// Normed rows for the output layer.
    pub(crate) normed: AlignedBuf<f32>,
    /// What the int8 output layer needs.
    pub(crate) output: OutputScratch,
    /// What attention or the feed-forward part gives, where a norm stands behind them.
    pub(crate) branch: AlignedBuf<f32>,
    /// For each product of a pass, [`PRODUCTS`] a layer, the pieces of work given out so far.
    pub(crate) pieces: Vec<AtomicUsize>,
    /// States of ranges of attention, when these are shared out.
    pub(crate) states: AlignedBuf<f32>,
    /// For each layer, the units of attention given out so far.
    pub(crate) units: Vec<AtomicUsize>,
    /// What each thread needs for itself.
    pub(crate) threads: Vec<ThreadScratch>,
    rows: usize,
    logit_rows: usize,
    widths: Widths,
    heads: Heads,
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
    pub(crate) factors: AlignedBuf<f32>,
    /// Unpacked codes of a few strips, when there are several rows.
    pub(crate) codes: AlignedBuf<u8>,
}

/// Gate and up projections of a few strips, `[rows][FFN_STRIDE]` each.
pub(crate) struct FfnScratch {
    pub(crate) gate: AlignedBuf<f32>,
    pub(crate) up: AlignedBuf<f32>,
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
                product: ProductScratch { factors: AlignedBuf::zeroed(0)?, codes: AlignedBuf::zeroed(0)? },
                ffn: FfnScratch { gate: AlignedBuf::zeroed(0)?, up: AlignedBuf::zeroed(0)? },
                attend: AttendScratch::new(heads.layout)?,
                states: AlignedBuf::zeroed(tile_queries * state_len(heads.layout))?,
                encoded: AlignedBuf::zeroed(heads.layout.row_bytes())?,
                output: OutputThread::default(),
            });
        }
        Ok(Self {
            x: AlignedBuf::zeroed(0)?,
            qkv: AlignedBuf::zeroed(0)?,
            attention: AlignedBuf::zeroed(0)?,
            gate: AlignedBuf::zeroed(0)?,
            q: AlignedBuf::zeroed(0)?,
            scales: AlignedBuf::zeroed(0)?,
            sums: AlignedBuf::zeroed(0)?,
            normed: AlignedBuf::zeroed(0)?,
            output: OutputScratch::new()?,
            branch: AlignedBuf::zeroed(0)?,
            pieces: (0..PRODUCTS * layers).map(|_| AtomicUsize::new(0)).collect(),
            states: AlignedBuf::zeroed(0)?,
            units: (0..layers).map(|_| AtomicUsize::new(0)).collect(),
            threads: own,
            rows: 0,
            logit_rows: 0,
            widths,
            heads,
        })
    }

    pub(crate) fn widths(&self) -> Widths {
        self.widths
    }

    /// Makes room for `rows` tokens, `logit_rows` of them with logits, and attention over `positions`.
    pub(crate) fn ensure(
        &mut self,
        rows: usize,
        logit_rows: usize,
        positions: usize,
    ) -> Result<(), ExecError> {
        let w = self.widths;
        if rows > self.rows {
            let room = rows.next_power_of_two().min(rows.next_multiple_of(64));
            grow(&mut self.x, room * w.hidden)?;
            grow(&mut self.qkv, room * w.qkv)?;
            grow(&mut self.attention, room * w.attention)?;
            grow(&mut self.gate, room * w.ffn)?;
            grow(&mut self.branch, room * w.branch)?;
            let layouts = [RowLayout::Quads, RowLayout::Tiles];
            grow(&mut self.q, layouts.map(|l| l.len(room, w.longest)).into_iter().fold(0, usize::max))?;
            grow(&mut self.scales, room)?;
            grow(&mut self.sums, room)?;
            for t in &mut self.threads {
                grow(&mut t.product.factors, room)?;
                grow(&mut t.ffn.gate, room * FFN_STRIDE)?;
                grow(&mut t.ffn.up, room * FFN_STRIDE)?;
                if rows > 1 {
                    grow(&mut t.product.codes, code_bytes(room, w.longest))?;
                }
            }
            self.rows = room;
        }
        if logit_rows > self.logit_rows {
            grow(&mut self.normed, logit_rows * w.hidden)?;
            self.logit_rows = logit_rows;
        }
        let ranges = positions.div_ceil(RANGE);
        if self.threads.len() > 1 && rows <= SPLIT_ROWS && ranges > 1 {
            let states = rows * self.heads.query_heads * ranges.next_power_of_two();
            grow(&mut self.states, states * state_len(self.heads.layout))?;
        }
        Ok(())
    }
}

/// Replaces a buffer by a longer one; its content is lost.
fn grow<T: Zeroable + Copy>(buffer: &mut AlignedBuf<T>, len: usize) -> Result<(), ExecError> {
    if buffer.len() < len {
        *buffer = AlignedBuf::zeroed(0)?;
        *buffer = AlignedBuf::zeroed(len)?;
    }
    Ok(())
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
