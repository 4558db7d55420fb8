//! [`Command`]: what begins with a slash.

use crate::error::CliError;

/// What `/help` says.
pub(super) const HELP: &str = "\
/help              this list
/exit              end (also Ctrl-D)
/clear             forget the conversation
/system TEXT       set the system message; without TEXT: remove it
/regen             another answer to the last message
/set NAME VALUE    predict, or a flag of sampling without its dashes: temp, top-k, seed, mirostat, ...
/set               show these settings
/stats             statistics of the last answer
A line that ends in \\ goes on in the next. Ctrl-C stops an answer.";

/// All commands, for suggestions.
const NAMES: [&str; 7] = ["help", "exit", "clear", "system", "regen", "set", "stats"];

/// A command of the chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Help,
    Exit,
    Clear,
    System(&'a str),
    Regen,
    Settings,
    Set(&'a str, &'a str),
    Stats,
}

impl<'a> Command<'a> {
    /// Reads a line; `None` if it is no command but something to say. A line that begins with two slashes is said.
    pub(super) fn parse(line: &'a str) -> Result<Option<Self>, CliError> {
        let Some(text) = line.trim().strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
            return Ok(None);
        };
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        Ok(Some(match name {
            "help" | "?" => Self::Help,
            "exit" | "quit" | "bye" => Self::Exit,
            "clear" => Self::Clear,
            "system" => Self::System(rest),
            "regen" => Self::Regen,
            "stats" => Self::Stats,
            "set" if rest.is_empty() => Self::Settings,
            "set" => match rest.split_once(|c: char| c.is_whitespace() || c == '=') {
                Some((name, value)) => Self::Set(name, value.trim()),
                None => {
                    return Err(
                        CliError::usage(format!("/set {rest} needs a value")).hint("/help shows the names")
                    );
                }
            },
            unknown => return Err(unknown_command(unknown)),
        }))
    }
}

fn unknown_command(name: &str) -> CliError {
    let error = CliError::usage(format!("there is no command /{name}"));
    match nearest(name, &NAMES) {
        Some(near) => error.hint(format!("did you mean /{near}? /help lists all")),
        None => error.hint("/help lists all"),
    }
}

/// The candidate that takes the fewest edits to reach, if they are few.
pub(super) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let best = candidates.iter().map(|&c| (edits(name, c), c)).min()?;
    (best.0 <= best.1.len() / 2).then_some(best.1)
}

/// Levenshtein's distance: the fewest insertions, removals and replacements that make one of the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let read = |line| Command::parse(line).unwrap();
        assert_eq!(read("hello /exit"), None);
        assert_eq!(read("//not a command"), None);
        assert_eq!(read("  /exit "), Some(Command::Exit));
        assert_eq!(read("/system  Be brief. "), Some(Command::System("Be brief.")));
        assert_eq!(read("/set temp 0.5"), Some(Command::Set("temp", "0.5")));
        assert_eq!(read("/set temp=0.5"), Some(Command::Set("temp", "0.5")));
        assert_eq!(read("/set"), Some(Command::Settings));
        assert!(Command::parse("/set temp").is_err());
    }

    #[test]
    fn mistyped_commands_get_a_suggestion() {
        assert_eq!(nearest("hlep", &NAMES), Some("help"));
        assert_eq!(nearest("cler", &NAMES), Some("clear"));
        assert_eq!(nearest("sytsem", &NAMES), Some("system"));
        assert_eq!(nearest("xylophone", &NAMES), None);
        assert_eq!((edits("", "abc"), edits("kitten", "sitting")), (3, 3));
    }
}
