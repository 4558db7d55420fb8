//! [`MlxExecutor`]: loading, and the [`Executor`] implementation.

use bitnet_core::{MemorySize, MemoryStats};
use bitnet_model::executor::{check_blocks, read_embedding_rows};
use bitnet_model::{
    Batch, ExecError, Executor, ExecutorInfo, Give, KvType, ModelSpec, RowWant, TopLogits, Traffic, Want,
    Weights,
};

use crate::attention::Heads;
use crate::error::MlxError;
use crate::forward::Machine;
use crate::kv::{BLOCK_SIZE, KvCache};
use crate::model::Model;
use crate::options::{MAX_BATCH_TOKENS, MlxDevice, MlxOptions};
use crate::quantize::Constants;
use crate::sys::{self, Stream};

/// The widest head that int8 scores are exact for: sums of 127 * 127 stay below 2^24.
const MAX_INT8_HEAD: usize = (1 << 24) / (127 * 127);

/// The executor of this crate.
#[derive(Debug)]
pub struct MlxExecutor {
    machine: Machine,
    device: MlxDevice,
    /// Most memory for weights, keys and values.
    budget: Option<MemorySize>,
}

impl MlxExecutor {
    /// Opens what the options choose and packs the weights with all cores. `progress` hears how many of the ternary weights
    /// are done.
    ///
    /// # Errors
    /// [`ExecError::Device`] if MLX has no such device or fails, [`ExecError::OutOfDeviceMemory`],
    /// [`ExecError::Unsupported`] for shapes that products are not exact for, [`ExecError::Weights`] if they are damaged.
    pub fn new(
        spec: ModelSpec,
        weights: &Weights,
        options: &MlxOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        let device = sys::describe(options.device)?;
        let stream = Stream::new(options.device)?;
        if options.kv_type == KvType::Int8 && spec.head_dim > MAX_INT8_HEAD {
            let what = format!("heads of {} with int8 keys; {MAX_INT8_HEAD} is the most", spec.head_dim);
            return Err(MlxError::Unsupported(what).into());
        }
        let heads = Heads::new(&spec, options.kv_type)?;
        let constants = Constants::new(spec.attention_scale())?;
        let kv = KvCache::new(&spec, options.kv_type);
        let model = Model::new(&stream, spec, weights, options.memory, progress)?;
        let max_rows = options.max_batch_tokens.unwrap_or(MAX_BATCH_TOKENS).max(1);
        let machine = Machine { stream, model, kv, constants, heads, max_rows };
        Ok(Self { machine, device, budget: options.memory })
    }

    /// What it computes on.
    pub fn device(&self) -> &MlxDevice {
        &self.device
    }

    /// Checks a batch and runs it, from `rows` instead of its tokens if they are given.
    fn run(&mut self, batch: &Batch<'_>, rows: Option<&[f32]>, want: Want<'_>) -> Result<(), ExecError> {
        batch.validate(self.spec(), BLOCK_SIZE, self.machine.kv.blocks())?;
        want.check(batch, self.spec(), rows)?;
        self.machine.run(batch, rows, want)
    }

    /// What the budget leaves.
    fn free(&self) -> Option<MemorySize> {
        let kv = &self.machine.kv;
        let used = self.machine.model.bytes + kv.arrays().map(|array| array.bytes() as u64).sum::<u64>();
        self.budget.map(|budget| MemorySize::bytes(budget.as_bytes().saturating_sub(used)))
    }
}

impl Executor for MlxExecutor {
    fn spec(&self) -> &ModelSpec {
        &self.machine.model.spec
    }

    fn take_loss(&mut self) -> bool {
        self.machine.kv.take_loss()
    }

    /// MLX counts for the process, so other executors in it are in the figures. `reserved` has memory that MLX keeps for
    /// later arrays.
    fn device_memory(&self) -> Option<MemoryStats> {
        let now = sys::memory().ok()?;
        let size = |bytes: usize| MemorySize::bytes(bytes as u64);
        Some(MemoryStats {
            budget: self.budget.or(self.device.memory).unwrap_or(MemorySize::bytes(u64::MAX)),
            reserved: size(now.active + now.cached),
            in_use: size(now.active),
            requested: size(now.active),
            peak: size(now.peak),
            peak_in_use: size(now.peak),
            ..MemoryStats::default()
        })
    }

    fn info(&self) -> ExecutorInfo {
        let Machine { model, kv, max_rows, stream, .. } = &self.machine;
        let output = MemorySize::bytes(model.output_bytes());
        ExecutorInfo {
            description: format!("mlx {} ({})", self.device.version, self.device.name),
            weight_bytes: MemorySize::bytes(model.bytes),
            file_bytes: MemorySize::bytes(model.embedding_bytes()),
            block_size: BLOCK_SIZE,
            block_bytes: MemorySize::bytes(kv.block_bytes()),
            kv_type: kv.form().kv_type,
            max_batch_tokens: *max_rows,
            kernels: if stream.is_gpu() { "mlx, gpu" } else { "mlx, cpu" },
            threads: 1,
            traffic: Traffic { layers: MemorySize::bytes(model.ternary_bytes), output, output_scan: output },
        }
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        let free = self.free();
        let Machine { stream, kv, .. } = &mut self.machine;
        Ok(kv.reserve(stream, count, free)?)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        let Machine { stream, kv, .. } = &mut self.machine;
        check_blocks(&[from, to], kv.blocks())?;
        Ok(kv.copy(stream, from, to)?)
    }

    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        let Machine { stream, kv, .. } = &mut self.machine;
        check_blocks(&[block], kv.blocks())?;
        kv.form().check(positions, BLOCK_SIZE, out.len())?;
        if positions == 0 {
            return Ok(());
        }
        Ok(kv.read(stream, block, out)?)
    }

    fn write_block(&mut self, block: u32, positions: usize, bytes: &[u8]) -> Result<(), ExecError> {
        let Machine { stream, kv, .. } = &mut self.machine;
        check_blocks(&[block], kv.blocks())?;
        kv.form().check(positions, BLOCK_SIZE, bytes.len())?;
        if positions == 0 {
            return Ok(());
        }
        Ok(kv.write(stream, block, bytes)?)
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
        read_embedding_rows(self.spec(), &self.machine.model.embedding, tokens, rows)
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
