//! [`Standby`]: an executor on a device that can fail, with another in reserve.
//!
//! A GPU can be lost at any time: its driver is reset or updated, the machine sleeps, somebody else takes its memory. The keys
//! and values that it held are lost then, but no request need be: the executor in reserve takes over, the failed call says
//! [`ExecError::ContextLost`], and the engine computes again what it had computed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bitnet_core::MemoryStats;
use bitnet_model::{Batch, ExecError, Executor, ExecutorInfo, Give, ModelSpec, RowWant, TopLogits};

/// Makes the executor that takes over, of the same model and with the same [`ExecutorInfo::block_size`].
pub type Reserve = Box<dyn FnOnce() -> Result<Box<dyn Executor>, ExecError> + Send>;

/// Runs on one executor until its device fails, then on another.
pub struct Standby {
    active: Box<dyn Executor>,
    reserve: Option<Reserve>,
    /// KV blocks that were reserved.
    blocks: usize,
    lost: bool,
}

impl std::fmt::Debug for Standby {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Standby");
        out.field("active", &self.active.info().description);
        out.field("in_reserve", &self.reserve.is_some()).finish_non_exhaustive()
    }
}

impl Standby {
    /// Runs on `active` as long as that goes well.
    pub fn new(active: Box<dyn Executor>, reserve: Reserve) -> Self {
        Self { active, reserve: Some(reserve), blocks: 0, lost: false }
    }

    /// What a call gives, or what becomes of its failure.
    fn guard<T>(&mut self, result: Result<T, ExecError>) -> Result<T, ExecError> {
        match result {
            Err(error @ (ExecError::Device { .. } | ExecError::OutOfDeviceMemory { .. })) => {
                Err(self.take_over(error))
            }
            result => result,
        }
    }

    fn take_over(&mut self, error: ExecError) -> ExecError {
        let Some(reserve) = self.reserve.take() else { return error };
        let next = reserve().and_then(|mut next| {
            let (now, then) = (self.active.info().block_size, next.info().block_size);
            if now != then {
                let what = format!("its KV blocks have {then} positions instead of {now}");
                return Err(ExecError::Unsupported { backend: "the executor in reserve", what });
            }
            next.reserve_blocks(self.blocks)?;
            Ok(next)
        });
        match next {
            Ok(next) => {
                let why = format!("{error}; going on with {}", next.info().description);
                let failed = std::mem::replace(&mut self.active, next);
                // What a driver that failed does when it is told to clean up is its own business.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(failed)));
                self.lost = true;
                ExecError::ContextLost { why }
            }
            Err(other) => ExecError::Device {
                backend: "the device",
                what: format!("{error}; nor could another take over: {other}"),
            },
        }
    }
}

impl Executor for Standby {
    fn spec(&self) -> &ModelSpec {
        self.active.spec()
    }

    fn info(&self) -> ExecutorInfo {
        self.active.info()
    }

    fn device_memory(&self) -> Option<MemoryStats> {
        self.active.device_memory()
    }

    fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        let result = self.active.reserve_blocks(count);
        self.guard(result)?;
        self.blocks = self.blocks.max(count);
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        let result = self.active.copy_block(from, to);
        self.guard(result)
    }

    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        let result = self.active.read_block(block, positions, out);
        self.guard(result)
    }

    fn write_block(&mut self, block: u32, positions: usize, bytes: &[u8]) -> Result<(), ExecError> {
        let result = self.active.write_block(block, positions, bytes);
        self.guard(result)
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        let result = self.active.forward(batch, logits);
        self.guard(result)
    }

    fn forward_top(&mut self, batch: &Batch<'_>, k: usize, top: &mut [TopLogits]) -> Result<(), ExecError> {
        let result = self.active.forward_top(batch, k, top);
        self.guard(result)
    }

    fn draws(&self) -> bool {
        self.active.draws()
    }

    fn forward_select(
        &mut self,
        batch: &Batch<'_>,
        wants: &[RowWant<'_>],
        logits: &mut [f32],
        top: &mut [TopLogits],
    ) -> Result<(), ExecError> {
        let result = self.active.forward_select(batch, wants, logits, top);
        self.guard(result)
    }

    fn forward_hidden(&mut self, batch: &Batch<'_>, hidden: &mut [f32]) -> Result<(), ExecError> {
        let result = self.active.forward_hidden(batch, hidden);
        self.guard(result)
    }

    fn embedding_rows(&mut self, tokens: &[u32], rows: &mut [f32]) -> Result<(), ExecError> {
        let result = self.active.embedding_rows(tokens, rows);
        self.guard(result)
    }

    fn forward_rows(
        &mut self,
        batch: &Batch<'_>,
        rows: &[f32],
        give: Give,
        out: &mut [f32],
    ) -> Result<(), ExecError> {
        let result = self.active.forward_rows(batch, rows, give, out);
        self.guard(result)
    }
}
