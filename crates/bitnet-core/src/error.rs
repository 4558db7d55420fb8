//! The error type of this crate.

use std::path::PathBuf;

/// What can go wrong in the foundations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// A file could not be opened or mapped.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A range lies outside the bytes it was asked of.
    #[error(
        "{origin}: bytes {start}..{end} lie outside the file, which has {len} bytes; it is truncated or corrupt"
    )]
    OutOfRange {
        /// Name of the file.
        origin: String,
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
        /// Bytes there are.
        len: u64,
    },
    /// Memory could not be had.
    #[error("cannot allocate {size}; free memory or choose a smaller model or context")]
    OutOfMemory {
        /// What was asked for.
        size: crate::MemorySize,
    },
    /// A memory pool's budget does not allow it.
    #[error(
        "{asked} do not fit the memory pool: {in_use} of its {budget} are in use; make the pool larger or ask for less at a time"
    )]
    PoolFull {
        /// What was asked for.
        asked: crate::MemorySize,
        /// What is in use.
        in_use: crate::MemorySize,
        /// What the pool may hold.
        budget: crate::MemorySize,
    },
    /// A byte count could not be understood.
    #[error("cannot read {text:?} as a memory size; write for example 512MB or 2GiB")]
    BadMemorySize {
        /// What was written.
        text: String,
    },
    /// A thread of the pool could not be started.
    #[error("cannot start worker thread {index}: {source}; lower --threads")]
    Thread {
        /// Number of the worker.
        index: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Result with [`CoreError`].
pub type Result<T, E = CoreError> = std::result::Result<T, E>;
