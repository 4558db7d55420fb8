//! [`CpuExecutor`]: loading into this crate's layout, and the [`Executor`] implementation.

use std::sync::atomic::{AtomicBool, Ordering};

use bitnet_core::MemorySize;
use bitnet_core::cpu::CpuFeatures;
use bitnet_core::pool::ThreadPool;
use bitnet_model::executor::full_as_top;
use bitnet_model::{
    Batch, ExecError, Executor, ExecutorInfo, LayerWeights, ModelSpec, TopLogits, Traffic, Weights,
};

use crate::forward::{Layer, Model, Pass, Want};
use crate::int8_rows::Int8Rows;
use crate::kernels::{self, KernelSet};
use crate::kv::{BLOCK_SIZE, KvCache};
use crate::layout::{Packer, STRIP_ROWS};
use crate::scratch::{RopeTable, Scratch, Widths};
use crate::shared::Shared;

/// Rows of a batch up to which more rows make the products faster.
const MAX_BATCH_TOKENS: usize = 192;
/// More threads than this are never started.
const MAX_THREADS: usize = 1024;

/// How to run on the CPU.
#[derive(Debug, Clone, Default)]
pub struct CpuOptions {
    /// Threads; by default one for each physical core this process may use.
    pub threads: Option<usize>,
    /// Kernel set by name; by default `BITNET_KERNELS`, else the fastest available.
    pub kernels: Option<String>,
    /// How the output layer is kept.
    pub output: OutputStorage,
}

/// How the output layer is kept. The logits are the same bits in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputStorage {
    /// [`OutputStorage::Int8`] from 4 MiB on, otherwise [`OutputStorage::File`].
    #[default]
    Auto,
    /// Where it lies in the model's file, read whole for every token.
    File,
    /// An int8 copy with error bounds finds the rows that matter; only those are read from the file.
    Int8,
}

impl OutputStorage {
    fn wants_int8(self, bytes: usize) -> bool {
        match self {
            OutputStorage::Auto => bytes >= 4 << 20,
            OutputStorage::File => false,
            OutputStorage::Int8 => true,
        }
    }
}

/// The executor of this crate.
pub struct CpuExecutor {
    model: Model,
    pool: ThreadPool,
    kv: KvCache,
    rope: RopeTable,
    scratch: Scratch,
    warnings: Vec<String>,
}

impl CpuExecutor {
    /// Repacks the ternary weights with all threads; pages of the model's file are given back as soon as they were read.
    /// `progress` hears how much of the repacking is done.
    ///
    /// # Errors
    /// Damaged weights, no memory, an unknown or unavailable kernel set, too many threads.
    pub fn new(
        spec: ModelSpec,
        weights: &Weights,
        options: &CpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        let unsupported = |what| ExecError::Unsupported { backend: "cpu", what };
        let threads = options.threads.unwrap_or_else(|| CpuFeatures::detect().cores);
        if threads == 0 || threads > MAX_THREADS {
            return Err(unsupported(format!("{threads} threads; choose 1 to {MAX_THREADS}")));
        }
        let from_env = std::env::var("BITNET_KERNELS").ok();
        let wanted = options.kernels.as_deref().or(from_env.as_deref());
        let (kernels, warnings) = kernels::self_test::checked(kernels::choose(wanted).map_err(unsupported)?);
        let mut pool = ThreadPool::new(threads)?;
        let layers = pack_layers(&mut pool, weights, progress)?;
        let output = weights.output_layer().clone();
        let int8 = match options.output.wants_int8(output.data().len()) {
            true => Some(Int8Rows::new(&mut pool, kernels, &output)?),
            false => None,
        };
        let scratch = Scratch::new(threads, layers.len(), widths(&spec))?;
        let (kv, rope) = (KvCache::new(&spec), RopeTable::new(&spec));
        let (embedding, final_norm) = (weights.embedding.clone(), weights.final_norm.clone());
        let model = Model { spec, kernels, layers, embedding, output, int8, final_norm };
        Ok(Self { model, pool, kv, rope, scratch, warnings })
    }

    /// Name of the kernel set in use.
    pub fn kernel_set_name(&self) -> &'static str {
        self.model.kernels.name
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// What a person should know, such as a kernel set that failed its self-test.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn ternary_bytes(&self) -> usize {
        let layers = self.model.layers.iter();
        layers.map(|l| l.qkv.bytes() + l.o.bytes() + l.gate.bytes() + l.up.bytes() + l.down.bytes()).sum()
    }

    fn weight_bytes(&self) -> usize {
        let ternary = self.ternary_bytes();
        let (embedding, output) = (self.model.embedding.data(), self.model.output.data());
        let tied = std::ptr::eq(embedding.as_slice(), output.as_slice());
        let dense = output.len() + if tied { 0 } else { embedding.len() };
        ternary + dense + self.model.int8.as_ref().map_or(0, Int8Rows::bytes)
    }

    fn traffic(&self) -> Traffic {
        let output = self.model.output.data().len();
        let scan = self.model.int8.as_ref().map_or(output, Int8Rows::bytes);
        Traffic {
            layers: MemorySize::bytes(self.ternary_bytes() as u64),
            output: MemorySize::bytes(output as u64),
            output_scan: MemorySize::bytes(scan as u64),
        }
    }

    /// Checks the batch, makes room and runs the pass.
    fn run(&mut self, batch: &Batch<'_>, want: Want<'_>) -> Result<(), ExecError> {
        let rows = batch.tokens();
        if rows == 0 {
            return Ok(());
        }
        let positions = batch.sequences.iter().map(|s| s.position + s.tokens.len()).max().unwrap_or(0);
        self.scratch.ensure(rows, batch.logit_rows(), positions)?;
        self.rope.ensure(&self.model.spec, positions);
        let finite = AtomicBool::new(true);
        let pass =
            Pass::new(&self.model, &self.kv, &self.rope, &mut self.scratch, batch.sequences, want, &finite);
        self.pool.run(|team| pass.run(team));
        if finite.load(Ordering::Relaxed) { Ok(()) } else { Err(ExecError::NotFinite) }
    }
}

fn widths(spec: &ModelSpec) -> Widths {
    let pad = |n: usize| n.next_multiple_of(STRIP_ROWS);
    let (hidden, attention, ffn) = (pad(spec.hidden_size), pad(spec.q_size()), pad(spec.intermediate_size));
    Widths {
        hidden,
        qkv: attention + 2 * pad(spec.kv_size()),
        attention,
        ffn,
        longest: hidden.max(attention).max(ffn),
    }
}

fn pack_layers(
    pool: &mut ThreadPool,
    weights: &Weights,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Layer>, ExecError> {
    let mut packer = Packer::default();
    for (i, l) in weights.layers.iter().enumerate() {
        packer.add(format!("layer {i} q, k, v"), &[&l.q, &l.k, &l.v]);
        packer.add(format!("layer {i} o"), &[&l.o]);
        packer.add(format!("layer {i} gate"), &[&l.gate]);
        packer.add(format!("layer {i} up"), &[&l.up]);
        packer.add(format!("layer {i} down"), &[&l.down]);
    }
    let mut packed = packer.pack(pool, progress)?.into_iter();
    let mut next = || packed.next().expect("five entries were added for each layer");
    let layer = |l: &LayerWeights| Layer {
        attn_norm: l.attn_norm.clone(),
        qkv: next(),
        attn_sub_norm: l.attn_sub_norm.clone(),
        o: next(),
        ffn_norm: l.ffn_norm.clone(),
        gate: next(),
        up: next(),
        ffn_sub_norm: l.ffn_sub_norm.clone(),
        down: next(),
    };
    Ok(weights.layers.iter().map(layer).collect())
}

impl Executor for CpuExecutor {
    fn spec(&self) -> &ModelSpec {
        &self.model.spec
    }

    fn info(&self) -> ExecutorInfo {
        let threads = self.pool.threads();
        let plural = if threads == 1 { "" } else { "s" };
        ExecutorInfo {
            description: format!("cpu ({}, {threads} thread{plural})", self.model.kernels.name),
            weight_bytes: MemorySize::bytes(self.weight_bytes() as u64),
            block_size: BLOCK_SIZE,
            block_bytes: MemorySize::bytes(self.kv.block_bytes() as u64),
            max_batch_tokens: MAX_BATCH_TOKENS,
            kernels: self.model.kernels.name,
            threads,
            traffic: self.traffic(),
        }
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        self.kv.reserve(count)
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.block_count())?;
        batch.check_output(&self.model.spec, logits)?;
        self.run(batch, Want::All(Shared::new(logits)))
    }

    fn forward_top(&mut self, batch: &Batch<'_>, k: usize, top: &mut [TopLogits]) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.block_count())?;
        batch.check_top(top)?;
        let vocab = self.model.spec.vocab_size;
        let Some(int8) = self.model.int8.take() else {
            return full_as_top(self, batch, top);
        };
        let room = self.scratch.ensure_top(vocab);
        let done = room.and_then(|()| self.run(batch, Want::Top { k, int8: &int8, top: Shared::new(top) }));
        self.model.int8 = Some(int8);
        done
    }
}

impl std::fmt::Debug for CpuExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuExecutor({})", self.info().description)
    }
}

/// The kernel set that `name` (or the default rule) gives, for people.
pub fn chosen_kernel_set(name: Option<&str>) -> Result<&'static str, String> {
    kernels::choose(name).map(|k: &KernelSet| k.name)
}
