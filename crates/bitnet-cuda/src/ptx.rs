//! The kernels in the program: PTX for each [`Target`], and the sources they were made of.

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
    /// What the driver compiles.
    pub ptx: &'static str,
}

static TARGETS: [Target; 3] = [
    Target {
        name: "sm_75",
        architecture: "compute_75",
        capability: 75,
        tensor_cores: false,
        overlap: false,
        ptx: include_str!("../ptx/sm_75.ptx"),
    },
    Target {
        name: "sm_80",
        architecture: "compute_80",
        capability: 80,
        tensor_cores: true,
        overlap: false,
        ptx: include_str!("../ptx/sm_80.ptx"),
    },
    Target {
        name: "sm_90",
        architecture: "compute_90",
        capability: 90,
        tensor_cores: true,
        overlap: true,
        ptx: include_str!("../ptx/sm_90.ptx"),
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
    ("attention_many.cu", include_str!("../kernels/attention_many.cu")),
    ("device.cuh", include_str!("../kernels/device.cuh")),
    ("gemm.cu", include_str!("../kernels/gemm.cu")),
    ("gemv.cu", include_str!("../kernels/gemv.cu")),
    ("kv.cuh", include_str!("../kernels/kv.cuh")),
    ("output.cu", include_str!("../kernels/output.cu")),
    ("product.cuh", include_str!("../kernels/product.cuh")),
    ("rows.cu", include_str!("../kernels/rows.cu")),
    ("scan.cu", include_str!("../kernels/scan.cu")),
    ("select.cu", include_str!("../kernels/select.cu")),
    ("table.cuh", include_str!("../kernels/table.cuh")),
];
