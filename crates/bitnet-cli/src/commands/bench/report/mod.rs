//! `--report`: one page with plots and the table, which needs nothing but itself.
//!
//! `page` puts the page together, `chart` and `roofline` draw, `svg` has the elements that drawings are made of. The page
//! is well-formed XML as well as HTML: every element is closed, every attribute is quoted.

mod chart;
mod page;
mod plots;
mod roofline;
mod svg;

use std::io::Write;
use std::path::{Path, PathBuf};

use super::row::{Machine, Row};
use crate::error::CliError;

/// Checks that a report can be written there, before anything is measured.
///
/// # Errors
/// If no file can be made there.
pub(super) fn check_writable(path: &Path) -> Result<(), CliError> {
    let (temporary, _) = create(path)?;
    std::fs::remove_file(temporary).map_err(|error| failed(path, &error))
}

/// Writes the page: to a temporary file in the same folder, which then gets its name.
///
/// # Errors
/// If it cannot be written; what was there before stays.
pub(super) fn write(path: &Path, rows: &[Row], machine: &Machine) -> Result<(), CliError> {
    let page = page::page(rows, machine);
    let (temporary, mut file) = create(path)?;
    let written = file
        .write_all(page.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        // What is in the way of the report is in the way of tidying up as well.
        let _ = std::fs::remove_file(&temporary);
        failed(path, &error)
    })
}

fn create(path: &Path) -> Result<(PathBuf, std::fs::File), CliError> {
    if path.is_dir() {
        return Err(CliError::usage(format!("cannot write {}: it is a folder", path.display())));
    }
    let name = path.file_name().ok_or_else(|| CliError::usage("--report needs the name of a file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let file = std::fs::File::create(&temporary).map_err(|error| failed(path, &error))?;
    Ok((temporary, file))
}

fn failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::machine;
    use super::*;

    #[test]
    fn a_report_appears_whole_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.html");
        check_writable(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "old").unwrap();
        write(&path, &[], &machine()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("<!DOCTYPE html>"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(check_writable(folder.path()).is_err());
        assert!(check_writable(&folder.path().join("absent/out.html")).is_err());
        assert!(check_writable(Path::new("/")).is_err());
    }
}
