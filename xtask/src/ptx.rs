//! `cargo xtask ptx [--check]`: the PTX of the CUDA kernels, made from `crates/bitnet-cuda/kernels/`.
//!
//! PTX is kept in the repository, since no toolkit shall be needed to build. Its first line has a hash of the sources and of
//! how they are compiled; `--check` compares that, and with a compiler from an earlier `cargo xtask ptx` also the rest.
//! The compiler is NVRTC of a fixed version, from NVIDIA's wheel: old enough for the drivers of CUDA 12.1.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{self, Failure, Outcome, Workspace};

/// The wheel with the compiler.
const WHEEL: &str = "nvidia-cuda-nvrtc-cu12==12.1.105";
/// Targets: what NVRTC calls them, and the file.
const TARGETS: [(&str, &str); 3] =
    [("compute_75", "sm_75.ptx"), ("compute_80", "sm_80.ptx"), ("compute_90", "sm_90.ptx")];
const KERNELS: &str = "crates/bitnet-cuda/kernels";
const PTX: &str = "crates/bitnet-cuda/ptx";

/// Compiles the kernels, or checks that the files are those of the sources.
///
/// # Errors
/// When the compiler cannot be had or refuses the sources, or with `check` when a file is stale.
pub(crate) fn run(workspace: &Workspace, check: bool) -> Outcome {
    let head = format!("// Made by `cargo xtask ptx` from kernels with hash {:016x}.\n", hash(workspace)?);
    let compiler = workspace.root().join("target/ptx");
    if check {
        for (_, file) in TARGETS {
            let path = workspace.root().join(PTX).join(file);
            if !read(&path)?.starts_with(&head) {
                return Err(Failure(format!("{PTX}/{file} is not of these sources; run `cargo xtask ptx`")));
            }
        }
        if !has_wheel(&compiler) {
            eprintln!("ptx: hashes agree (compiled nothing: target/ptx has no compiler)");
            return Ok(());
        }
    }
    for (file, ptx) in compile(workspace, &compiler)? {
        let path = workspace.root().join(PTX).join(file);
        let text = format!("{head}{ptx}");
        if !check {
            fs::write(&path, text).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
        } else if read(&path)? != text {
            return Err(Failure(format!("{PTX}/{file} is not what NVRTC gives; run `cargo xtask ptx`")));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|e| Failure(format!("{}: {e}", path.display())))
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
    let mut text = WHEEL.to_owned();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = write!(text, "\n{name}\n{}", read(&path)?);
    }
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    Ok(text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}
