//! The crate without MLX: the same names, and one answer.

use bitnet_model::{Batch, ExecError, Executor, ExecutorInfo, ModelSpec, Weights};

use crate::error::MlxError;
use crate::options::{MlxDevice, MlxOptions};

/// What MLX computes on.
///
/// # Errors
/// [`MlxError::NotBuilt`], always.
pub fn device_info() -> Result<MlxDevice, MlxError> {
    Err(MlxError::NotBuilt)
}

/// The executor of this crate, of which this build can have none.
#[derive(Debug)]
pub enum MlxExecutor {}

impl MlxExecutor {
    /// Prepares a model.
    ///
    /// # Errors
    /// [`ExecError::Unsupported`], always.
    pub fn new(
        spec: ModelSpec,
        weights: &Weights,
        options: &MlxOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExecError> {
        let _ = (spec, weights, options, progress);
        Err(MlxError::NotBuilt.into())
    }
}

impl Executor for MlxExecutor {
    fn spec(&self) -> &ModelSpec {
        match *self {}
    }

    fn info(&self) -> ExecutorInfo {
        match *self {}
    }

    fn reserve_blocks(&mut self, _: usize) -> Result<(), ExecError> {
        match *self {}
    }

    fn forward(&mut self, _: &Batch<'_>, _: &mut [f32]) -> Result<(), ExecError> {
        match *self {}
    }
}
