//! [`CudaError`]: what can go wrong with a device.

use bitnet_core::MemorySize;
use bitnet_model::ExecError;

use crate::BACKEND;

/// What can go wrong with a device, its driver or its kernels.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// CUDA cannot be used on this machine.
    #[error("{reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// A device number that does not exist.
    #[error("there is no CUDA device {index}; there are {count}")]
    NoSuchDevice {
        /// The number asked for.
        index: usize,
        /// Devices there are.
        count: usize,
    },
    /// A device that the kernels were not made for.
    #[error("{name} has compute capability {major}.{minor}; kernels need 7.5")]
    TooOld {
        /// Name of the device.
        name: String,
        /// Compute capability.
        major: u32,
        /// Compute capability.
        minor: u32,
    },
    /// A call of the driver failed.
    #[error("{call} failed: {what}")]
    Driver {
        /// Which call.
        call: &'static str,
        /// The driver's words.
        what: String,
    },
    /// Kernels could not be compiled or found.
    #[error("kernels: {what}")]
    Kernels {
        /// What is wrong with them.
        what: String,
    },
    /// The device's memory, or the budget, does not suffice.
    #[error("no room for {needed} on the device")]
    OutOfMemory {
        /// What was asked for.
        needed: MemorySize,
        /// What could still be had, if it is known.
        free: Option<MemorySize>,
    },
}

impl From<CudaError> for ExecError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::OutOfMemory { needed, free } => {
                ExecError::OutOfDeviceMemory { backend: BACKEND, needed, free }
            }
            other => ExecError::Device { backend: BACKEND, what: other.to_string() },
        }
    }
}
