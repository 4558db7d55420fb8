//! [`Helper`]: what the line editor knows of the chat: when a text is complete, and what Tab may mean.

use std::borrow::Cow;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Result};

use super::command::{COMMANDS, TOPICS, Takes};
use super::input::assemble;
use super::{settings, store};

/// Completes commands and their arguments, and lets texts of several lines go on.
pub(super) struct Helper {
    files: FilenameCompleter,
    sessions: Option<store::Store>,
}

impl Helper {
    pub(super) fn new(sessions: Option<store::Store>) -> Self {
        Self { files: FilenameCompleter::new(), sessions }
    }

    /// Where the completed word begins, and what it may become.
    fn candidates(&self, line: &str, pos: usize) -> Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        let Some(command) = typed.strip_prefix('/') else { return Ok((pos, Vec::new())) };
        let Some((name, rest)) = command.split_once(' ') else {
            let names = COMMANDS.iter().map(|entry| (entry.name, entry.takes != Takes::Nothing));
            return Ok((1, beginning_with(command, names)));
        };
        let takes = COMMANDS.iter().find(|entry| entry.name == name).map(|entry| entry.takes);
        let start = pos - rest.len();
        let words = |names: Vec<String>, more| {
            let names = names.iter().map(|name| (name.as_str(), more));
            (start, beginning_with(rest, names))
        };
        Ok(match takes {
            Some(Takes::File) => self.files.complete_path(line, pos)?,
            Some(Takes::Session) => {
                let sessions = self.sessions.as_ref().map(store::Store::names).unwrap_or_default();
                let (start, mut found) = words(sessions, false);
                if rest.contains(['/', '\\', '.', '~']) {
                    let (_, files) = self.files.complete_path(line, pos)?;
                    found.extend(files);
                }
                (start, found)
            }
            Some(Takes::Setting) => words(settings::names().map(str::to_owned).collect(), true),
            Some(Takes::Topic) => words(TOPICS.map(str::to_owned).to_vec(), false),
            _ => (pos, Vec::new()),
        })
    }
}

/// Those names that begin as typed, with a space behind them where more follows.
fn beginning_with<'n>(typed: &str, names: impl Iterator<Item = (&'n str, bool)>) -> Vec<Pair> {
    let pair = |(name, more): (&str, bool)| Pair {
        display: name.to_owned(),
        replacement: if more { format!("{name} ") } else { name.to_owned() },
    };
    names.filter(|(name, _)| name.starts_with(typed)).map(pair).collect()
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        self.candidates(line, pos)
    }
}

impl Validator for Helper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        Ok(match assemble(context.input()) {
            Some(_) => ValidationResult::Valid(None),
            None => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Helper {
    type Hint = String;
}

impl Highlighter for Helper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        console::style(prompt).green().bold().to_string().into()
    }
}

impl rustyline::Helper for Helper {}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(helper: &Helper, line: &str) -> Vec<String> {
        let (start, found) = helper.candidates(line, line.len()).unwrap();
        found.into_iter().map(|pair| format!("{}{}", &line[..start], pair.replacement)).collect()
    }

    #[test]
    fn commands_and_their_arguments_are_completed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["foxes.json", "fish.json", "fish.kv"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let helper = Helper::new(Some(store::Store::at(folder.path().to_owned())));
        assert_eq!(complete(&helper, "/he"), ["/help"]);
        assert_eq!(complete(&helper, "/s"), ["/system ", "/set ", "/show ", "/save ", "/sessions", "/stats"]);
        assert_eq!(complete(&helper, "/set mark"), ["/set markdown "]);
        assert_eq!(complete(&helper, "/set top-"), ["/set top-k ", "/set top-p ", "/set top-nsigma "]);
        assert_eq!(complete(&helper, "/show te"), ["/show template"]);
        assert_eq!(complete(&helper, "/load f"), ["/load fish", "/load foxes"]);
        assert_eq!(complete(&helper, "/save fo"), ["/save foxes"]);
        let file = folder.path().join("foxes").display().to_string();
        for command in ["read", "export", "model", "load"] {
            let line = format!("/{command} {file}");
            assert_eq!(complete(&helper, &line), [format!("{line}.json")], "{command}");
        }
        for nothing in ["hello", "/system a", "/nothing x", "/exit "] {
            assert_eq!(complete(&helper, nothing), [""; 0], "{nothing}");
        }
    }
}
