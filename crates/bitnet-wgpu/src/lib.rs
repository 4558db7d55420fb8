//! The executor for GPUs through wgpu: Vulkan, Metal and DX12.
//!
//! * [`adapters`]: what GPUs there are. [`WgpuOptions`]: which one is used, and how.
//! * [`WgpuExecutor`]: weights, keys and values on the device, and whole forward passes there.
//! * `shaders/`: the kernels in WGSL, one file each; `shader` has their variants, `kernels` the compiled pipelines.
//! * `program`: the dispatches of a pass; `plan`: what the host tells them for a call; `forward`: how both meet;
//!   `record`: one command buffer, one submission a call.
//! * `search`: how the largest logits are found, by `image` without reading the output layer in full.
//! * `memory`: budget, buffers and the pool; `scratch`, `kv`, `model`: what lies in them.
//!
//! Projections are exact integer sums, whatever kernel computes them. Floats are summed in an order that depends on the
//! row alone: so a row has the same bits on one device in any batch, in any chunk of a prompt, beside any neighbours.
//! Against the oracle norms are summed in another order; an activation that lies on a rounding border may then fall to the
//! other side, which shows as a difference of that row; all else agrees to float noise.
#![deny(unsafe_code)]

mod adapter;
mod device;
mod error;
mod executor;
mod forward;
mod image;
mod kernels;
mod kv;
mod memory;
mod model;
mod options;
mod pack;
mod plan;
mod program;
mod record;
mod scratch;
mod search;
mod shader;
#[cfg(test)]
mod translate;
mod want;

pub use adapter::{AdapterKind, WgpuAdapter, adapters};
pub use error::{NO_ADAPTER_HELP, WgpuError};
pub use executor::WgpuExecutor;
pub use memory::WgpuMemory;
pub use options::{ADAPTER_VARIABLE, MAX_BATCH_TOKENS, WgpuBackend, WgpuOptions};
pub use record::KernelTime;
