//! `cargo xtask ptx [--check]`: the PTX of the CUDA kernels, made from `crates/bitnet-cuda/kernels/`.
//!
//! PTX is kept in the repository, since no toolkit shall be needed to build: a line with a hash of the sources and of how
//! they are compiled, and the text, compressed by zlib. `--check` compares the hash; the text says nothing, since the compiler
//! names registers differently from run to run.
//! The compiler is NVRTC of a fixed version, from NVIDIA's wheel: old enough for the drivers of CUDA 12.1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use miniz_oxide::deflate::compress_to_vec_zlib;

use crate::process::{self, Failure, Outcome, Workspace};

/// The wheel with the compiler.
const WHEEL: &str = "nvidia-cuda-nvrtc-cu12==12.1.105";
/// Targets: what NVRTC calls them, and the file.
const TARGETS: [(&str, &str); 3] =
    [("compute_75", "sm_75.ptx.z"), ("compute_80", "sm_80.ptx.z"), ("compute_90", "sm_90.ptx.z")];
/// How hard to compress: as hard as possible, for files that are read once.
const LEVEL: u8 = 9;
const KERNELS: &str = "crates/bitnet-cuda/kernels";
const PTX: &str = "crates/bitnet-cuda/ptx";

/// Compiles the kernels, or checks that the files are those of the sources.
///
/// # Errors
/// When the compiler cannot be had or refuses the sources, or with `check` when a file is of other sources.
pub(crate) fn run(workspace: &Workspace, check: bool) -> Outcome {
    let head = format!("// Made by `cargo xtask ptx` from kernels with hash {:016x}.\n", hash(workspace)?);
    let compiler = workspace.root().join("target/ptx");
    if check {
        for (_, file) in TARGETS {
            let path = workspace.root().join(PTX).join(file);
            if !read(&path)?.starts_with(head.as_bytes()) {
                return Err(Failure(format!("{PTX}/{file} is not of these sources; run `cargo xtask ptx`")));
            }
        }
        return Ok(());
    }
    for (file, ptx) in compile(workspace, &compiler)? {
        let path = workspace.root().join(PTX).join(file);
        let mut bytes = head.clone().into_bytes();
        bytes.extend(compress_to_vec_zlib(ptx.as_bytes(), LEVEL));
        fs::write(&path, bytes).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| Failure(format!("{}: {e}", path.display())))
}

fn has_wheel(folder: &Path) -> bool {
    let wheel = |entry: fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".whl");
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(wheel))
}

/// PTX of all targets, by file.
fn compile(workspace: &Workspace, folder: &Path) -> Result<Vec<(&'static str, String)>, Failure> {
    if !has_wheel(folder) {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(folder).arg(WHEEL);
        process::run(pip.stdin(Stdio::null()))?;
    }
    let mut python = Command::new("python3");
    python.arg(workspace.root().join(KERNELS).join("compile.py")).arg(folder);
    python.args(TARGETS.map(|(architecture, _)| architecture)).stdin(Stdio::null());
    let output = process::read_stdout(&mut python)?;
    let find = |(architecture, file): (&str, &'static str)| {
        let begin = format!("== {architecture}\n");
        let found = output.split_once(&begin).map(|(_, rest)| rest.split("\n== ").next().unwrap_or(rest));
        let ptx = found.ok_or_else(|| Failure(format!("compile.py gave nothing for {architecture}")))?;
        Ok((file, format!("{}\n", ptx.trim_end())))
    };
    TARGETS.into_iter().map(find).collect()
}

/// A hash (FNV-1a) of the sources and of how they are compiled.
fn hash(workspace: &Workspace) -> Result<u64, Failure> {
    let folder = workspace.root().join(KERNELS);
    let entries = fs::read_dir(&folder).map_err(|e| Failure(format!("{}: {e}", folder.display())))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh" || e == "py"));
    files.sort();
    let mut bytes = WHEEL.as_bytes().to_vec();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        bytes.extend(format!("\n{name}\n").into_bytes());
        bytes.extend(read(&path)?);
    }
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    Ok(bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step))
}
