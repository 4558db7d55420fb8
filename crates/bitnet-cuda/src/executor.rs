//! [`CudaExecutor`]: the [`Executor`] of this crate.

use bitnet_core::device_pool::Lent;
use bitnet_core::{MemorySize, MemoryStats};
use bitnet_model::executor::{check_blocks, read_embedding_rows};
use bitnet_model::{
    Batch, DenseTensor, ExecError, Executor, ExecutorInfo, Give, KvType, ModelSpec, RowWant, RowWants,
    TopLogits, Traffic, Want, Weights,
};
use bytemuck::cast_slice;

use crate::attention::{COUNTERS, Sharing, tile_shared};
use crate::driver::Driver;
use crate::forward::{Part, Pass};
use crate::gpu::{Address, Gpu, GraphId};
use crate::graphs::{Graphs, Way};
use crate::kv::{KvCache, KvLayout};
use crate::mailbox::{self, Post};
use crate::memory::{DeviceStatistics, Memory};
use crate::model::Model;
use crate::output::{Results, Top, capacity, mask_words, order, tops};
use crate::scratch::{Inputs, LOGIT_ROWS, Places, RANGE, Scratch, Sizes, check_spec, table_len, tile_count};
use crate::{BACKEND, BLOCK_SIZE, CudaError};

/// Most tokens of a call: large enough to fill any GPU, small enough for its buffers.
const MAX_BATCH_TOKENS: usize = 2048;
/// Fewest tokens whose attention is computed in tiles.
const TILED_ROWS: usize = 16;
/// Most sequences whose decoding is recorded as a graph.
const GRAPH_ROWS: usize = 64;

/// How a [`CudaExecutor`] is set up.
#[derive(Debug, Clone, Default)]
pub struct CudaOptions {
    /// Number of the device, as [`devices`](crate::devices) counts.
    pub device: usize,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Most of the device's memory that may be used; `None`: all that is free.
    pub memory: Option<MemorySize>,
    /// Kernels by the name of their [`Target`](crate::Target), instead of the best that the device runs.
    pub kernels: Option<String>,
}

/// The executor of this crate.
pub struct CudaExecutor {
    memory: Memory,
    model: Model,
    kv: KvCache,
    graphs: Graphs,
    counters: Lent<Address>,
    embedding: DenseTensor,
}

/// A batch as it is computed.
struct Work<'a> {
    scratch: &'a Scratch,
    sizes: Sizes,
    /// Whether each sequence has one token, as in every step of decoding.
    steady: bool,
    inputs: &'a [u8],
    /// What the first layer gets instead of tokens.
    rows: Option<&'a [f32]>,
}

impl Work<'_> {
    /// Whether inputs and results may go through the mailbox: if all rows want their largest logits, and it is large enough.
    fn fits_mailbox(&self) -> bool {
        let Sizes { picked, top, .. } = self.sizes;
        top > 0 && top == picked && mailbox::fits(self.inputs.len(), top)
    }
}

/// What is timed by itself.
#[derive(Clone, Copy)]
enum Timed {
    Part(Part),
    Output,
    Whole,
}

impl Timed {
    fn name(self) -> &'static str {
        match self {
            Timed::Part(part) => part.name(),
            Timed::Output => "output",
            Timed::Whole => "all",
        }
    }
}

impl CudaExecutor {
    /// Packs the weights and copies them to the device; pages of the model's file are given back as soon as they were read.
    /// `progress` hears of bytes on the device and of all of them.
    ///
    /// # Errors
    /// [`ExecError::Device`] without a driver or such a device, [`ExecError::OutOfDeviceMemory`],
    /// [`ExecError::Unsupported`] for shapes that kernels lack, damaged weights.
    pub fn new(
        spec: ModelSpec,
        weights: &Weights,
        options: &CudaOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        let driver = Driver::open(options.device, options.kernels.as_deref())?;
        Self::on(Box::new(driver), spec, weights, options, progress)
    }

    /// As [`new`](Self::new), on a device that is there already; number and kernels of the options do not count.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(
        gpu: Box<dyn Gpu>,
        spec: ModelSpec,
        weights: &Weights,
        options: &CudaOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        check_spec(&spec).map_err(|what| ExecError::Unsupported { backend: BACKEND, what })?;
        let mut memory = Memory::new(gpu, options.memory)?;
        let counters = memory.take_exact(COUNTERS * size_of::<u32>())?;
        let kv = KvCache::new(KvLayout::new(&spec, options.kv_type));
        let plain = spec.extras.projection_norms || spec.extras.head_norms || options.kv_type == KvType::Int8;
        let model = Model::load(&mut memory, spec, weights, !plain, progress)?;
        let embedding = weights.embedding.clone();
        Ok(Self { memory, model, kv, graphs: Graphs::default(), counters, embedding })
    }

    /// What the device's memory holds, and what was done with it.
    pub fn statistics(&self) -> DeviceStatistics {
        let (pool, transfers) = (self.memory.stats(), self.memory.transfers);
        DeviceStatistics { pool, transfers, graphs: self.graphs.counts }
    }

    /// Measures how fast the device copies its own memory, reads and writes counted, in bytes a second. From then on
    /// [`statistics`](Self::statistics) has it too.
    ///
    /// # Errors
    /// If there is no room for two buffers of 256 MiB, or the device fails.
    pub fn measure_bandwidth(&mut self) -> Result<f64, ExecError> {
        const BYTES: usize = 256 << 20;
        const TIMES: u32 = 8;
        let from = self.memory.take(BYTES)?;
        let to = match self.memory.take(BYTES) {
            Ok(to) => to,
            Err(error) => {
                self.memory.give(from);
                return Err(error.into());
            }
        };
        let mut copy = |times: u32| -> Result<f64, CudaError> {
            let begin = std::time::Instant::now();
            for _ in 0..times {
                self.memory.gpu.copy(from.buffer, to.buffer, BYTES as u64)?;
            }
            self.memory.gpu.synchronize()?;
            Ok(begin.elapsed().as_secs_f64())
        };
        let seconds = copy(1).and_then(|_| copy(TIMES));
        self.memory.give(from);
        self.memory.give(to);
        let rate = 2.0 * BYTES as f64 * f64::from(TIMES) / seconds?.max(1e-9);
        self.memory.record_bandwidth(rate);
        Ok(rate)
    }

    /// Seconds that the device takes for each kind of work of a batch, all layers together, and for all of it in its order
    /// (`all`), by its own events. The keys and
    /// values of the batch's new positions are unspecified behind it. For benchmarks.
    ///
    /// # Errors
    /// As [`Executor::forward`].
    pub fn time_parts(&mut self, batch: &Batch<'_>) -> Result<Vec<(&'static str, f64)>, ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.count())?;
        let positions = batch.sequences.iter().map(|s| s.position + s.tokens.len()).max().unwrap_or(0);
        if self.model.ensure_positions(&mut self.memory, positions)? {
            self.graphs.clear(&mut *self.memory.gpu);
        }
        let tops = tops(RowWants::top(1), batch.logit_rows());
        let (sizes, stride) = self.sizes(batch, None, &tops, true);
        let scratch = self.scratch(&sizes)?;
        let order: Vec<usize> = (0..sizes.picked).collect();
        let mut inputs = Inputs::new(&scratch.places, batch.sequences, &self.kv, stride, &order);
        inputs.add_tops(&scratch.places, &tops);
        let uploaded = self.memory.upload(scratch.buffer.buffer, &inputs.bytes);
        let times = uploaded.and_then(|()| self.time_each(&scratch, sizes));
        self.memory.give(scratch.buffer);
        Ok(times?)
    }

    /// Records each part of a pass by itself, many times over, and times it.
    fn time_each(&mut self, scratch: &Scratch, sizes: Sizes) -> Result<Vec<(&'static str, f64)>, CudaError> {
        const REPEATS: u32 = 20;
        let mut times = Vec::new();
        let parts = Part::ALL.into_iter().map(Timed::Part);
        for timed in parts.chain((sizes.top > 0).then_some(Timed::Output)).chain([Timed::Whole]) {
            let (model, kv, counters) = (&self.model, self.kv.layout(), self.counters.buffer);
            self.memory.gpu.begin_graph()?;
            let mut pass = Pass { model, kv, scratch, sizes, counters, gpu: &mut *self.memory.gpu };
            let rows = sizes.top.min(LOGIT_ROWS);
            let recorded = match timed {
                Timed::Part(part) => (0..model.layers.len()).try_for_each(|layer| pass.part(part, layer)),
                Timed::Output => pass.select(0, rows),
                Timed::Whole if rows > 0 => pass.hidden().and_then(|()| pass.select(0, rows)),
                Timed::Whole => pass.hidden(),
            };
            let graph = self.memory.gpu.end_graph()?;
            recorded?;
            self.memory.gpu.time_graph(graph, 3)?;
            let seconds = self.memory.gpu.time_graph(graph, REPEATS)? / f64::from(REPEATS);
            self.memory.gpu.drop_graph(graph);
            times.push((timed.name(), seconds));
        }
        Ok(times)
    }

    fn sizes(
        &self,
        batch: &Batch<'_>,
        input: Option<&[f32]>,
        tops: &[Top<'_>],
        logits: bool,
    ) -> (Sizes, Option<usize>) {
        let (rows, picked) = (batch.tokens(), batch.logit_rows());
        let last = batch.sequences.iter().map(|s| s.position + s.tokens.len() - 1).max().unwrap_or(0);
        let steady = input.is_none() && rows == batch.sequences.len() && rows <= GRAPH_ROWS;
        let facts = self.memory.gpu.facts();
        let attention = Sharing::new(&self.model.spec, rows, last / RANGE + 1, steady, facts);
        let stride = steady.then_some(attention.ranges * (RANGE / BLOCK_SIZE));
        // Tokens that follow each other share keys and values, if there are enough to fill the device.
        let tiled = tile_count(batch);
        let kv = self.kv.layout();
        let fits = tile_shared(kv.key_bytes()) < facts.shared_bytes as usize;
        let can_tile = kv.kv_type == KvType::F16 && self.model.spec.head_dim <= 128 && fits;
        let tiles = if can_tile && rows >= 2 * tiled && rows >= TILED_ROWS { tiled } else { 0 };
        let sizes = Sizes {
            rows,
            picked,
            attention: if tiles == 0 { attention } else { attention.whole() },
            table: stride.map_or_else(|| table_len(batch), |stride| rows * stride),
            tiles,
            logits,
            from_rows: input.is_some(),
            top: tops.len(),
            capacity: if tops.is_empty() { 0 } else { capacity(tops) },
            mask_words: mask_words(tops),
            draws: tops.iter().any(|top| top.draw.is_some()),
        };
        (sizes, stride)
    }

    fn scratch(&mut self, sizes: &Sizes) -> Result<Scratch, CudaError> {
        let places = Places::new(&self.model.spec, sizes, self.kv.layout().padded_dim());
        let buffer = self.memory.take(places.total)?;
        Ok(Scratch { places, buffer })
    }

    /// Checks a batch and runs it, from `input` instead of its tokens if that is given.
    fn run(&mut self, batch: &Batch<'_>, input: Option<&[f32]>, want: Want<'_>) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.count())?;
        want.check(batch, &self.model.spec, input)?;
        if batch.tokens() == 0 {
            return Ok(());
        }
        let positions = batch.sequences.iter().map(|s| s.position + s.tokens.len()).max().unwrap_or(0);
        if self.model.ensure_positions(&mut self.memory, positions)? {
            self.graphs.clear(&mut *self.memory.gpu);
        }
        let picked = batch.logit_rows();
        let (tops, order) = match &want {
            Want::Hidden(_) => (Vec::new(), (0..picked).collect()),
            Want::Logits(wants, ..) => (tops(*wants, picked), order(*wants, picked)),
        };
        let (sizes, stride) = self.sizes(batch, input, &tops, matches!(want, Want::Logits(..)));
        let scratch = self.scratch(&sizes)?;
        let mut inputs = Inputs::new(&scratch.places, batch.sequences, &self.kv, stride, &order);
        inputs.add_tops(&scratch.places, &tops);
        let work =
            Work { scratch: &scratch, sizes, steady: stride.is_some(), inputs: &inputs.bytes, rows: input };
        let result = self.run_on(&work, &tops, want);
        self.memory.give(scratch.buffer);
        result
    }

    fn run_on(&mut self, work: &Work<'_>, tops: &[Top<'_>], want: Want<'_>) -> Result<(), ExecError> {
        let delivered = self.compute(work)?;
        let &Work { scratch, sizes, .. } = work;
        match want {
            Want::Hidden(out) => self.take_hidden(scratch, out),
            Want::Logits(..) if sizes.picked == 0 => Ok(self.memory.gpu.synchronize()?),
            Want::Logits(_, logits, top) => {
                let (model, kv, counters) = (&self.model, self.kv.layout(), self.counters.buffer);
                let memory = &mut self.memory;
                let mut results = Results { memory, model, kv, scratch, sizes, counters, tops };
                if delivered && results.take_delivered(top)? {
                    return Ok(());
                }
                results.take(logits, top)
            }
        }
    }

    /// Sends the inputs and queues all kernels up to the first rows of logits. Whether what was found has been delivered.
    fn compute(&mut self, work: &Work<'_>) -> Result<bool, CudaError> {
        let key = (work.sizes, work.scratch.buffer.buffer);
        let way = if work.steady { self.graphs.way(key) } else { Way::Direct };
        let post = self.memory.post().filter(|_| way != Way::Direct && work.fits_mailbox());
        let graph = match way {
            Way::Direct => {
                self.send(work)?;
                self.pass(work).all()?;
                return Ok(false);
            }
            Way::Record => self.record(work, post)?,
            Way::Run(graph) => graph,
        };
        if post.is_some() {
            self.memory.step(graph, work.inputs)?;
        } else {
            self.send(work)?;
            self.memory.gpu.run_graph(graph)?;
        }
        Ok(post.is_some())
    }

    fn send(&mut self, work: &Work<'_>) -> Result<(), CudaError> {
        self.memory.upload(work.scratch.buffer.buffer, work.inputs)?;
        let Some(rows) = work.rows else { return Ok(()) };
        self.memory.upload(work.scratch.at(work.scratch.places.input_rows), cast_slice(rows))
    }

    fn pass<'a>(&'a mut self, work: &Work<'a>) -> Pass<'a> {
        let (model, kv, counters) = (&self.model, self.kv.layout(), self.counters.buffer);
        Pass { model, kv, scratch: work.scratch, sizes: work.sizes, counters, gpu: &mut *self.memory.gpu }
    }

    /// Records a pass, with inputs and results by way of the mailbox if there is one.
    fn record(&mut self, work: &Work<'_>, post: Option<Post>) -> Result<GraphId, CudaError> {
        self.memory.gpu.begin_graph()?;
        let mut pass = self.pass(work);
        let recorded = match post {
            Some(post) => pass.delivered(post),
            None => pass.all(),
        };
        let graph = self.memory.gpu.end_graph();
        recorded?;
        let graph = graph?;
        let key = (work.sizes, work.scratch.buffer.buffer);
        self.graphs.keep(&mut *self.memory.gpu, key, graph);
        Ok(graph)
    }

    fn take_hidden(&mut self, scratch: &Scratch, out: &mut [f32]) -> Result<(), ExecError> {
        let (hidden, pitch) = (self.model.spec.hidden_size, self.model.output.pitch);
        let mut flags = [0u8; 4];
        self.memory.download(scratch.at(scratch.places.flags), &mut flags)?;
        let mut rows = vec![0.0f32; out.len() / hidden * pitch];
        self.memory.download(scratch.at(scratch.places.hidden), bytemuck::cast_slice_mut(&mut rows))?;
        for (out, row) in out.chunks_exact_mut(hidden).zip(rows.chunks_exact(pitch)) {
            out.copy_from_slice(&row[..hidden]);
        }
        if flags == [0; 4] || out.is_empty() { Ok(()) } else { Err(ExecError::NotFinite) }
    }
}

impl Executor for CudaExecutor {
    fn spec(&self) -> &ModelSpec {
        &self.model.spec
    }

    fn draws(&self) -> bool {
        true
    }

    fn device_memory(&self) -> Option<MemoryStats> {
        Some(self.statistics().pool)
    }

    fn info(&self) -> ExecutorInfo {
        let facts = self.memory.gpu.facts();
        let size = |bytes: usize| MemorySize::bytes(bytes as u64);
        let (output, output_scan) = (size(self.model.output.bytes), size(self.model.image.bytes));
        ExecutorInfo {
            description: format!("cuda ({}, {} kernels)", facts.name, facts.kernels),
            weight_bytes: size(self.model.weight_bytes()),
            file_bytes: MemorySize::bytes(0),
            block_size: BLOCK_SIZE,
            block_bytes: size(self.kv.layout().block_bytes()),
            kv_type: self.kv.layout().kv_type,
            max_batch_tokens: MAX_BATCH_TOKENS,
            kernels: facts.kernels,
            threads: 1,
            traffic: Traffic { layers: size(self.model.ternary_bytes), output, output_scan },
        }
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        Ok(self.kv.reserve(&mut self.memory, count)?)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        check_blocks(&[from, to], self.kv.count())?;
        Ok(self.kv.copy(&mut self.memory, from, to)?)
    }

    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        check_blocks(&[block], self.kv.count())?;
        self.kv.layout().rows().check(positions, BLOCK_SIZE, out.len())?;
        Ok(self.kv.read(&mut self.memory, block, positions, out)?)
    }

    fn write_block(&mut self, block: u32, positions: usize, bytes: &[u8]) -> Result<(), ExecError> {
        check_blocks(&[block], self.kv.count())?;
        self.kv.layout().rows().check(positions, BLOCK_SIZE, bytes.len())?;
        Ok(self.kv.write(&mut self.memory, block, positions, bytes)?)
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        self.run(batch, None, Want::all(logits))
    }

    fn forward_top(&mut self, batch: &Batch<'_>, k: usize, top: &mut [TopLogits]) -> Result<(), ExecError> {
        self.run(batch, None, Want::top(k, top))
    }

    fn forward_select(
        &mut self,
        batch: &Batch<'_>,
        wants: &[RowWant<'_>],
        logits: &mut [f32],
        top: &mut [TopLogits],
    ) -> Result<(), ExecError> {
        self.run(batch, None, Want::each(wants, logits, top))
    }

    fn forward_hidden(&mut self, batch: &Batch<'_>, hidden: &mut [f32]) -> Result<(), ExecError> {
        self.run(batch, None, Want::Hidden(hidden))
    }

    fn embedding_rows(&mut self, tokens: &[u32], rows: &mut [f32]) -> Result<(), ExecError> {
        read_embedding_rows(&self.model.spec, &self.embedding, tokens, rows)
    }

    fn forward_rows(
        &mut self,
        batch: &Batch<'_>,
        rows: &[f32],
        give: Give,
        out: &mut [f32],
    ) -> Result<(), ExecError> {
        self.run(batch, Some(rows), Want::of(give, out))
    }
}

impl std::fmt::Debug for CudaExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaExecutor({})", self.info().description)
    }
}
