//! Finds libmlxc and libmlx and tells the linker where they are; with the feature `mlx` only.
//!
//! `MLX_C_DIR` and `MLX_DIR` name folders that have `lib/` (or are such folders); without them Homebrew's and the usual
//! ones are looked at. Nothing is downloaded or compiled.

use std::path::{Path, PathBuf};

/// Where packages are installed that nobody names.
const USUAL: [&str; 3] = ["/opt/homebrew", "/usr/local", "/usr"];

const HELP: &str = "the feature `mlx` links MLX through its C API (mlx-c 0.7 with MLX 0.32.2):\n  \
     macOS: brew install mlx-c\n  \
     elsewhere: build mlx-c against MLX (`cargo xtask mlx` does so for tests on Linux), then\n  \
     MLX_C_DIR=<folder with libmlxc> MLX_DIR=<folder with libmlx> cargo build --features mlx\n\
     or build without the feature";

fn main() {
    for variable in ["MLX_C_DIR", "MLX_DIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_MLX").is_none() {
        return;
    }
    let libraries = find("MLX_C_DIR", "mlxc").and_then(|c| Ok((c, find("MLX_DIR", "mlx")?)));
    let ((c, c_is_static), (mlx, mlx_is_static)) = match libraries {
        Ok(found) => found,
        Err(message) => {
            println!("cargo::error={}", message.replace('\n', "\\n"));
            return;
        }
    };
    link(&c, "mlxc", c_is_static);
    link(&mlx, "mlx", mlx_is_static);
    let apple = std::env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple");
    println!("cargo::rustc-link-lib={}", if apple { "c++" } else { "stdc++" });
    if apple && mlx_is_static {
        for framework in ["Accelerate", "Foundation", "Metal", "QuartzCore"] {
            println!("cargo::rustc-link-lib=framework={framework}");
        }
    }
}

/// The folder that has the library, and whether it is there as an archive only.
fn find(variable: &str, library: &str) -> Result<(PathBuf, bool), String> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let roots = named.map_or_else(|| USUAL.map(PathBuf::from).to_vec(), |folder| vec![folder]);
    let folders = roots.iter().flat_map(|root| [root.join("lib"), root.clone()]);
    for folder in folders {
        let has = |name: String| folder.join(name).is_file();
        if has(format!("lib{library}.dylib")) || has(format!("lib{library}.so")) {
            return Ok((folder, false));
        }
        if has(format!("lib{library}.a")) {
            return Ok((folder, true));
        }
    }
    let places: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
    Err(format!("lib{library} is not in {} ({variable}); {HELP}", places.join(", ")))
}

/// Links a library; a shared one is found at run time where it is now.
fn link(folder: &Path, library: &str, is_static: bool) {
    println!("cargo::rustc-link-search=native={}", folder.display());
    let kind = if is_static { "static" } else { "dylib" };
    println!("cargo::rustc-link-lib={kind}={library}");
    if !is_static {
        // Holds for the tests of this crate; programs find Homebrew's libraries by the paths that these carry.
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}
