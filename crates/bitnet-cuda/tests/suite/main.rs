//! The executor against the oracle: on the emulator, or with `BITNET_CUDA_TEST=device` on a real GPU.
//!
//! The tolerance is none: results have the oracle's bits.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod batches;
mod conformance;
mod emulator;
mod errors;
mod kernels;
mod mailbox;
mod references;

use bitnet_cuda::{CudaExecutor, CudaOptions};
use bitnet_model::{ExecError, KvType, ModelSpec, Weights};

use emulator::Emulator;

/// Whether tests run on a GPU; then its absence is a failure.
fn on_device() -> bool {
    std::env::var_os("BITNET_CUDA_TEST").is_some_and(|value| value == "device")
}

/// An executor with the kernels that a test is about: those of `sm_75` or of `sm_80`, and on a device those of `sm_90` if it
/// has them and `sm_80` is asked for.
fn executor(
    spec: &ModelSpec,
    weights: &Weights,
    kv_type: KvType,
    kernels: &str,
) -> Result<CudaExecutor, ExecError> {
    let mut options = CudaOptions { kv_type, ..CudaOptions::default() };
    if on_device() {
        options.kernels = (kernels == "sm_75").then(|| kernels.to_owned());
        return CudaExecutor::new(spec.clone(), weights, &options, &mut |_, _| {});
    }
    executor_on(Emulator::new(kernels != "sm_75"), spec, weights, kv_type)
}

/// An executor on an emulator.
fn executor_on(
    emulator: Emulator,
    spec: &ModelSpec,
    weights: &Weights,
    kv_type: KvType,
) -> Result<CudaExecutor, ExecError> {
    let options = CudaOptions { kv_type, ..CudaOptions::default() };
    CudaExecutor::on(Box::new(emulator), spec.clone(), weights, &options, &mut |_, _| {})
}
