//! A message written in the user's editor.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::input::unix_lines;
use crate::error::CliError;
use crate::interrupt;

/// Opens `$VISUAL` or `$EDITOR` with a text; gives what it has become.
pub(super) fn edit(text: &str) -> Result<String, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::usage("there is no terminal for an editor"));
    }
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let fallback = if cfg!(windows) { "notepad" } else { "vi" };
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| fallback.to_owned());
    edit_with(&editor, text)
}

/// The same with this editor, a command with arguments perhaps.
fn edit_with(editor: &str, text: &str) -> Result<String, CliError> {
    let file = Draft::new(text)?;
    // Ctrl-C is for the editor while it runs.
    let listening = interrupt::listen();
    let status = command(editor, &file.0).status();
    drop(listening);
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            return Err(CliError::failed(format!(
                "the editor {editor} ended with {status}; the text is unchanged"
            )));
        }
        Err(error) => {
            return Err(CliError::failed(format!("cannot run the editor {editor}: {error}"))
                .hint("set VISUAL or EDITOR to the command of another one"));
        }
    }
    let edited = std::fs::read_to_string(&file.0)
        .map_err(|error| CliError::failed(format!("cannot read what the editor wrote: {error}")))?;
    Ok(unix_lines(&edited).trim_end().to_owned())
}

fn command(editor: &str, file: &Path) -> Command {
    if cfg!(windows) {
        let mut words = editor.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("notepad"));
        command.args(words).arg(file);
        return command;
    }
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(file);
    command
}

/// A file with the text while it is edited.
struct Draft(PathBuf);

impl Draft {
    fn new(text: &str) -> Result<Self, CliError> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let name = format!("bitnet-{}-{}.md", std::process::id(), since.as_nanos());
        let path = std::env::temp_dir().join(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A file that is left over in the folder for temporary files harms nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_the_editor_writes_comes_back() {
        assert_eq!(edit_with("printf 'more\\r\\n' >>", "one\n").unwrap(), "one\nmore");
        assert_eq!(edit_with("true", "  kept\n\n").unwrap(), "  kept");
    }

    #[test]
    fn an_editor_that_fails_changes_nothing() {
        let message = |editor| format!("{:?}", edit_with(editor, "x").unwrap_err());
        assert!(message("false").contains("unchanged"));
        assert!(message("no-such-editor-here").contains("no-such-editor-here"));
    }
}
