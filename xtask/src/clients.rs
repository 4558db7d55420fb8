//! `cargo xtask clients`: the official clients of OpenAI (Python and Node), ollama and Anthropic against a real server.
//!
//! The scripts and the pinned versions lie in `interop/clients/`; the packages are installed into `target/clients/` from
//! the registries, once for each state of the pins. Needed are python3 with `venv`, node and npm.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::packages;
use crate::process::{self, Failure, Outcome, Workspace, answers};
use crate::server::{self, Server};

const PACKAGES: [&str; 4] = ["python3", "python3-venv", "nodejs", "npm"];

/// Installs the clients, starts a server and runs them.
///
/// # Errors
/// When tools are missing, packages cannot be installed, or a check fails.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    tools()?;
    let scripts = workspace.root().join("interop/clients");
    let folder = workspace.root().join("target/clients");
    install(&scripts, &folder)?;
    let program = server::program(workspace)?;
    let server = Server::start(&program, &[])?;
    let url = server.url();
    let base = url.trim_end_matches('/');
    let python = folder.join("python/bin/python");
    for script in ["openai_check.py", "others.py"] {
        let mut command = Command::new(&python);
        process::run(command.arg(scripts.join(script)).arg(base).env("BASE", base).stdin(Stdio::null()))?;
    }
    let mut node = Command::new("node");
    process::run(
        node.arg("openai_check.mjs").current_dir(folder.join("node")).env("BASE", base).stdin(Stdio::null()),
    )?;
    server.stop()
}

fn tools() -> Outcome {
    let missing = || -> Vec<String> {
        let tools = ["python3", "node", "npm"].into_iter().filter(|tool| !answers(Command::new(tool)));
        tools.map(str::to_owned).collect()
    };
    let mut lacking = missing();
    if !lacking.is_empty() && packages::may_install() {
        packages::install(&packages::commands(&PACKAGES))?;
        lacking = missing();
    }
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Failure(packages::advice(&lacking, &packages::commands(&PACKAGES))))
}

/// Both sets of packages, unless they are there in the versions that are pinned.
fn install(scripts: &Path, folder: &Path) -> Outcome {
    let (python, node) = (folder.join("python"), folder.join("node"));
    let pins = read(&scripts.join("requirements.txt"))?;
    if std::fs::read_to_string(python.join("pins")).ok().as_ref() != Some(&pins) {
        process::run(
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(&python).stdin(Stdio::null()),
        )?;
        let mut pip = Command::new(python.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(scripts.join("requirements.txt"));
        process::run(pip.stdin(Stdio::null()))?;
        write(&python.join("pins"), &pins)?;
    }
    std::fs::create_dir_all(&node)
        .map_err(|error| Failure(format!("cannot create {}: {error}", node.display())))?;
    for name in ["package.json", "openai_check.mjs"] {
        write(&node.join(name), &read(&scripts.join(name))?)?;
    }
    let pins = read(&scripts.join("package-lock.json"))?;
    if std::fs::read_to_string(node.join("pins")).ok().as_ref() != Some(&pins) {
        write(&node.join("package-lock.json"), &pins)?;
        let mut npm = Command::new("npm");
        process::run(npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&node).stdin(Stdio::null()))?;
        write(&node.join("pins"), &pins)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure(format!("cannot read {}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|error| Failure(format!("cannot write {}: {error}", path.display())))
}
