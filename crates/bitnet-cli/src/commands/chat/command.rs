//! [`Command`]: what begins with a slash.

use std::fmt::Write as _;

use crate::error::CliError;
use crate::nearest::nearest;

/// What a command takes, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Text,
    File,
    Session,
    Setting,
    Topic,
}

/// A command as `/help` tells of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    others: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    pub(super) takes: Takes,
}

const fn entry(
    name: &'static str,
    others: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    takes: Takes,
) -> Entry {
    Entry { name, others, usage, about, takes }
}

/// All commands, in the order of `/help`.
pub(super) const COMMANDS: [Entry; 17] = [
    entry("help", &["?"], "", "this list", Takes::Nothing),
    entry("exit", &["bye", "quit"], "", "leave (also Ctrl-D)", Takes::Nothing),
    entry("clear", &[], "", "forget the conversation, not the system message", Takes::Nothing),
    entry("undo", &[], "", "forget the last message and its answer", Takes::Nothing),
    entry("regen", &["retry"], "", "another answer to the last message", Takes::Nothing),
    entry("edit", &[], "[TEXT]", "write the next message in $VISUAL or $EDITOR (also Ctrl-G)", Takes::Text),
    entry("read", &[], "FILE", "put a file before your next message", Takes::File),
    entry("system", &[], "[TEXT]", "set the system message; without TEXT remove it", Takes::Text),
    entry("set", &[], "[NAME VALUE]", "change a setting; alone, show all of them", Takes::Setting),
    entry(
        "show",
        &[],
        "[TOPIC]",
        "the model; or: parameters, system, template, messages, tools",
        Takes::Topic,
    ),
    entry("save", &[], "[NAME]", "save the conversation, and keep it saved", Takes::Session),
    entry("load", &[], "[NAME]", "go on with a saved conversation; alone, list them", Takes::Session),
    entry("sessions", &[], "", "list the saved conversations", Takes::Nothing),
    entry("export", &[], "FILE", "write the conversation as .md, .json, .html or text", Takes::File),
    entry("tokens", &[], "", "how much of the context is used", Takes::Nothing),
    entry("stats", &[], "", "statistics of the last answer", Takes::Nothing),
    entry("model", &[], "[MODEL]", "name the model, or change it and go on", Takes::File),
];

/// Topics of `/show`.
pub(super) const TOPICS: [&str; 6] = ["info", "parameters", "system", "template", "messages", "tools"];

/// What `/help` says.
pub(super) fn help() -> String {
    let mut text = String::new();
    for entry in &COMMANDS {
        let usage = format!("/{} {}", entry.name, entry.usage);
        let _ = writeln!(text, "{usage:<20}{}", entry.about);
    }
    text + "Lines between \"\"\" and \"\"\" are one message, and a line that ends in \\ goes on in the next. A message that \
            begins\nwith a slash: //. Tab completes commands, names and files. Ctrl-C stops an answer; twice at the prompt, \
            it leaves."
}

/// A command of the chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Help,
    Exit,
    Clear,
    Undo,
    Regen,
    Edit(&'a str),
    Read(&'a str),
    System(&'a str),
    Settings,
    Set(&'a str, &'a str),
    Show(&'a str),
    Save(&'a str),
    Load(&'a str),
    Sessions,
    Export(&'a str),
    Tokens,
    Stats,
    Model(&'a str),
}

impl<'a> Command<'a> {
    /// Reads a text; `None` if it is no command but something to say. A text that begins with two slashes is said.
    pub(super) fn parse(text: &'a str) -> Result<Option<Self>, CliError> {
        let Some(text) = text.trim().strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
            return Ok(None);
        };
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let known = COMMANDS.iter().find(|entry| entry.name == name || entry.others.contains(&name));
        let name = known.ok_or_else(|| unknown_command(name))?.name;
        let needed = |what: &str| match rest {
            "" => Err(CliError::usage(format!("/{name} needs {what}"))),
            rest => Ok(rest),
        };
        Ok(Some(match name {
            "help" => Self::Help,
            "exit" => Self::Exit,
            "clear" => Self::Clear,
            "undo" => Self::Undo,
            "regen" => Self::Regen,
            "edit" => Self::Edit(rest),
            "read" => Self::Read(needed("the name of a file")?),
            "system" => Self::System(rest),
            "show" => Self::Show(rest),
            "save" => Self::Save(rest),
            "load" => Self::Load(rest),
            "sessions" => Self::Sessions,
            "export" => Self::Export(needed("the name of a file, such as talk.md or talk.html")?),
            "tokens" => Self::Tokens,
            "stats" => Self::Stats,
            "model" => Self::Model(rest),
            _ if rest.is_empty() => Self::Settings,
            _ => {
                let (name, value) =
                    rest.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((rest, ""));
                Self::Set(name, value.trim())
            }
        }))
    }
}

fn unknown_command(name: &str) -> CliError {
    let error = CliError::usage(format!("there is no command /{name}"));
    let names = COMMANDS.map(|entry| entry.name);
    match nearest(name, names) {
        Some(near) => error.hint(format!("did you mean /{near}? /help lists all")),
        None => error.hint("/help lists all; begin with // to say something that begins with a slash"),
    }
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
        assert_eq!(read("/?"), Some(Command::Help));
        assert_eq!(read("/system  Be brief.\nVery. "), Some(Command::System("Be brief.\nVery.")));
        assert_eq!(read("/set temp 0.5"), Some(Command::Set("temp", "0.5")));
        assert_eq!(read("/set temp=0.5"), Some(Command::Set("temp", "0.5")));
        assert_eq!(read("/set"), Some(Command::Settings));
        assert_eq!(read("/read my notes.txt"), Some(Command::Read("my notes.txt")));
        assert_eq!(read("/model"), Some(Command::Model("")));
        assert!(Command::parse("/read").is_err() && Command::parse("/export ").is_err());
    }

    #[test]
    fn every_command_of_the_list_is_read() {
        for entry in &COMMANDS {
            for name in entry.others.iter().chain([&entry.name]) {
                assert!(matches!(Command::parse(&format!("/{name} x")), Ok(Some(_))), "{name}");
            }
            assert!(help().contains(&format!("/{}", entry.name)));
        }
    }

    #[test]
    fn mistyped_commands_get_a_suggestion() {
        let hint = |line| format!("{:?}", Command::parse(line).unwrap_err());
        assert!(hint("/hlep").contains("did you mean /help"), "{}", hint("/hlep"));
        assert!(!hint("/xylophone").contains("did you mean"), "{}", hint("/xylophone"));
    }
}
