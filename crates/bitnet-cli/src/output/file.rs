//! Files that appear whole: written to a temporary file in the same folder, which then gets its name.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// Checks that a file can be written there, before anything long is done.
///
/// # Errors
/// If no file can be made there.
pub(crate) fn check_writable(path: &Path) -> Result<(), CliError> {
    let (temporary, _) = create(path)?;
    std::fs::remove_file(temporary).map_err(|error| failed(path, &error))
}

/// Writes a file. One that is there keeps its permissions, and a link to it stays a link.
///
/// # Errors
/// If it cannot be written; what was there before stays.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (temporary, mut file) = create(&target)?;
    let written =
        file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| replace(&temporary, &target));
    written.map_err(|error| {
        // What is in the way of the file is in the way of tidying up as well.
        let _ = std::fs::remove_file(&temporary);
        failed(path, &error)
    })
}

/// Gives a whole file the name of another, whose permissions it takes over if there is one.
///
/// # Errors
/// As the system says; what had the name keeps it.
pub(crate) fn replace(temporary: &Path, target: &Path) -> std::io::Result<()> {
    if let Ok(before) = std::fs::metadata(target) {
        std::fs::set_permissions(temporary, before.permissions())?;
    }
    std::fs::rename(temporary, target)
}

/// As [`write_file`], in a folder that is made if it is not there.
///
/// # Errors
/// As [`write_file`].
pub(crate) fn write_file_in_folder(path: &Path, content: &[u8]) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(path, &error))?;
    }
    write_file(path, content)
}

fn create(path: &Path) -> Result<(PathBuf, std::fs::File), CliError> {
    if path.is_dir() {
        return Err(CliError::usage(format!("cannot write {}: it is a folder", path.display())));
    }
    let name = path
        .file_name()
        .ok_or_else(|| CliError::usage(format!("{} is not the name of a file", path.display())))?;
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
    use super::*;

    #[test]
    fn a_file_appears_whole_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.html");
        check_writable(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "old").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(check_writable(folder.path()).is_err());
        assert!(check_writable(&folder.path().join("absent/out.html")).is_err());
        assert!(check_writable(Path::new("/")).is_err());
    }
}
