//! The executor over Apple's MLX, through its C API.
//!
//! * [`MlxExecutor`]: the whole forward pass by MLX, an [`Executor`](bitnet_model::Executor); [`MlxOptions`]: how.
//! * [`device_info`]: what MLX computes on: Apple's GPU, or the processor where its build has none.
//! * [`MlxError`]: what can go wrong; MLX neither prints nor ends the process.
//!
//! Everything but the types stands behind the feature `mlx`, which links libmlxc and libmlx. Without it the crate builds
//! everywhere, and every answer is [`MlxError::NotBuilt`].
//!
//! **How it computes.** A call builds one lazy graph and evaluates it once. Ternary matrices are codes trit + 1 of two bits,
//! multiplied by MLX's quantised product with the scale 1 and the bias -1: the activations are whole numbers of -127..=127 in
//! single precision, so every partial sum is a whole number and exact as long as it stays below 2^24, which holds for rows
//! of up to [`MAX_COLUMNS`] columns however MLX groups them. The scales of weights and activations are multiplied behind
//! that, in the oracle's order. All other arithmetic is the oracle's, but for the order of float sums: MLX's own.
//!
//! **Bits.** On the processor a row has the same bits in any batch: what sums over positions is padded to whole steps of its
//! vectors. On Apple's GPUs MLX chooses its kernels of float products (scores, weighted values, output layer) by the
//! number of rows, and these add in different orders: there a row is the same up to float noise only. Noise can carry an
//! activation over a rounding border: the row, and those that attend to it, differ by about a hundredth then (tests allow 4e-2). The
//! same holds beside the oracle, on any device; most rows agree to 1e-6.
//!
//! `sys` has the declarations and all `unsafe`; `pack`, `model`: weights; `kv`: the paged cache; `plan`: what the host
//! tells the device for a pass; `layer`, `attention`: the graph; `forward`: passes; `want`: what comes back.

mod error;
mod options;

#[cfg(not(feature = "mlx"))]
mod absent;
#[cfg(feature = "mlx")]
mod attention;
#[cfg(feature = "mlx")]
mod executor;
#[cfg(feature = "mlx")]
mod forward;
#[cfg(feature = "mlx")]
mod kv;
#[cfg(feature = "mlx")]
mod layer;
#[cfg(feature = "mlx")]
mod model;
#[cfg(feature = "mlx")]
mod pack;
#[cfg(feature = "mlx")]
mod plan;
#[cfg(feature = "mlx")]
mod quantize;
#[cfg(feature = "mlx")]
mod sys;
#[cfg(feature = "mlx")]
mod want;

#[cfg(not(feature = "mlx"))]
pub use absent::{MlxExecutor, device_info};
pub use error::MlxError;
#[cfg(feature = "mlx")]
pub use executor::MlxExecutor;
pub use options::{MAX_BATCH_TOKENS, MlxDevice, MlxOptions, MlxWhere};
#[cfg(feature = "mlx")]
pub use sys::device_info;

/// The widest row that ternary products are exact for: sums of codes times activations stay below 2^24.
pub const MAX_COLUMNS: usize = (1 << 24) / (2 * 128);

/// Name in errors.
pub(crate) const BACKEND: &str = "mlx";
