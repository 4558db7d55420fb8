//! `cargo xtask mlx`: the MLX executor, tested on MLX's CPU build for Linux.
//!
//! Fixed versions come from the registries to `target/mlx`: MLX's library and headers from the wheel `mlx-cpu`, its C API from
//! the crate `mlx-sys`, which carries the sources. The C API is compiled with the system's C++ compiler; then the tests of
//! `bitnet-mlx` run with the feature `mlx`. What was downloaded and compiled is kept. No step of CI: it downloads and
//! compiles much.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{self, Failure, Outcome, Workspace, answers};

/// MLX's version. The C API below compiles with the headers of this one and not of all others.
const MLX: &str = "0.32.2";
/// The version of the crate that carries the C API, and of the C API.
const MLX_C: &str = "0.7.0";

/// The sources that the crate's calls need.
const SOURCES: [&str; 11] = [
    "array",
    "device",
    "error",
    "fast",
    "memory",
    "ops",
    "stream",
    "string",
    "transforms",
    "vector",
    "version",
];

/// `std::format` for the calls that the C API makes, in place of the header that C++ libraries before GCC 13 have not got.
const FORMAT: &str = r#"#pragma once
#include <sstream>
#include <string>
#include <string_view>
namespace std {
inline void fill_in(ostringstream& out, string_view text) { out << text; }
template <typename First, typename... Rest>
void fill_in(ostringstream& out, string_view text, const First& first, const Rest&... rest) {
  auto at = text.find("{}");
  out << text.substr(0, at);
  if (at == string_view::npos) return;
  out << first;
  fill_in(out, text.substr(at + 2), rest...);
}
template <typename... Arguments>
string format(string_view text, const Arguments&... arguments) {
  ostringstream out;
  fill_in(out, text, arguments...);
  return out.str();
}
}
"#;

/// Fetches and compiles what is missing, then tests.
///
/// # Errors
/// When this is not Linux, tools are missing, something cannot be had or compiled, or a test fails.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    if !cfg!(target_os = "linux") {
        let tests = "cargo nextest run -p bitnet-mlx --features mlx";
        return Err(Failure(format!("this is for Linux; with Homebrew's mlx-c installed run `{tests}`")));
    }
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    for (tool, what) in [("python3", "Python with pip"), (&compiler, "a C++ compiler"), ("ar", "ar")] {
        if !answers(Command::new(tool)) {
            return Err(Failure(format!(
                "{what} is needed ({tool}); on Debian: apt-get install g++ python3-pip"
            )));
        }
    }
    let folder = workspace.root().join("target/mlx");
    create(&folder)?;
    let library = wheel(&folder)?;
    let api = sources(workspace, &folder)?;
    let c_library = compile(&folder, &compiler, &api, &library.join("include"))?;
    let nextest = answers(workspace.cargo(&["nextest"]));
    let profile = if nextest { "--cargo-profile" } else { "--profile" };
    let mut tests = workspace.cargo(if nextest { &["nextest", "run"] } else { &["test"] });
    tests.args(["-p", "bitnet-mlx", "--features", "mlx", profile, process::PROFILE]);
    tests.env("MLX_C_DIR", &c_library).env("MLX_DIR", &library);
    process::run(&mut tests)
}

fn create(folder: &Path) -> Outcome {
    fs::create_dir_all(folder).map_err(|e| Failure(format!("{}: {e}", folder.display())))
}

/// The folder of MLX: `lib` and `include`.
fn wheel(folder: &Path) -> Result<PathBuf, Failure> {
    let unpacked = folder.join("wheel");
    let library = unpacked.join("mlx");
    if !library.join("lib/libmlx.so").is_file() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&unpacked);
        pip.arg(format!("mlx-cpu=={MLX}")).stdin(Stdio::null());
        process::run(&mut pip)?;
    }
    Ok(library)
}

/// The folder of the C API's sources. cargo fetches the crate as it does any other: as a dependency of a package that
/// is in no workspace.
fn sources(workspace: &Workspace, folder: &Path) -> Result<PathBuf, Failure> {
    let vendored = folder.join("crate/vendor");
    let api = vendored.join("mlx-sys/src/mlx-c");
    if api.is_dir() {
        return Ok(api);
    }
    let package = folder.join("crate");
    create(&package.join("src"))?;
    let manifest = format!(
        "[package]\nname = \"mlx-sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nmlx-sys = \"={MLX_C}\"\n\n[workspace]\n"
    );
    for (file, text) in [("Cargo.toml", manifest.as_str()), ("src/lib.rs", "")] {
        let path = package.join(file);
        fs::write(&path, text).map_err(|e| Failure(format!("{}: {e}", path.display())))?;
    }
    let mut vendor = workspace.cargo(&["vendor", "--quiet"]);
    vendor.arg(&vendored).current_dir(&package).stdout(Stdio::null());
    process::run(&mut vendor)?;
    if api.is_dir() { Ok(api) } else { Err(Failure(format!("mlx-sys {MLX_C} has no src/mlx-c"))) }
}

/// Compiles the C API to `libmlxc.a`; gives its folder.
fn compile(folder: &Path, compiler: &str, api: &Path, headers: &Path) -> Result<PathBuf, Failure> {
    let objects = folder.join("mlx-c");
    let archive = objects.join("libmlxc.a");
    if archive.is_file() {
        return Ok(objects);
    }
    create(&objects)?;
    let missing = objects.join("missing");
    if !has_format(compiler) {
        create(&missing)?;
        let header = missing.join("format");
        fs::write(&header, FORMAT).map_err(|e| Failure(format!("{}: {e}", header.display())))?;
    }
    let mut files = Vec::new();
    for source in SOURCES {
        let object = objects.join(format!("{source}.o"));
        eprintln!("compiling mlx-c's {source}.cpp");
        let mut command = Command::new(compiler);
        // The sources use `std::format` without naming its header.
        command.args(["-std=c++20", "-O1", "-fPIC", "-w", "-c", "-include", "format"]);
        command.arg("-I").arg(&missing).arg("-I").arg(api);
        command.arg("-isystem").arg(headers).arg("-o").arg(&object);
        process::run(command.arg(api.join("mlx/c").join(format!("{source}.cpp"))).stdin(Stdio::null()))?;
        files.push(object);
    }
    process::run(Command::new("ar").arg("rcs").arg(&archive).args(files))?;
    Ok(objects)
}

/// Whether the compiler's library has the header `format`.
fn has_format(compiler: &str) -> bool {
    let mut command = Command::new(compiler);
    command.args(["-std=c++20", "-fsyntax-only", "-include", "format", "-x", "c++", "/dev/null"]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
