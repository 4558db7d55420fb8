//! The CPU executor: the whole forward pass of BitNet models on processors.
//!
//! * [`executor`]: [`CpuExecutor`], the [`bitnet_model::Executor`] of this crate.
//! * [`kernels`]: sets of kernels (scalar, AVX2, AVX-512 VNNI, NEON), one chosen at run time.
//! * [`layout`]: ternary weights in strips of sixteen rows, made for streaming.
//! * [`limits`]: what the machine can do at most, measured.
//! * [`probe`]: single kernels, for measurements.
//! * `forward`: the phases of a forward pass and how threads share them.
//! * `attention`: its attention phase.
//! * `kv`: the paged key and value cache.
//!
//! Every kernel set, thread count and batch gives the same bits as the oracle in [`bitnet_model::reference`]: integer
//! products are exact, and float reductions are the functions of [`bitnet_core::lanes`] compiled for each target.

mod attention;
mod best;
pub mod executor;
mod forward;
mod int8_rows;
pub mod kernels;
mod kv;
pub mod layout;
pub mod limits;
mod linear;
mod model;
mod outcome;
mod output;
pub mod probe;
mod schedule;
mod scratch;
mod search;
mod shared;
mod want;

pub use executor::{
    CpuExecutor, CpuOptions, OutputStorage, PackedWeights, chosen_kernel_set, tested_kernel_set,
};
pub use kernels::{KernelSetInfo, kernel_sets};
pub use layout::Form;
pub use linear::BitLinear;
