//! Foundations that every other crate of the engine stands on, and nothing about machine learning.
//!
//! * [`amx`]: whether the matrix extension of Intel's server processors can be used, on x86-64 only.
//! * [`bytes`]: read-only views into mapped files or static data, [`bytes::ByteView`].
//! * [`dtype`]: element types of stored tensors, [`DType`].
//! * [`dense`]: how dense matrices are stored, one by one or in blocks, [`DenseType`].
//! * [`buffer`]: zeroed, cache-line aligned memory on huge pages, [`buffer::AlignedBuf`].
//! * [`memory_pool`]: buffers that are reused within a budget, [`memory_pool::MemoryPool`] and its [`MemoryStats`].
//! * [`device_pool`]: the same for buffers of a device, [`device_pool::DevicePool`].
//! * [`pool`]: the fork-join thread pool of the CPU executor, [`pool::ThreadPool`].
//! * [`cpu`]: what the processor can do, [`cpu::CpuFeatures`].
//! * [`lanes`]: float reductions in one fixed order, and `exp`; the arithmetic contract of the engine.
//! * [`process`]: memory use of this process and of the machine.
//! * [`MemorySize`]: a byte count that people can read and write.

#[cfg(target_arch = "x86_64")]
pub mod amx;
pub mod buffer;
pub mod bytes;
pub mod cpu;
pub mod dense;
pub mod device_pool;
pub mod dtype;
mod error;
pub mod lanes;
pub mod memory_pool;
mod memory_size;
pub mod pool;
pub mod process;

pub use dense::{BlockType, DenseType};
pub use dtype::DType;
pub use error::{CoreError, Result};
pub use memory_pool::MemoryStats;
pub use memory_size::MemorySize;
