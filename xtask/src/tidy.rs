//! `cargo xtask tidy`: the rules of this repository that no compiler checks.
//!
//! - [`rust_files`]: module heads, lengths, `unsafe`, printing, unfinished code.
//! - [`layers`]: crates depend downwards only, inherit the workspace's lints, and say what they are.
//! - [`documents`]: links between Markdown files, test data that is described, file sizes.
//!
//! The tables behind the rules are in [`policy`]. [`lexer`] and [`items`] let the rules see code apart from comments
//! and strings; [`listing`] says which files belong to the repository.

mod documents;
mod items;
mod layers;
mod lexer;
mod listing;
mod policy;
mod rust_files;

use std::fmt;

use crate::process::{Failure, Outcome, Workspace};
use listing::Listing;

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// The line, from 1; 0 when the finding is about the file as a whole.
    line: usize,
    /// The name of the rule.
    rule: &'static str,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, message } = self;
        match line {
            0 => write!(formatter, "{path}: [{rule}] {message}"),
            _ => write!(formatter, "{path}:{line}: [{rule}] {message}"),
        }
    }
}

/// Checks the whole repository and prints every finding.
///
/// # Errors
/// When a rule is broken, or a file of the repository cannot be read.
pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let root = workspace.root();
    let listing = Listing::of(root)?;
    let mut findings = Vec::new();
    if !listing.lock_file_committed {
        findings.push(Finding::new("Cargo.lock", 0, "lock-file", "must be committed"));
    }
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path))
            .map_err(|error| Failure(format!("cannot read {path} as text: {error}")))
    };

    let mut sources = Vec::new();
    for path in listing.files().filter(|path| is_rust_source(path)) {
        sources.push((path.to_owned(), read(path)?));
    }
    findings.extend(rust_files::check(&sources));

    for path in listing.files().filter(|path| is_member_manifest(path)) {
        findings.extend(layers::check(path, &read(path)?));
    }

    for path in listing.files() {
        let size = std::fs::metadata(root.join(path)).map_or(0, |metadata| metadata.len());
        findings.extend(documents::check_size(path, size));
        if path.ends_with(".md") {
            findings.extend(documents::check_links(path, &read(path)?, &listing));
        }
    }
    let description = if listing.contains(documents::TEST_DATA_README) {
        read(documents::TEST_DATA_README)?
    } else {
        String::new()
    };
    findings.extend(documents::check_test_data(&description, &listing));

    report(findings, sources.len())
}

fn report(mut findings: Vec<Finding>, source_count: usize) -> Outcome {
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => {
            eprintln!("tidy: {source_count} source files, no findings");
            Ok(())
        }
        1 => Err(Failure("tidy: 1 finding".to_owned())),
        count => Err(Failure(format!("tidy: {count} findings"))),
    }
}

fn is_rust_source(path: &str) -> bool {
    path.ends_with(".rs") && (path.starts_with("crates/") || path.starts_with("xtask/"))
}

/// `crates/NAME/Cargo.toml` or `xtask/Cargo.toml`.
fn is_member_manifest(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], ["crates", _, "Cargo.toml"] | ["xtask", "Cargo.toml"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_read_like_compiler_messages() {
        let at_line = Finding::new("a/b.rs", 7, "file-length", "too long");
        assert_eq!(at_line.to_string(), "a/b.rs:7: [file-length] too long");
        let whole = Finding::new("Cargo.lock", 0, "lock-file", "must be committed");
        assert_eq!(whole.to_string(), "Cargo.lock: [lock-file] must be committed");
    }

    #[test]
    fn one_finding_fails_the_run() {
        assert!(report(Vec::new(), 3).is_ok());
        assert!(report(vec![Finding::new("a", 0, "r", "m")], 3).is_err());
    }

    #[test]
    fn members_and_sources_are_recognised() {
        assert!(is_member_manifest("crates/bitnet-core/Cargo.toml"));
        assert!(is_member_manifest("xtask/Cargo.toml"));
        assert!(!is_member_manifest("Cargo.toml"));
        assert!(!is_member_manifest("crates/bitnet-core/tests/data/Cargo.toml"));
        assert!(is_rust_source("crates/bitnet-core/src/lib.rs"));
        assert!(!is_rust_source("docs/example.rs"));
    }
}
