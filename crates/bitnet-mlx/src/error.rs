//! [`MlxError`]: what can go wrong between this crate and MLX, and how it looks to the engine.

use bitnet_core::MemorySize;
use bitnet_model::ExecError;

use crate::BACKEND;

/// MLX that is not there, cannot run a model, or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MlxError {
    /// The crate was built without the feature `mlx`.
    #[error("this build has no MLX")]
    NotBuilt,
    /// MLX has no such device.
    #[error("MLX has no {0} on this machine")]
    NoDevice(&'static str),
    /// A call failed, in the words of MLX.
    #[error("{0}")]
    Device(String),
    /// There is not enough memory, or more would be taken than the budget allows.
    #[error("{needed} of memory are needed")]
    OutOfMemory {
        /// What was asked for.
        needed: MemorySize,
        /// What is left of the budget, if there is one.
        free: Option<MemorySize>,
    },
    /// Something that this backend does not do.
    #[error("{0}")]
    Unsupported(String),
}

impl MlxError {
    /// The error that a message of MLX tells of.
    #[cfg_attr(not(feature = "mlx"), allow(dead_code, reason = "MLX alone has messages"))]
    pub(crate) fn from_message(message: &str) -> Self {
        // "[malloc] Unable to allocate 64 bytes.", "[metal::malloc] Attempting to allocate 64 bytes which is greater ..."
        let amount = message.split_once("allocate ").and_then(|(_, rest)| {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        });
        match amount {
            Some(bytes) if message.contains("malloc") => {
                MlxError::OutOfMemory { needed: MemorySize::bytes(bytes), free: None }
            }
            _ => MlxError::Device(message.to_owned()),
        }
    }
}

impl From<MlxError> for ExecError {
    fn from(error: MlxError) -> Self {
        match error {
            MlxError::OutOfMemory { needed, free } => {
                ExecError::OutOfDeviceMemory { backend: BACKEND, needed, free }
            }
            error @ (MlxError::NotBuilt | MlxError::Unsupported(_)) => {
                ExecError::Unsupported { backend: BACKEND, what: error.to_string() }
            }
            other => ExecError::Device { backend: BACKEND, what: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_mlx_become_errors_of_the_engine() {
        let memory = MlxError::from_message("[metal::malloc] Unable to allocate 4096 bytes. at array.cpp:1");
        assert_eq!(memory, MlxError::OutOfMemory { needed: MemorySize::bytes(4096), free: None });
        assert!(matches!(ExecError::from(memory), ExecError::OutOfDeviceMemory { backend: "mlx", .. }));
        let other = MlxError::from_message("[matmul] Last dimension of first input");
        assert!(matches!(&other, MlxError::Device(text) if text.starts_with("[matmul]")));
        assert!(matches!(ExecError::from(other), ExecError::Device { backend: "mlx", .. }));
        let missing = ExecError::from(MlxError::NotBuilt).to_string();
        assert_eq!(missing, "mlx cannot run this model: this build has no MLX");
        assert!(ExecError::from(MlxError::NoDevice("GPU")).to_string().starts_with("mlx: MLX has no GPU"));
    }
}
