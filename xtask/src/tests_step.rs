//! `cargo xtask test`: unit and integration tests by cargo-nextest, then doctests (which nextest does not run).
//!
//! A machine without cargo-nextest gets a pinned version built into `target/tools`; where that fails too, `cargo
//! test` runs the same tests, with a notice.
//!
//! The tests of `bitnet-wgpu` need a Vulkan driver; Mesa's lavapipe, which computes on the CPU, will do. A machine of CI gets
//! it installed. Where it is missing all the same these tests fail, they are not skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::packages;
use crate::process::{self, Failure, Outcome, PROFILE, Workspace, answers};

/// The version that is built where none is installed.
const NEXTEST_VERSION: &str = "0.9.143";

/// Mesa's software driver for Vulkan, and the loader.
const VULKAN_PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];

/// Where drivers for Vulkan are registered.
const VULKAN_DRIVERS: [&str; 2] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// Unit, integration and documentation tests.
///
/// # Errors
/// When a test fails or does not compile.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    tests(workspace)?;
    doctests(workspace)
}

/// Unit and integration tests; returns the runner's summary line where the output is a log.
///
/// # Errors
/// When a test fails or does not compile.
pub(crate) fn tests(workspace: &Workspace) -> Result<Option<String>, Failure> {
    vulkan_driver()?;
    let Some(mut nextest) = nextest(workspace) else {
        eprintln!("NOTICE: cargo-nextest is not available; running `cargo test` instead");
        return process::run(
            workspace
                .cargo(&[
                    "test",
                    "--workspace",
                    "--lib",
                    "--bins",
                    "--tests",
                    "--no-fail-fast",
                    "--profile",
                    PROFILE,
                    "--locked",
                ])
                .envs(gpu_variables()),
        )
        .map(|()| None);
    };
    nextest.args(["run", "--workspace", "--cargo-profile", PROFILE, "--locked"]);
    nextest.envs(gpu_variables());
    process::run_and_find(&mut nextest, "Summary [")
}

/// Installs a Vulkan driver where none is and that may be done.
///
/// # Errors
/// When packages cannot be installed.
fn vulkan_driver() -> Outcome {
    if !cfg!(target_os = "linux") || has_vulkan_driver() || !packages::may_install() {
        return Ok(());
    }
    eprintln!("missing: a Vulkan driver; installing packages");
    packages::install(&packages::commands(&VULKAN_PACKAGES))
}

fn has_vulkan_driver() -> bool {
    let named = std::env::var_os("VK_DRIVER_FILES").or_else(|| std::env::var_os("VK_ICD_FILENAMES"));
    let registered = |folder: &&str| {
        Path::new(folder).read_dir().is_ok_and(|mut entries| entries.any(|entry| entry.is_ok()))
    };
    named.is_some() || VULKAN_DRIVERS.iter().any(registered)
}

/// Variables by which tests know that a GPU must be there: on Linux, unless a person says otherwise.
fn gpu_variables() -> Vec<(&'static str, &'static str)> {
    let decided =
        ["BITNET_REQUIRE_GPU", "BITNET_SKIP_GPU"].iter().any(|name| std::env::var_os(name).is_some());
    if cfg!(target_os = "linux") && !decided { vec![("BITNET_REQUIRE_GPU", "1")] } else { Vec::new() }
}

/// The examples in the documentation.
///
/// # Errors
/// When an example fails or does not compile.
pub(crate) fn doctests(workspace: &Workspace) -> Outcome {
    process::run(&mut workspace.cargo(&["test", "--doc", "--workspace", "--profile", PROFILE, "--locked"]))
}

/// `cargo nextest` as installed, as built earlier into `target/tools`, or as built now.
fn nextest(workspace: &Workspace) -> Option<Command> {
    let installed = || workspace.cargo(&["nextest"]);
    if answers(installed()) {
        return Some(installed());
    }
    let tools = workspace.root().join("target").join("tools");
    let program: PathBuf = tools.join("bin").join(format!("cargo-nextest{}", std::env::consts::EXE_SUFFIX));
    let built = || {
        let mut command = Command::new(&program);
        command.arg("nextest").current_dir(workspace.root()).stdin(Stdio::null());
        command
    };
    if !answers(built()) {
        eprintln!("cargo-nextest is not installed: building version {NEXTEST_VERSION} into target/tools");
        let mut install = workspace.cargo(&[
            "install",
            "cargo-nextest",
            "--locked",
            "--version",
            NEXTEST_VERSION,
            "--root",
        ]);
        if let Err(Failure(message)) = process::run(install.arg(&tools)) {
            eprintln!("{message}");
        }
    }
    answers(built()).then(built)
}
