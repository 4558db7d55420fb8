//! Foundations that every other crate of the engine stands on, and nothing about machine learning.
//!
//! * [`bytes`]: read-only views into mapped files or static data, [`bytes::ByteView`].
//! * [`dtype`]: element types of stored tensors, [`DType`].
//! * [`dense`]: how dense matrices are stored, one by one or in blocks, [`DenseType`].
//! * [`buffer`]: zeroed, cache-line aligned memory on huge pages, [`buffer::AlignedBuf`].
//! * [`pool`]: the fork-join thread pool of the CPU executor, [`pool::ThreadPool`].
//! * [`cpu`]: what the processor can do, [`cpu::CpuFeatures`].
//! * [`lanes`]: float reductions in one fixed order, and `exp`; the arithmetic contract of the engine.
//! * [`process`]: memory use of this process and of the machine.
//! * [`MemorySize`]: a byte count that people can read and write.

pub mod buffer;
pub mod bytes;
pub mod cpu;
pub mod dense;
pub mod dtype;
mod error;
pub mod lanes;
mod memory_size;
pub mod pool;
pub mod process;

pub use dense::{BlockType, DenseType};
pub use dtype::DType;
pub use error::{CoreError, Result};
pub use memory_size::MemorySize;
