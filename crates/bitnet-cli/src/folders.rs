//! Where the program keeps what is a person's own: by the XDG rules on Linux, where the system wants it elsewhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variables of the environment, or those of a test.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The variables of the environment.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Settings: `~/.config/bitnet`.
pub(crate) fn config(get: Lookup<'_>) -> Option<PathBuf> {
    let base = absolute(get, "XDG_CONFIG_HOME").or_else(|| {
        if cfg!(windows) { absolute(get, "APPDATA") } else { Some(absolute(get, "HOME")?.join(".config")) }
    });
    Some(base?.join("bitnet"))
}

/// What belongs to programs that run: gone when the machine starts anew, where there is such a folder.
pub(crate) fn runtime(get: Lookup<'_>) -> Option<PathBuf> {
    let base = absolute(get, "XDG_RUNTIME_DIR").or_else(|| state_base(get));
    Some(base?.join("bitnet"))
}

/// What is remembered, such as saved conversations: `BITNET_STATE_DIR`, else `~/.local/state/bitnet`.
pub(crate) fn state(get: Lookup<'_>) -> Option<PathBuf> {
    match get("BITNET_STATE_DIR").filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => Some(state_base(get)?.join("bitnet")),
    }
}

fn state_base(get: Lookup<'_>) -> Option<PathBuf> {
    absolute(get, "XDG_STATE_HOME").or_else(|| {
        if cfg!(windows) {
            absolute(get, "LOCALAPPDATA")
        } else {
            Some(absolute(get, "HOME")?.join(".local/state"))
        }
    })
}

/// Makes a folder and those above it, for nobody but the user: conversations are private.
pub(crate) fn make_private(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// The XDG rules ask to pass over relative paths.
fn absolute(get: Lookup<'_>, name: &str) -> Option<PathBuf> {
    get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_the_environment() {
        let home = |name: &str| (name == "HOME").then(|| "/home/a".into());
        assert_eq!(config(&home).as_deref(), Some(Path::new("/home/a/.config/bitnet")));
        assert_eq!(runtime(&home).as_deref(), Some(Path::new("/home/a/.local/state/bitnet")));
        assert_eq!(state(&home).as_deref(), Some(Path::new("/home/a/.local/state/bitnet")));
        let own = |name: &str| (name == "BITNET_STATE_DIR").then(|| "/own".into());
        assert_eq!(state(&own).as_deref(), Some(Path::new("/own")));
        let xdg = |name: &str| name.starts_with("XDG").then(|| "/xdg".into());
        assert_eq!(config(&xdg).as_deref(), Some(Path::new("/xdg/bitnet")));
        let relative = |name: &str| (name == "XDG_CONFIG_HOME").then(|| "here".into());
        assert_eq!(config(&relative), None);
    }
}
