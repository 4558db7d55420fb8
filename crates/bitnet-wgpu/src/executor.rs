//! [`WgpuExecutor`]: loading, and the [`Executor`] implementation.

use bitnet_core::{MemorySize, MemoryStats};
use bitnet_model::executor::{check_blocks, read_embedding_rows};
use bitnet_model::{
    Batch, DenseTensor, ExecError, Executor, ExecutorInfo, Give, ModelSpec, RowWant, TopLogits, Traffic,
    Want, Weights,
};

use crate::adapter::{self, WgpuAdapter};
use crate::device::Gpu;
use crate::forward::{Machine, Programs};
use crate::kernels::Kernels;
use crate::kv::{BLOCK_SIZE, KvCache};
use crate::memory::{Memory, WgpuMemory};
use crate::model::Model;
use crate::options::{MAX_BATCH_TOKENS, WgpuOptions};
use crate::plan::Plan;
use crate::record::{KernelTime, Times};
use crate::scratch::Scratch;

/// The executor of this crate.
pub struct WgpuExecutor {
    machine: Machine,
    /// Rows of the embedding are given from here.
    embedding: DenseTensor,
}

impl WgpuExecutor {
    /// Opens the adapter that the options choose, packs the weights with all cores and uploads them. `progress` hears how
    /// many of the ternary weights are done.
    ///
    /// # Errors
    /// [`ExecError::Device`] if no adapter fits or it fails, [`ExecError::OutOfDeviceMemory`],
    /// [`ExecError::Unsupported`] for shapes that kernels do not take, [`ExecError::Weights`] if they are damaged.
    pub fn new(
        spec: ModelSpec,
        weights: &Weights,
        options: &WgpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        let chosen = adapter::choose(options)?;
        let backend = chosen.about.backend.name();
        let mut gpu = Gpu::open(&chosen, options).map_err(|e| e.into_exec(backend))?;
        let mut memory = Memory::new(options.memory_budget);
        let times = Times::new(&gpu, &mut memory).map_err(|e| e.into_exec(backend))?;
        let model = Model::new(&mut gpu, &mut memory, spec, weights, options.kv_type, progress)?;
        let spec = &model.spec;
        let widest = (2 * spec.intermediate_size).max(spec.q_size() + 2 * spec.kv_size());
        let fitting = gpu.limits.max_storage_buffer_binding_size as usize / (4 * widest);
        let wanted = options.max_batch_tokens.unwrap_or(MAX_BATCH_TOKENS);
        let kv = KvCache::new(spec, options.kv_type);
        let machine = Machine {
            max_rows: wanted.min(fitting).max(1),
            kernels: Kernels::default(),
            memory,
            scratch: Scratch::new(),
            plan: Plan::new(),
            programs: Programs::default(),
            gpu,
            model,
            kv,
            times,
        };
        Ok(Self { machine, embedding: weights.embedding.clone() })
    }

    /// The adapter in use.
    pub fn adapter(&self) -> &WgpuAdapter {
        &self.machine.gpu.about
    }

    /// What buffers take, and how the pools do.
    pub fn memory(&self) -> WgpuMemory {
        self.machine.memory.now()
    }

    /// Measures how many bytes a second the device's memory reads and writes when it is copied, and notes it.
    ///
    /// # Errors
    /// [`ExecError::OutOfDeviceMemory`], [`ExecError::Device`].
    pub fn measure_bandwidth(&mut self) -> Result<f64, ExecError> {
        let Machine { gpu, memory, .. } = &mut self.machine;
        memory.measure_bandwidth(gpu).map_err(|e| e.into_exec(gpu.backend()))
    }

    /// How long kernels took since the last call, by their place in the model, if the options say `profile` and the adapter
    /// can tell.
    pub fn take_times(&mut self) -> Vec<(&'static str, KernelTime)> {
        self.machine.times.as_mut().map_or_else(Vec::new, Times::take)
    }

    /// Ends the device as a lost driver would: every later call is [`ExecError::Device`].
    pub fn lose_device(&mut self) {
        self.machine.gpu.device.destroy();
    }

    /// Checks a batch and runs it, from `rows` instead of its tokens if they are given.
    fn run(&mut self, batch: &Batch<'_>, rows: Option<&[f32]>, want: Want<'_>) -> Result<(), ExecError> {
        batch.validate(self.spec(), BLOCK_SIZE, self.machine.kv.blocks())?;
        want.check(batch, self.spec(), rows)?;
        self.machine.run(batch, rows, want)
    }
}

impl Executor for WgpuExecutor {
    fn spec(&self) -> &ModelSpec {
        &self.machine.model.spec
    }

    fn device_memory(&self) -> Option<MemoryStats> {
        Some(self.memory().device)
    }

    fn info(&self) -> ExecutorInfo {
        let Machine { gpu, model, kv, max_rows, .. } = &self.machine;
        let kernels = match (gpu.subgroup_lanes.is_some(), gpu.packed_dot) {
            (true, true) => "subgroups, packed dot",
            (true, false) => "subgroups",
            (false, true) => "packed dot",
            (false, false) => "plain",
        };
        let output = MemorySize::bytes(model.output_table().bytes());
        let output_scan = model.image.as_ref().map_or(output, |image| MemorySize::bytes(image.bytes()));
        ExecutorInfo {
            description: format!("{} ({}, {kernels})", gpu.about.backend, gpu.about.name),
            weight_bytes: MemorySize::bytes(model.bytes()),
            file_bytes: MemorySize::bytes(0),
            block_size: BLOCK_SIZE,
            block_bytes: MemorySize::bytes(kv.block_bytes()),
            kv_type: kv.rows().kv_type,
            max_batch_tokens: *max_rows,
            kernels,
            threads: 1,
            traffic: Traffic { layers: MemorySize::bytes(model.ternary_bytes()), output, output_scan },
        }
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        let Machine { gpu, memory, kv, programs, .. } = &mut self.machine;
        let grown = kv.reserve(gpu, memory, count).map_err(|e| e.into_exec(gpu.backend()));
        // Some buffers may be others even after a failure.
        if !matches!(grown, Ok(false)) {
            *programs = Programs::default();
        }
        grown.map(|_| ())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        let Machine { gpu, kv, memory, .. } = &mut self.machine;
        check_blocks(&[from, to], kv.blocks())?;
        kv.copy(gpu, memory, from, to).map_err(|e| e.into_exec(gpu.backend()))
    }

    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        let Machine { gpu, kv, memory, .. } = &mut self.machine;
        check_blocks(&[block], kv.blocks())?;
        kv.rows().check(positions, BLOCK_SIZE, out.len())?;
        kv.read(gpu, memory, block, out).map_err(|e| e.into_exec(gpu.backend()))
    }

    fn write_block(&mut self, block: u32, positions: usize, bytes: &[u8]) -> Result<(), ExecError> {
        let Machine { gpu, kv, memory, .. } = &mut self.machine;
        check_blocks(&[block], kv.blocks())?;
        kv.rows().check(positions, BLOCK_SIZE, bytes.len())?;
        kv.write(gpu, memory, block, bytes).map_err(|e| e.into_exec(gpu.backend()))
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
        read_embedding_rows(self.spec(), &self.embedding, tokens, rows)
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

impl std::fmt::Debug for WgpuExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WgpuExecutor({})", self.info().description)
    }
}
