//! [`WgpuError`]: what can go wrong between this crate and a device, and how it looks to the engine.

use bitnet_core::MemorySize;
use bitnet_model::ExecError;

/// What a person is told who has no adapter.
pub const NO_ADAPTER_HELP: &str = "install the driver of your GPU; for software rendering (tests only) on Debian: \
     apt-get install mesa-vulkan-drivers libvulkan1";

/// A device that is not there, cannot run a model, or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WgpuError {
    /// No adapter is there that the options allow.
    #[error("no adapter {wanted}; found: {found}")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is, or how to get one.
        found: String,
    },
    /// The device reported an error, or was lost.
    #[error("{0}")]
    Device(String),
    /// Memory of the device is not there, or is more than the budget allows.
    #[error("{needed} of device memory are needed")]
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

impl WgpuError {
    /// The error as the engine sees it; `backend` is the name of the device's interface.
    pub fn into_exec(self, backend: &'static str) -> ExecError {
        match self {
            WgpuError::OutOfMemory { needed, free } => ExecError::OutOfDeviceMemory { backend, needed, free },
            WgpuError::Unsupported(what) => ExecError::Unsupported { backend, what },
            other => ExecError::Device { backend, what: other.to_string() },
        }
    }
}

impl From<WgpuError> for ExecError {
    fn from(error: WgpuError) -> Self {
        error.into_exec("wgpu")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_engine_name_the_backend() {
        let free = Some(MemorySize::bytes(1 << 20));
        let error = WgpuError::OutOfMemory { needed: MemorySize::bytes(1 << 30), free };
        let text = ExecError::from(error).to_string();
        assert!(text.starts_with("wgpu: ") && text.contains("of device memory are needed"), "{text}");
        let lost = WgpuError::Device("the device is lost".to_owned()).into_exec("vulkan");
        assert_eq!(lost.to_string(), "vulkan: the device is lost");
        let missing = WgpuError::NoAdapter { wanted: "named x".to_owned(), found: "none".to_owned() };
        assert!(ExecError::from(missing).to_string().contains("no adapter named x; found: none"));
    }
}
