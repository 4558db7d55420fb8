//! Programs that steps need beside cargo: a machine of CI gets Debian's packages installed, anybody else is told how.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{self, Outcome, answers};

/// Whether packages may be installed: on a machine of CI that is root on Debian.
pub(crate) fn may_install() -> bool {
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    is_ci && Path::new("/etc/debian_version").exists() && is_root() && answers(Command::new("apt-get"))
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The commands that install `packages`.
pub(crate) fn commands(packages: &[&'static str]) -> Vec<Vec<&'static str>> {
    let mut install = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
    install.extend(packages);
    vec![vec!["apt-get", "update"], install]
}

/// Runs the commands that install packages.
///
/// # Errors
/// When one of them fails.
pub(crate) fn install(commands: &[Vec<&str>]) -> Outcome {
    for command in commands {
        let mut process = Command::new(command[0]);
        process.args(&command[1..]).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        process::run(&mut process)?;
    }
    Ok(())
}

/// What is missing, and the commands that install it.
pub(crate) fn advice(missing: &[String], commands: &[Vec<&str>]) -> String {
    let lines: Vec<String> = commands.iter().map(|command| format!("sudo {}", command.join(" "))).collect();
    format!(
        "missing: {}\nOn Debian this installs all of it:\n  {}",
        missing.join(", "),
        lines.join(" &&\n  ")
    )
}
