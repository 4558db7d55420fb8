//! What each command does.

use std::path::{Path, PathBuf};

use super::command::{Command, TOPICS, help};
use super::conversation::Conversation;
use super::editor;
use super::export::{Format, export};
use super::input::{Typed, unix_lines};
use super::store::Store;
use crate::commands::generate::read;
use crate::error::CliError;
use crate::output;

/// What follows what was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    /// This waits in the line to be sent.
    Draft(String),
    Exit,
}

/// Says what was typed, or does it if it is a command.
pub(super) fn obey(typed: &Typed, chat: &mut Conversation) -> Result<Next, CliError> {
    let command = if typed.literal { None } else { Command::parse(&typed.text)? };
    let Some(command) = command else {
        let text = typed.text.trim();
        let text = if typed.literal { text } else { text.strip_prefix('/').unwrap_or(text) };
        chat.say(text)?;
        return Ok(Next::Go);
    };
    let notes = chat.notes;
    match command {
        Command::Help => notes.say(&help()),
        Command::Exit => return Ok(Next::Exit),
        Command::Clear => {
            chat.clear();
            notes.say("(the conversation is forgotten)");
            if let Some(place) = chat.place.take_if(|_| chat.saves_all) {
                chat.saves_all = false;
                notes.say(&format!("({} stays saved as it was; /save keeps what follows)", place.name));
            }
        }
        Command::Undo => {
            if !chat.talk.undo() {
                return Err(CliError::usage("there is nothing to undo"));
            }
            chat.keep(false);
            notes.say("(the last message and its answer are forgotten)");
        }
        Command::Regen => chat.regenerate()?,
        Command::Edit(text) => return editor::edit(text).map(Next::Draft),
        Command::Read(path) => read_file(path, chat)?,
        Command::System(text) => set_system(text, chat),
        Command::Set("system", text) => set_system(text, chat),
        Command::Set("parameter", "") => show_settings(chat),
        Command::Set(name, value) => chat.settings.set(name, value, &chat.engine)?,
        Command::Settings => show_settings(chat),
        Command::Show(topic) => show(topic, chat)?,
        Command::Save(name) => save(name, chat)?,
        Command::Load("") | Command::Sessions => notes.say(Store::open()?.table().trim_end()),
        Command::Load(name) => load(name, chat)?,
        Command::Export(path) => write_export(path, chat)?,
        Command::Tokens => tokens(chat)?,
        Command::Stats => chat.show_stats(),
        Command::Model("") => notes.say(&model_line(chat)),
        Command::Model(name) => {
            chat.change_model(&unquoted(name).display().to_string())?;
            notes.say(&format!("(going on with {})", model_line(chat)));
        }
    }
    Ok(Next::Go)
}

fn set_system(text: &str, chat: &mut Conversation) {
    chat.talk.system = (!text.is_empty()).then(|| text.to_owned());
    chat.notes.say(if text.is_empty() { "(no system message)" } else { "(system message set)" });
}

fn show_settings(chat: &Conversation) {
    for (name, value) in chat.settings.rows(&chat.engine) {
        chat.notes.say(&format!("{name:<20}{value}"));
    }
}

fn model_line(chat: &Conversation) -> String {
    let model = chat.engine.model();
    format!("{}: {}, on {}", model.name, model.format, chat.engine.info().description)
}

fn show(topic: &str, chat: &Conversation) -> Result<(), CliError> {
    let notes = chat.notes;
    let none = "(none)".to_owned();
    match topic {
        "" | "info" => {
            notes.say(&model_line(chat));
            notes.say(&format!("{:<20}{}", "place", chat.engine.model().place));
            notes.say(&format!("{:<20}{} tokens", "context", chat.engine.context()));
            notes.say(&format!("{:<20}{}", "turns", chat.talk.turns()));
            let place = chat.place.as_ref().map(|place| place.text.display().to_string());
            notes.say(&format!("{:<20}{}", "saved in", place.unwrap_or(none)));
        }
        "parameters" | "settings" => show_settings(chat),
        "system" => notes.say(chat.talk.system.as_ref().unwrap_or(&none)),
        "template" => {
            notes.say(
                chat.engine.model().chat_template.as_ref().map_or("(none)", |template| template.source()),
            );
        }
        "messages" => notes.say(export(&chat.talk, &chat.engine.model().name, Format::Text).trim_end()),
        "tools" => notes.say(&chat.tools.list()),
        other => {
            return Err(CliError::usage(format!("there is nothing to show of {other}"))
                .hint(format!("/show {}", TOPICS.join(" | "))));
        }
    }
    Ok(())
}

/// Puts a file before the next message.
fn read_file(path: &str, chat: &mut Conversation) -> Result<(), CliError> {
    let path = unquoted(path);
    if path == Path::new("-") {
        return Err(CliError::usage("/read needs the name of a file"));
    }
    let text = unix_lines(&read(&path)?).into_owned();
    let tokens = chat.engine.tokenizer()?.encode(&text, bitnet_text::EncodeOptions::default());
    let tokens = tokens.map_or_else(|_| "some".to_owned(), |tokens| tokens.len().to_string());
    let name = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let lines = text.lines().count();
    chat.notes.say(&format!("({name}: {lines} lines, {tokens} tokens; it goes with your next message)"));
    chat.files.push((name, text));
    Ok(())
}

fn save(name: &str, chat: &mut Conversation) -> Result<(), CliError> {
    let place = match (name, &chat.place) {
        ("", Some(place)) => place.clone(),
        ("", None) => {
            return Err(
                CliError::usage("/save needs a name").hint("as in /save foxes; /load foxes goes on with it")
            );
        }
        (name, _) => Store::open()?.place(&unquoted(name).display().to_string())?,
    };
    let is_own = chat.place.as_ref() == Some(&place);
    if !is_own
        && place.is_taken()
        && !output::confirm(&format!("there is a conversation {} already; replace it?", place.name), false)?
    {
        return Ok(());
    }
    chat.save(&place, true)?;
    chat.notes.say(&format!("(saved as {}; it is saved after each turn from now on)", place.name));
    (chat.place, chat.saves_all) = (Some(place), true);
    Ok(())
}

fn load(name: &str, chat: &mut Conversation) -> Result<(), CliError> {
    let place = Store::open()?.place(&unquoted(name).display().to_string())?;
    let Some(saved) = place.load()? else {
        return Err(
            CliError::failed(format!("there is no conversation {}", place.name)).hint("/sessions lists them")
        );
    };
    chat.keep(true);
    chat.resume(saved, &place);
    (chat.place, chat.saves_all) = (Some(place), true);
    Ok(())
}

fn write_export(path: &str, chat: &Conversation) -> Result<(), CliError> {
    let path = unquoted(path);
    if path.exists() && !output::confirm(&format!("{} exists; replace it?", path.display()), false)? {
        return Ok(());
    }
    let text = export(&chat.talk, &chat.engine.model().name, Format::of(&path));
    output::write_file(&path, text.as_bytes())?;
    chat.notes.say(&format!("(written to {})", path.display()));
    Ok(())
}

fn tokens(chat: &Conversation) -> Result<(), CliError> {
    let (tokens, context) = (chat.tokens()?, chat.engine.context());
    let left = context.saturating_sub(tokens);
    chat.notes.say(&format!("the conversation has {tokens} of {context} tokens; {left} are left"));
    if chat.talk.dropped > 0 {
        let turns = chat.talk.dropped_turns();
        chat.notes.say(&format!(
            "(without the oldest {turns} of {} turns, which were left out)",
            chat.talk.turns()
        ));
    }
    Ok(())
}

/// A path as completion writes it: spaces behind backslashes, or all in quotation marks; `~` is the user's home.
fn unquoted(path: &str) -> PathBuf {
    let inner = ['"', '\''].iter().find_map(|&mark| path.strip_prefix(mark)?.strip_suffix(mark));
    let plain = match inner {
        Some(inner) => inner.into(),
        None if cfg!(windows) || Path::new(path).exists() => path.into(),
        None => rustyline::completion::unescape(path, Some('\\')),
    };
    match plain.strip_prefix("~/").zip(std::env::var_os("HOME")) {
        Some((rest, home)) => Path::new(&home).join(rest),
        None => PathBuf::from(plain.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn paths_are_read_as_they_are_completed() {
        assert_eq!(unquoted("notes.txt"), Path::new("notes.txt"));
        assert_eq!(unquoted("my\\ notes.txt"), Path::new("my notes.txt"));
        assert_eq!(unquoted("\"my notes.txt\""), Path::new("my notes.txt"));
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        assert_eq!(unquoted("~/a"), home.join("a"));
    }
}
