//! Where the lines typed in chats are kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;

use crate::output::Notes;

/// The history file: `BITNET_HISTORY` (empty for none), else `bitnet/history` in the user's data folder.
pub(super) fn path() -> Option<PathBuf> {
    locate(&|name| std::env::var_os(name))
}

fn locate(env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = env("BITNET_HISTORY") {
        return (!path.is_empty()).then(|| path.into());
    }
    // The XDG rules ask to pass over relative paths.
    let set = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || set("HOME");
    let data = set("XDG_DATA_HOME").or_else(|| {
        if cfg!(windows) {
            set("APPDATA")
        } else if cfg!(target_os = "macos") {
            Some(home()?.join("Library/Application Support"))
        } else {
            Some(home()?.join(".local/share"))
        }
    });
    Some(data?.join("bitnet").join("history"))
}

/// Writes the history; a chat is not worth failing for it.
pub(super) fn save(editor: &mut DefaultEditor, path: &Path, notes: Notes) {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let saved = made
        .map_err(|error| error.to_string())
        .and_then(|()| editor.save_history(path).map_err(|e| e.to_string()));
    if let Err(error) = saved {
        notes.warn(&format!("cannot write the history to {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn the_users_wishes_come_first() {
        let find = |vars: &[(&str, &str)]| {
            let vars: Vec<_> = vars.iter().map(|&(n, v)| (n.to_owned(), OsString::from(v))).collect();
            locate(&|name| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
        };
        assert_eq!(find(&[("BITNET_HISTORY", "/h"), ("HOME", "/home/a")]), Some("/h".into()));
        assert_eq!(find(&[("BITNET_HISTORY", ""), ("HOME", "/home/a")]), None);
        assert_eq!(find(&[("XDG_DATA_HOME", "/d"), ("HOME", "/home/a")]), Some("/d/bitnet/history".into()));
        let at_home = find(&[("XDG_DATA_HOME", "relative"), ("HOME", "/home/a")]).unwrap();
        assert!(at_home.starts_with("/home/a") && at_home.ends_with("bitnet/history"), "{at_home:?}");
        assert_eq!(find(&[]), None);
    }
}
