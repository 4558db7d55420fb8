//! The tables that tidy's rules read. A change of policy is a change here, visible in review.

/// The crates of the engine from the lowest to the highest; each may depend on lower ones only.
pub(super) const LAYERS: &[&str] = &[
    "bitnet-core",
    "bitnet-hub",
    "bitnet-quant",
    "bitnet-formats",
    "bitnet-text",
    "bitnet-model",
    "bitnet-convert",
    "bitnet-cpu",
    "bitnet-cuda",
    "bitnet-wgpu",
    "bitnet-mlx",
    "bitnet-inference",
    "bitnet-server",
    "bitnet-cli",
];

/// Crates that hold data only: they depend on no other crate of the workspace.
pub(super) const DATA_CRATES: &[&str] = &["bitnet-tiny"];

/// The lowest crate that may depend on a data crate. (Tests of any crate may: dev-dependencies are not layered.)
pub(super) const LOWEST_USER_OF_DATA: &str = "bitnet-inference";

/// Crates that stand outside the layers and use none of them.
pub(super) const TOOLS: &[&str] = &["xtask"];

/// The only places where `unsafe` may stand, as prefixes of paths, with what they are for.
pub(super) const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("crates/bitnet-core/src/amx", "asking processor and system for AMX"),
    ("crates/bitnet-core/src/bytes", "mapped files"),
    ("crates/bitnet-core/src/buffer", "aligned buffers"),
    ("crates/bitnet-core/src/pool", "fork-join thread pool"),
    ("crates/bitnet-core/src/process", "memory and core counts of the process, room on the disk"),
    ("crates/bitnet-cpu/src", "CPU kernels"),
    ("crates/bitnet-cuda/src/driver", "calls of NVIDIA's driver"),
    ("crates/bitnet-mlx/src/sys", "calls of MLX's C API"),
    ("crates/bitnet-cuda/tests/suite/emulator", "kernels in a shared library"),
    ("crates/bitnet-wgpu/src/kernels", "shaders that check no index"),
    ("crates/bitnet-inference/tests/allocations", "counting allocator of the allocation test"),
    ("crates/bitnet-formats/tests/mutation", "counting allocator of the mutation test"),
];

/// Crates that may print: the program.
pub(super) const MAY_PRINT: &[&str] = &["bitnet-cli", "xtask"];

/// Macros that print.
pub(super) const PRINT_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Macros that stand for code that is not there.
pub(super) const UNFINISHED_MACROS: &[&str] = &["todo", "unimplemented"];

/// Parts of names that product code has no use for.
pub(super) const BANNED_NAME_PARTS: &[&str] = &["stub", "mock", "placeholder"];

/// Marks in comments that belong into the issue tracker.
pub(super) const BANNED_COMMENT_MARKS: &[&str] = &["TODO", "FIXME", "XXX", "TBD"];

/// The longest file, in lines.
pub(super) const FILE_LINES: usize = 600;

/// The longest generated file, in lines.
pub(super) const GENERATED_FILE_LINES: usize = 1000;

/// The longest function, in lines from `fn` to the closing brace.
pub(super) const FUNCTION_LINES: usize = 80;

/// The largest file, in bytes, outside [`LARGE_FILES`].
pub(super) const FILE_BYTES: u64 = 1 << 20;

/// Where large files may lie.
pub(super) const LARGE_FILES: &[&str] = &["testdata/", "crates/bitnet-tiny/model/"];
