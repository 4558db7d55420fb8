//! `cargo xtask book`: whether README and the book in `docs/` tell the truth.
//!
//! - The pages about the command line are what the program itself writes; `--write` renews them.
//! - Every page of the book stands in its table of contents.
//! - The commands in `sh` blocks work: those of a page run one after another, in an empty folder, with the program just
//!   built and its bundled model. A block that cannot run here has a comment before it that says why,
//!   `<!-- not run: it needs the network -->`, and its commands are at least understood by the program.
//!
//! Making HTML of the book is mdbook's business (`mdbook serve docs`), and not checked here.

mod blocks;
mod commands;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::blocks::{Block, blocks};
use crate::process::{Failure, Outcome, Workspace, run_within};
use crate::smoke;

/// The pages of the book.
const PAGES: &str = "docs/src";
/// Those that the program writes.
const REFERENCE: &str = "docs/src/cli";
const CONTENTS: &str = "SUMMARY.md";
/// What stands in the table of contents before the pages that the program writes.
const REFERENCE_HEADING: &str = "# Reference\n\n";
/// The page that is not part of the book.
const README: &str = "README.md";

/// Far above what writing the reference takes.
const LIMIT: Duration = Duration::from_secs(60);

/// As [`run`] without `--write`, with a line of what was run.
///
/// # Errors
/// As [`run`].
pub(crate) fn step(workspace: &Workspace) -> Result<Option<String>, Failure> {
    let program = smoke::build(workspace)?;
    reference(workspace, &program, false)?;
    contents(workspace.root(), false)?;
    commands(workspace.root(), &program).map(Some)
}

/// Checks everything; with `write` renews the reference before.
///
/// # Errors
/// With all that is wrong, each with its place.
pub(crate) fn run(workspace: &Workspace, write: bool) -> Outcome {
    if write {
        reference(workspace, &smoke::build(workspace)?, true)?;
        contents(workspace.root(), true)?;
    }
    let remark = step(workspace)?;
    eprintln!("{}", remark.unwrap_or_default());
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure(format!("cannot read or write {}: {error}", path.display()))
}

/// Compares the pages about the command line with those that the program writes, or renews them.
fn reference(workspace: &Workspace, program: &Path, write: bool) -> Outcome {
    let committed = workspace.root().join(REFERENCE);
    let folder = if write { committed.clone() } else { scratch("reference")? };
    if write && committed.exists() {
        // Pages of commands that are gone go too.
        fs::remove_dir_all(&committed).map_err(|error| unreadable(&committed, &error))?;
    }
    run_within(Command::new(program).args(["reference", "write", "--quiet"]).arg(&folder), LIMIT)?;
    let (is, should_be) = (files(&committed)?, files(&folder)?);
    let stale: Vec<&str> = is
        .keys()
        .chain(should_be.keys())
        .filter(|name| is.get(*name) != should_be.get(*name))
        .map(String::as_str)
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    let message = "is not what the program writes now; `cargo xtask book --write` renews it";
    Err(Failure(format!("{REFERENCE} {message}: {}", stale.join(", "))))
}

/// The files of a folder by name, with their texts.
fn files(folder: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let wrong = |error: std::io::Error| unreadable(folder, &error);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let text = fs::read_to_string(entry.path()).map_err(wrong)?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    Ok(found)
}

/// An empty folder of this process.
fn scratch(name: &str) -> Result<PathBuf, Failure> {
    let folder = std::env::temp_dir().join(format!("bitnet-xtask-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| unreadable(&folder, &error))?;
    Ok(folder)
}

/// The pages of the book below `folder`, relative to the book's root.
fn pages(root: &Path, folder: &Path, found: &mut Vec<String>) -> Outcome {
    let wrong = |error: std::io::Error| unreadable(folder, &error);
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_dir() {
            pages(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md")
            && let Ok(name) = path.strip_prefix(root)
        {
            found.push(name.to_string_lossy().replace('\\', "/"));
        }
    }
    found.sort();
    Ok(())
}

/// Every page stands in the table of contents, those of the reference in their order.
fn contents(root: &Path, write: bool) -> Outcome {
    let book = root.join(PAGES);
    let path = book.join(CONTENTS);
    let mut contents = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
    let mut found = Vec::new();
    pages(&book, &book, &mut found)?;
    let right = with_reference(&contents, &found);
    if write && contents != right {
        fs::write(&path, &right).map_err(|error| unreadable(&path, &error))?;
        contents = right;
    } else if contents != right {
        let message = "does not list the reference as it is; `cargo xtask book --write` mends it";
        return Err(Failure(format!("{PAGES}/{CONTENTS} {message}")));
    }
    let missing: Vec<String> = missing(&contents, found);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure(format!("{PAGES}/{CONTENTS} lacks {}", missing.join(", "))))
    }
}

/// The table of contents with the pages of the reference: a command behind the one that it belongs to.
fn with_reference(contents: &str, pages: &[String]) -> String {
    let (before, _) = contents.split_once(REFERENCE_HEADING).unwrap_or((contents, ""));
    let stem = |page: &String| Some(page.strip_prefix("cli/")?.strip_suffix(".md")?.to_owned());
    let mut names: Vec<String> = pages.iter().filter_map(stem).collect();
    names.sort();
    let mut out = format!("{before}{REFERENCE_HEADING}");
    for name in &names {
        let depth = names.iter().filter(|other| name.starts_with(&format!("{other}-"))).count();
        out += &format!("{}- [{}](cli/{name}.md)\n", "  ".repeat(depth), name.replace('-', " "));
    }
    out
}

fn missing(contents: &str, pages: Vec<String>) -> Vec<String> {
    let is_there = |page: &String| page == CONTENTS || contents.contains(&format!("]({page})"));
    pages.into_iter().filter(|page| !is_there(page)).collect()
}

/// Runs or checks the commands of all pages.
fn commands(root: &Path, program: &Path) -> Result<String, Failure> {
    let book = root.join(PAGES);
    let mut names = Vec::new();
    pages(&book, &book, &mut names)?;
    let mut paths = vec![README.to_owned()];
    paths.extend(names.iter().map(|name| format!("{PAGES}/{name}")));
    let (mut wrong, mut ran, mut checked) = (Vec::new(), 0, 0);
    for path in paths {
        let text =
            fs::read_to_string(root.join(&path)).map_err(|error| unreadable(&root.join(&path), &error))?;
        let blocks = match blocks(&text) {
            Ok(blocks) => blocks,
            Err((line, message)) => {
                wrong.push(format!("{path}:{line}: {message}"));
                continue;
            }
        };
        let (run, others): (Vec<Block>, Vec<Block>) =
            blocks.into_iter().partition(|block| block.reason.is_none());
        for block in &others {
            checked += commands::check(program, block, &path, &mut wrong)?;
        }
        if !run.is_empty() {
            eprintln!("{path}: {} blocks", run.len());
            ran += commands::run(program, &run, &path, &mut wrong)?;
        }
    }
    if wrong.is_empty() {
        Ok(format!("{ran} blocks of commands ran, {checked} commands of others were understood"))
    } else {
        Err(Failure(format!("commands that do not work:\n{}", wrong.join("\n"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_listed_by_commands() {
        let pages = ["a.md", "cli/b-c-d.md", "cli/b-c.md", "cli/b-e.md", "cli/b.md"].map(str::to_owned);
        let old = "- [A](a.md)\n\n# Reference\n\n- [gone](cli/gone.md)\n";
        let new = "- [A](a.md)\n\n# Reference\n\n- [b](cli/b.md)\n  - [b c](cli/b-c.md)\n    - [b c d](cli/b-c-d.md)\n  \
                   - [b e](cli/b-e.md)\n";
        assert_eq!(with_reference(old, &pages), new);
    }

    #[test]
    fn pages_that_no_contents_name_are_found() {
        let contents = "# Book\n\n- [A](a.md)\n  - [B](cli/b.md)\n";
        let pages = ["SUMMARY.md", "a.md", "cli/b.md", "c.md"].map(str::to_owned).to_vec();
        assert_eq!(missing(contents, pages), ["c.md"]);
    }
}
