//! What the tests share: executors on the processor, or on the GPU with `BITNET_MLX_DEVICE=gpu`.
#![allow(dead_code, reason = "each test file uses its part")]

use bitnet_mlx::{MlxExecutor, MlxOptions, MlxWhere};
use bitnet_model::conformance::Sample;
use bitnet_model::{ExecError, ModelSpec, Weights};

/// Whether the tests run on a GPU, where bits of rows are not promised.
pub(crate) fn on_gpu() -> bool {
    std::env::var("BITNET_MLX_DEVICE").is_ok_and(|device| device == "gpu")
}

/// Options for the device of the tests.
pub(crate) fn options() -> MlxOptions {
    let device = if on_gpu() { MlxWhere::Gpu } else { MlxWhere::Cpu };
    MlxOptions { device, ..MlxOptions::default() }
}

/// An executor for a model.
pub(crate) fn executor(
    spec: &ModelSpec,
    weights: &Weights,
    options: &MlxOptions,
) -> Result<MlxExecutor, ExecError> {
    MlxExecutor::new(spec.clone(), weights, options, &mut |_, _| {})
}

/// An executor for a sample.
pub(crate) fn of_sample(sample: &Sample, options: &MlxOptions) -> Result<MlxExecutor, ExecError> {
    executor(&sample.spec, &sample.weights, options)
}
