//! The files of the repository: what git tracks or would track.
//!
//! Without git (a source archive), the tree is walked instead.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::Failure;

/// The files of a repository, as paths relative to its root with `/` between the parts.
#[derive(Debug)]
pub(crate) struct Listing {
    files: BTreeSet<String>,
    /// Whether `Cargo.lock` is committed; unknown (and taken as such) outside a git checkout.
    pub(crate) lock_file_committed: bool,
}

impl Listing {
    /// Lists the repository at `root`.
    ///
    /// # Errors
    /// When git is not available and the tree cannot be read.
    pub(crate) fn of(root: &Path) -> Result<Self, Failure> {
        if let Some(tracked) = git_files(root, &["--cached"]) {
            let lock_file_committed = tracked.contains("Cargo.lock");
            let mut files = tracked;
            files.extend(git_files(root, &["--others", "--exclude-standard"]).unwrap_or_default());
            files.retain(|file| root.join(file).is_file());
            return Ok(Self { files, lock_file_committed });
        }
        let mut files = BTreeSet::new();
        walk(root, "", &mut files)
            .map_err(|error| Failure(format!("cannot list {}: {error}", root.display())))?;
        let lock_file_committed = files.contains("Cargo.lock");
        Ok(Self { files, lock_file_committed })
    }

    /// A listing of the given files, for tests of rules.
    #[cfg(test)]
    pub(crate) fn of_names(names: &[&str]) -> Self {
        let files = names.iter().map(|&name| name.to_owned()).collect();
        Self { files, lock_file_committed: true }
    }

    /// Every file, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Whether `path` is a file or a directory of the repository.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let directory = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self.files.contains(path)
            || self.files.range(directory.clone()..).next().is_some_and(|file| file.starts_with(&directory))
    }
}

/// What `git ls-files` prints, or `None` where there is no git or no checkout.
fn git_files(root: &Path, options: &[&str]) -> Option<BTreeSet<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .args(options)
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn walk(root: &Path, directory: &str, files: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        if entry.file_type()?.is_dir() {
            if !matches!(path.as_str(), ".git" | "target") {
                walk(root, &path, files)?;
            }
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_count_as_part_of_the_repository() {
        let listing = Listing::of_names(&["docs/a.md", "docs-old/b.md", "x.rs"]);
        assert!(listing.contains("docs/a.md"));
        assert!(listing.contains("docs"));
        assert!(listing.contains("docs/"));
        assert!(listing.contains(""));
        assert!(!listing.contains("doc"));
        assert!(!listing.contains("docs/b.md"));
    }

    #[test]
    fn walking_and_git_agree_on_this_crate() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut walked = BTreeSet::new();
        walk(root, "src", &mut walked).unwrap();
        assert!(walked.contains("src/tidy/listing.rs"));
        let listed = Listing::of(root).unwrap();
        assert!(walked.iter().all(|file| listed.contains(file)), "{walked:?} {listed:?}");
    }
}
