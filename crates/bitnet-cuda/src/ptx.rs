//! The kernels in the program: PTX for each [`Target`], and the sources they were made of.

use miniz_oxide::inflate::decompress_to_vec_zlib;

use crate::CudaError;

/// Kernels compiled for devices from some compute capability on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Name: `sm_80`.
    pub name: &'static str,
    /// As NVRTC wants it: `compute_80`.
    pub architecture: &'static str,
    /// The lowest compute capability, times ten.
    pub capability: u32,
    /// Whether kernels for tensor cores are in it.
    pub tensor_cores: bool,
    /// Whether a kernel may begin before the one ahead of it has ended.
    pub overlap: bool,
    /// A line of `cargo xtask ptx`, then what the driver compiles, compressed by zlib.
    packed: &'static [u8],
}

impl Target {
    /// What the driver compiles.
    ///
    /// # Errors
    /// [`CudaError::Kernels`] if what is in the program is not as `cargo xtask ptx` made it.
    pub fn ptx(&self) -> Result<String, CudaError> {
        let damaged =
            || CudaError::Kernels { what: format!("the PTX for {} in this program is damaged", self.name) };
        let head = self.packed.iter().position(|&byte| byte == b'\n').ok_or_else(damaged)?;
        let text = decompress_to_vec_zlib(&self.packed[head + 1..]).map_err(|_| damaged())?;
        String::from_utf8(text).map_err(|_| damaged())
    }
}

static TARGETS: [Target; 3] = [
    Target {
        name: "sm_75",
        architecture: "compute_75",
        capability: 75,
        tensor_cores: false,
        overlap: false,
        packed: include_bytes!("../ptx/sm_75.ptx.z"),
    },
    Target {
        name: "sm_80",
        architecture: "compute_80",
        capability: 80,
        tensor_cores: true,
        overlap: false,
        packed: include_bytes!("../ptx/sm_80.ptx.z"),
    },
    Target {
        name: "sm_90",
        architecture: "compute_90",
        capability: 90,
        tensor_cores: true,
        overlap: true,
        packed: include_bytes!("../ptx/sm_90.ptx.z"),
    },
];

/// All targets, the lowest capability first.
pub fn targets() -> &'static [Target] {
    &TARGETS
}

/// The sources: the translation unit and what it includes, by name.
pub(crate) const SOURCES: &[(&str, &str)] = &[
    ("all.cu", include_str!("../kernels/all.cu")),
    ("arith.cuh", include_str!("../kernels/arith.cuh")),
    ("attention.cu", include_str!("../kernels/attention.cu")),
    ("attention.cuh", include_str!("../kernels/attention.cuh")),
    ("attention_many.cu", include_str!("../kernels/attention_many.cu")),
    ("device.cuh", include_str!("../kernels/device.cuh")),
    ("draw.cu", include_str!("../kernels/draw.cu")),
    ("gemm.cu", include_str!("../kernels/gemm.cu")),
    ("kv.cuh", include_str!("../kernels/kv.cuh")),
    ("mailbox.cu", include_str!("../kernels/mailbox.cu")),
    ("merge.cuh", include_str!("../kernels/merge.cuh")),
    ("output.cu", include_str!("../kernels/output.cu")),
    ("product.cuh", include_str!("../kernels/product.cuh")),
    ("rows.cu", include_str!("../kernels/rows.cu")),
    ("scan.cu", include_str!("../kernels/scan.cu")),
    ("select.cu", include_str!("../kernels/select.cu")),
    ("table.cuh", include_str!("../kernels/table.cuh")),
    ("wave.cu", include_str!("../kernels/wave.cu")),
];

#[cfg(test)]
mod tests {
    use super::SOURCES;

    #[test]
    fn what_sources_include_is_there() {
        for (name, source) in SOURCES {
            for line in source.lines() {
                let Some(included) = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'))
                else {
                    continue;
                };
                // The emulator's own, behind a condition.
                let there = included == "emulate.h" || SOURCES.iter().any(|(name, _)| *name == included);
                assert!(there, "{name} includes {included}");
            }
        }
    }
}
