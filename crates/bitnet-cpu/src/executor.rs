//! [`CpuExecutor`]: loading into this crate's layout, and the [`Executor`] implementation.

use std::sync::Arc;

use bitnet_core::MemorySize;
use bitnet_core::bytes::ByteView;
use bitnet_core::cpu::CpuFeatures;
use bitnet_core::memory_pool::MemoryPool;
use bitnet_core::pool::ThreadPool;
use bitnet_model::executor::{Give, check_blocks, full_as_top, read_embedding_rows};
use bitnet_model::select::full_as_select;
use bitnet_model::{
    Batch, DenseTensor, ExecError, Executor, ExecutorInfo, KvType, LayerWeights, ModelSpec, RowWant,
    TopLogits, TopWant, Traffic, Weights,
};

use crate::forward::Pass;
use crate::int8_rows::Int8Rows;
use crate::kernels::{self, KernelSet};
use crate::kv::{BLOCK_SIZE, KvCache};
use crate::layout::{Form, Packer, STRIP_ROWS, choice};
use crate::model::{Layer, Model};
use crate::outcome::Outcome;
use crate::scratch::{Heads, RopeTable, Scratch, Widths};
use crate::shared::Shared;
use crate::want::{RowWants, Want};

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
    /// How ternary weights are kept; by default the form that a short measurement finds faster.
    pub form: Option<Form>,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Where the buffers of forward passes come from, which grow with the batch; by default from a pool without a limit.
    pub memory: Option<MemoryPool>,
}

/// How the output layer is kept and computed. `Exact`, `Scan` and `Full` give the same bits; `Int8` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputStorage {
    /// [`OutputStorage::Scan`] from 4 MiB on, otherwise [`OutputStorage::Full`], which is faster for small tables.
    #[default]
    Exact,
    /// int8 rows with error bounds find the rows that can matter. Only those are computed in full precision; they are read
    /// from the model's file, which is not resident otherwise. All logits, where they are asked for, read all of it.
    Scan,
    /// int8 rows alone, one scale a row: approximate logits, the model's file is not read after loading. Tables that
    /// int8 rows cannot hold (65,536 columns and more) are kept as [`OutputStorage::Full`].
    Int8,
    /// The full-precision rows where they lie in the model's file, read whole for every token.
    Full,
}

/// Bytes of a table from which on it is worth scanning.
const SCAN_BYTES: usize = 4 << 20;

impl OutputStorage {
    /// Whether there are int8 rows of a table, and if so, whether they have error bounds.
    fn bounds(self, table: &DenseTensor) -> Option<bool> {
        let wanted = match self {
            OutputStorage::Exact => table.data().len() >= SCAN_BYTES,
            OutputStorage::Scan | OutputStorage::Int8 => true,
            OutputStorage::Full => false,
        };
        (wanted && Int8Rows::can_hold(table.cols())).then_some(self != OutputStorage::Int8)
    }

    /// Makes the int8 rows of a table, if it is to have some and `known` are not the same.
    fn int8_rows(
        self,
        host: &mut Host,
        table: &DenseTensor,
        known: Option<&Arc<Int8Rows>>,
    ) -> Result<Option<Arc<Int8Rows>>, ExecError> {
        let Some(bounds) = self.bounds(table) else { return Ok(None) };
        if let Some(known) = known.filter(|known| known.is_exact() == bounds) {
            return Ok(Some(Arc::clone(known)));
        }
        Int8Rows::new(&mut host.pool, host.kernels, table, bounds).map(|rows| Some(Arc::new(rows)))
    }
}

/// Threads, and the kernels that they run.
struct Host {
    kernels: &'static KernelSet,
    pool: ThreadPool,
    warnings: Vec<String>,
}

impl Host {
    fn start(options: &CpuOptions) -> Result<Self, ExecError> {
        let threads = options.threads.unwrap_or_else(|| CpuFeatures::detect().cores);
        if threads == 0 || threads > MAX_THREADS {
            return Err(unsupported(format!("{threads} threads; choose 1 to {MAX_THREADS}")));
        }
        let from_env = std::env::var("BITNET_KERNELS").ok();
        let wanted = options.kernels.as_deref().or(from_env.as_deref());
        let (kernels, warnings) = kernels::self_test::checked(kernels::choose(wanted).map_err(unsupported)?);
        Ok(Self { kernels, pool: ThreadPool::new(threads)?, warnings })
    }
}

fn unsupported(what: String) -> ExecError {
    ExecError::Unsupported { backend: "cpu", what }
}

/// The weights of an executor, for others that are to use the same memory.
#[derive(Clone)]
pub struct PackedWeights(Model);

impl PackedWeights {
    /// How ternary weights are kept.
    pub fn form(&self) -> Form {
        self.0.form()
    }
}

impl std::fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedWeights({} layers, {})", self.0.layers.len(), self.form().name())
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
        let mut host = Host::start(options)?;
        let form = match options.form {
            Some(Form::FourRows) => {
                return Err(unsupported(
                    "four rows a byte are for single layers; choose another form".to_owned(),
                ));
            }
            Some(form) => form,
            None => choice::faster(host.kernels, &mut host.pool, weights)?,
        };
        let layers = pack_layers(form, &mut host.pool, weights, progress)?.into();
        let output = weights.output_layer().clone();
        let int8 = options.output.int8_rows(&mut host, &output, None)?;
        let (embedding, final_norm) = (weights.embedding.clone(), weights.final_norm.clone());
        let kernels = host.kernels;
        Self::of(Model { spec, kernels, layers, embedding, output, int8, final_norm }, host, options)
    }

    /// Another executor over weights that are in memory already: with other kernels, threads, keys and values, or another
    /// way to keep the output layer.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the options want another form of the weights.
    pub fn sharing(weights: &PackedWeights, options: &CpuOptions) -> Result<Self, ExecError> {
        let form = weights.form();
        if let Some(other) = options.form.filter(|other| *other != form) {
            let (other, form) = (other.name(), form.name());
            return Err(unsupported(format!(
                "{other} weights in the memory of {form} weights; load them again"
            )));
        }
        let mut host = Host::start(options)?;
        let mut model = weights.0.clone();
        model.kernels = host.kernels;
        model.int8 = options.output.int8_rows(&mut host, &model.output, weights.0.int8.as_ref())?;
        Self::of(model, host, options)
    }

    /// The weights, for [`sharing`](Self::sharing).
    pub fn packed_weights(&self) -> PackedWeights {
        PackedWeights(self.model.clone())
    }

    fn of(model: Model, host: Host, options: &CpuOptions) -> Result<Self, ExecError> {
        let Host { pool, warnings, .. } = host;
        let spec = &model.spec;
        let (kv, rope) = (KvCache::new(spec, options.kv_type), RopeTable::new(spec));
        let heads = Heads { query_heads: spec.num_heads, kv_heads: spec.num_kv_heads, layout: kv.layout() };
        let memory = options.memory.clone().unwrap_or_else(MemoryPool::unlimited);
        let widths = widths(spec, model.form());
        let scratch = Scratch::new(pool.threads(), model.layers.len(), widths, heads, memory)?;
        Ok(Self { model, pool, kv, rope, scratch, warnings })
    }

    /// Name of the kernel set in use.
    pub fn kernel_set_name(&self) -> &'static str {
        self.model.kernels.name
    }

    /// How ternary weights are kept.
    pub fn form(&self) -> Form {
        self.model.form()
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

    /// Bytes of weights in memory, and of those that stay in the model's file and are read row by row.
    fn weight_bytes(&self) -> (usize, usize) {
        let ternary = self.ternary_bytes();
        let (embedding, output) = (self.model.embedding.data(), self.model.output.data());
        let tied = std::ptr::eq(embedding.as_slice(), output.as_slice());
        let (mut memory, mut file) = (ternary, 0);
        match &self.model.int8 {
            Some(int8) => memory += int8.bytes(),
            None => memory += output.len(),
        }
        let mut rest = |table: &ByteView| {
            *if table.is_mapped() { &mut file } else { &mut memory } += table.len();
        };
        if !tied {
            rest(embedding);
        }
        // With int8 rows alone the output layer's file is not read any more, unless it is the embedding's.
        if self.model.int8.as_ref().is_some_and(|int8| int8.is_exact() || tied) {
            rest(output);
        }
        (memory, file)
    }

    fn traffic(&self) -> Traffic {
        let output = self.model.output.data().len();
        let scan = self.model.int8.as_ref().map_or(output, |int8| int8.bytes());
        Traffic {
            layers: MemorySize::bytes(self.ternary_bytes() as u64),
            output: MemorySize::bytes(output as u64),
            output_scan: MemorySize::bytes(scan as u64),
        }
    }

    /// Makes room for a checked batch and runs the pass, from `input` instead of tokens if that is given.
    fn run(&mut self, batch: &Batch<'_>, input: Option<&[f32]>, want: Want<'_>) -> Result<(), ExecError> {
        let rows = batch.tokens();
        if rows == 0 {
            return Ok(());
        }
        let positions = batch.sequences.iter().map(|s| s.position + s.tokens.len()).max().unwrap_or(0);
        self.scratch.ensure(rows, batch.logit_rows(), positions)?;
        self.rope.ensure(&self.model.spec, positions);
        if let (Some(int8), false) = (&self.model.int8, matches!(want, Want::Hidden(_))) {
            self.scratch.output.ensure(self.pool.threads(), batch.logit_rows(), int8.padded_cols())?;
        }
        let outcome = Outcome::default();
        let pass =
            Pass::new(&self.model, &self.kv, &self.rope, &mut self.scratch, batch.sequences, want, &outcome)
                .on_rows(input);
        self.pool.run(|team| pass.run(team));
        outcome.result()
    }
}

fn widths(spec: &ModelSpec, form: Form) -> Widths {
    let pad = |n: usize| n.next_multiple_of(STRIP_ROWS);
    let (hidden, attention, ffn) = (pad(spec.hidden_size), pad(spec.q_size()), pad(spec.intermediate_size));
    Widths {
        hidden,
        qkv: attention + 2 * pad(spec.kv_size()),
        attention,
        ffn,
        longest: hidden.max(attention).max(ffn).next_multiple_of(form.group_cols()),
        chained: if spec.extras.projection_norms { hidden } else { 0 },
        branch: if spec.extras.post_norms { hidden } else { 0 },
    }
}

fn pack_layers(
    form: Form,
    pool: &mut ThreadPool,
    weights: &Weights,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Layer>, ExecError> {
    let mut packer = Packer::new(form);
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
        extras: l.extras.clone(),
    };
    Ok(weights.layers.iter().map(layer).collect())
}

impl Executor for CpuExecutor {
    fn spec(&self) -> &ModelSpec {
        &self.model.spec
    }

    fn info(&self) -> ExecutorInfo {
        let threads = self.pool.threads();
        let (memory, file) = self.weight_bytes();
        let plural = if threads == 1 { "" } else { "s" };
        ExecutorInfo {
            description: format!(
                "cpu ({}, {} weights, {threads} thread{plural})",
                self.model.kernels.name,
                self.form().name()
            ),
            weight_bytes: MemorySize::bytes(memory as u64),
            file_bytes: MemorySize::bytes(file as u64),
            block_size: BLOCK_SIZE,
            block_bytes: MemorySize::bytes(self.kv.block_bytes() as u64),
            kv_type: self.kv.layout().kv_type,
            max_batch_tokens: MAX_BATCH_TOKENS,
            kernels: self.model.kernels.name,
            threads,
            traffic: self.traffic(),
        }
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        self.kv.reserve(count)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        check_blocks(&[from, to], self.kv.block_count())?;
        self.kv.copy(from, to);
        Ok(())
    }

    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        check_blocks(&[block], self.kv.block_count())?;
        self.kv.rows().check(positions, BLOCK_SIZE, out.len())?;
        self.kv.give(block, out);
        Ok(())
    }

    fn write_block(&mut self, block: u32, positions: usize, bytes: &[u8]) -> Result<(), ExecError> {
        check_blocks(&[block], self.kv.block_count())?;
        self.kv.rows().check(positions, BLOCK_SIZE, bytes.len())?;
        self.kv.take(block, bytes);
        Ok(())
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.block_count())?;
        batch.check_output(&self.model.spec, logits)?;
        let (rows, logits, top) = (RowWants::All, Shared::new(logits), Shared::new(&mut []));
        self.run(batch, None, Want::Logits { rows, logits, top })
    }

    fn forward_hidden(&mut self, batch: &Batch<'_>, hidden: &mut [f32]) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.block_count())?;
        batch.check_hidden(&self.model.spec, hidden)?;
        self.run(batch, None, Want::Hidden(Shared::new(hidden)))
    }

    fn embedding_rows(&mut self, tokens: &[u32], rows: &mut [f32]) -> Result<(), ExecError> {
        read_embedding_rows(&self.model.spec, &self.model.embedding, tokens, rows)
    }

    fn forward_rows(
        &mut self,
        batch: &Batch<'_>,
        rows: &[f32],
        give: Give,
        out: &mut [f32],
    ) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.block_count())?;
        batch.check_rows(&self.model.spec, rows)?;
        match give {
            Give::Logits => {
                batch.check_output(&self.model.spec, out)?;
                let (wants, logits, top) = (RowWants::All, Shared::new(out), Shared::new(&mut []));
                self.run(batch, Some(rows), Want::Logits { rows: wants, logits, top })
            }
            Give::Hidden => {
                batch.check_hidden(&self.model.spec, out)?;
                self.run(batch, Some(rows), Want::Hidden(Shared::new(out)))
            }
        }
    }

    fn forward_top(&mut self, batch: &Batch<'_>, k: usize, top: &mut [TopLogits]) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.block_count())?;
        batch.check_top(top)?;
        if self.model.int8.is_none() {
            return full_as_top(self, batch, top);
        }
        let rows = RowWants::Top(TopWant { k, allowed: None });
        self.run(batch, None, Want::Logits { rows, logits: Shared::new(&mut []), top: Shared::new(top) })
    }

    fn forward_select(
        &mut self,
        batch: &Batch<'_>,
        wants: &[RowWant<'_>],
        logits: &mut [f32],
        top: &mut [TopLogits],
    ) -> Result<(), ExecError> {
        batch.validate(&self.model.spec, BLOCK_SIZE, self.kv.block_count())?;
        batch.check_select(self.model.spec.vocab_size, wants, logits, top)?;
        if !self.model.int8.as_ref().is_some_and(|int8| int8.is_exact()) {
            return full_as_select(self, batch, wants, logits, top);
        }
        let tops: Vec<TopWant<'_>> = wants.iter().filter_map(RowWant::top).collect();
        let (logits, top) = (Shared::new(logits), Shared::new(top));
        self.run(batch, None, Want::Logits { rows: RowWants::Each(wants, &tops), logits, top })
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

/// Compares the kernel set that `name` (or the default rule) gives with scalar code, as loading a model does. Gives the
/// name of the set that is used then, and what a person should know if it is another one.
///
/// # Errors
/// A sentence that says which sets there are, if `name` is unknown or not available.
pub fn tested_kernel_set(name: Option<&str>) -> Result<(&'static str, Vec<String>), String> {
    let (set, warnings) = kernels::self_test::checked(kernels::choose(name)?);
    Ok((set.name, warnings))
}
