//! `cargo xtask ptx [--check]`: the PTX of the CUDA kernels, made from `crates/bitnet-cuda/kernels/`.
//!
//! PTX is kept in the repository, since no toolkit shall be needed to build: a line with a hash of the sources and of how
//! they are compiled, and the text, compressed by zlib. `--check` compares the hash; the text says nothing, since the compiler
//! names registers differently from run to run.
//!
//! The compiler is nvcc of a fixed version, from NVIDIA's wheels (it asks the system's C++ compiler to preprocess). It is newer
//! than the drivers that the kernels are for, and its addresses of shared memory have 32 bits: steps of an H200 take 660 us
//! with it and 680 with NVRTC 12.1. Its PTX says to be that of CUDA 12.1, and the assembler of that version must take it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use miniz_oxide::deflate::compress_to_vec_zlib;

use crate::process::{self, Failure, Outcome, Workspace};

/// The wheels with the compiler, and the one with the assembler.
const WHEELS: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-nvcc-cu12==12.1.105",
];
/// What the compiler is told beside the target.
const FLAGS: [&str; 4] = ["-ptx", "-std=c++17", "-fmad=false", "-allow-unsupported-compiler"];
/// The oldest version of PTX that has all that the kernels use.
const VERSION: &str = ".version 8.1";
/// Targets: compute capabilities, times ten, and the file.
const TARGETS: [(&str, &str); 3] = [("75", "sm_75.ptx.z"), ("80", "sm_80.ptx.z"), ("90", "sm_90.ptx.z")];
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

/// Installs the compiler and the assembler, once; gives the folder they are in.
fn install(folder: &Path) -> Result<PathBuf, Failure> {
    let packages = folder.join(format!("nvcc-{}", fnv(WHEELS.join(" ").as_bytes())));
    if !packages.exists() {
        let partial = folder.join(format!("partial-{}", std::process::id()));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"]);
        process::run(pip.arg(&partial).args(WHEELS).stdin(Stdio::null()))?;
        fs::rename(&partial, &packages).map_err(|e| Failure(format!("{}: {e}", packages.display())))?;
    }
    Ok(packages.join("nvidia"))
}

/// PTX of all targets, by file.
fn compile(workspace: &Workspace, folder: &Path) -> Result<Vec<(&'static str, String)>, Failure> {
    let packages = install(folder)?;
    let made = folder.join("made.ptx");
    let compile_for = |(number, file): (&str, &'static str)| {
        let mut nvcc = Command::new(packages.join("cu13/bin/nvcc"));
        nvcc.args(FLAGS).arg(format!("-arch=compute_{number}")).arg("-o").arg(&made);
        process::run(nvcc.arg(workspace.root().join(KERNELS).join("all.cu")).stdin(Stdio::null()))?;
        let ptx = plain(&String::from_utf8_lossy(&read(&made)?))?;
        fs::write(&made, &ptx).map_err(|e| Failure(format!("{}: {e}", made.display())))?;
        let mut ptxas = Command::new(packages.join("cuda_nvcc/bin/ptxas"));
        process::run(ptxas.arg(format!("-arch=sm_{number}")).args(["-o", "/dev/null"]).arg(&made))?;
        Ok((file, ptx))
    };
    TARGETS.into_iter().map(compile_for).collect()
}

/// PTX without comments that name the compiler's build, as that of [`VERSION`]: without advice that this does not know.
fn plain(ptx: &str) -> Result<String, Failure> {
    let begin = ptx.find(".version").ok_or_else(|| Failure("nvcc gave no PTX".to_owned()))?;
    let lines =
        ptx[begin..].trim_end().lines().skip(1).filter(|line| !line.contains(".pragma \"used_bytes_mask"));
    Ok(std::iter::once(VERSION).chain(lines).fold(String::new(), |text, line| text + line + "\n"))
}

/// A hash of the sources and of how they are compiled.
fn hash(workspace: &Workspace) -> Result<u64, Failure> {
    let folder = workspace.root().join(KERNELS);
    let entries = fs::read_dir(&folder).map_err(|e| Failure(format!("{}: {e}", folder.display())))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh"));
    files.sort();
    let mut bytes = [&WHEELS[..], &FLAGS, &[VERSION]].concat().join(" ").into_bytes();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        bytes.extend(format!("\n{name}\n").into_bytes());
        bytes.extend(read(&path)?);
    }
    Ok(fnv(&bytes))
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
