//! The CUDA executor.
//!
//! * [`CudaExecutor`]: the whole forward pass on an NVIDIA GPU, an [`Executor`](bitnet_model::Executor).
//! * [`devices`]: which GPUs there are. No driver is a typed answer, never a panic.
//! * [`gpu`]: the few operations that the executor needs of a device, so that tests run it on an emulator.
//!
//! Results have the bits of the oracle and of the CPU executor: products are exact integer sums, and every float operation
//! keeps the oracle's order, also where the work is shared among threads (see `kernels/arith.cuh`). So no bit depends on
//! the batch, on how a prompt is cut into chunks, or on the GPU.
//!
//! Kernels are CUDA C++ in `kernels/`, free of headers. What is shipped is PTX, made by `cargo xtask ptx` and kept in
//! `ptx/`; the driver compiles it for its GPU and keeps the result in its own cache on disk. With the environment
//! variable `BITNET_CUDA_NVRTC=1` the sources in the program are compiled instead, by the NVRTC library if there is one.

mod args;
mod attention;
mod driver;
mod error;
mod executor;
mod forward;
mod gemm;
pub mod gpu;
mod graphs;
mod kv;
mod layout;
mod mailbox;
mod memory;
mod model;
mod output;
mod ptx;
mod scratch;
mod wave;

pub use args::{argument_sizes, needs_tensor_cores};
pub use driver::{CudaDevice, devices};
pub use error::CudaError;
pub use executor::{CudaExecutor, CudaOptions};
pub use memory::DeviceStatistics;
pub use ptx::{Target, targets};

/// Positions in a block of keys and values.
pub(crate) const BLOCK_SIZE: usize = 32;
/// Name in errors.
pub(crate) const BACKEND: &str = "cuda";
