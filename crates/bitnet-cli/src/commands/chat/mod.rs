//! `bitnet chat`: a conversation at a terminal, one answer to a prompt, or one turn a line from elsewhere.
//!
//! [`Conversation`] holds what was said and has it answered ([`answer`], written by [`screen`]); [`command`] reads what
//! begins with a slash and [`obey`] does it; [`terminal`] is the line editor with [`complete`] and [`editor`];
//! [`store`] keeps conversations, [`export`] writes them for people. Here it is decided which way a chat goes.

mod answer;
mod command;
mod complete;
mod conversation;
mod editor;
mod export;
mod input;
mod obey;
mod screen;
mod settings;
mod store;
mod terminal;
mod tools;
mod transcript;

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use self::conversation::Conversation;
use self::input::{assemble, assemble_rest, unix_lines};
use self::obey::{Next, obey};
use self::store::{Place, Saved, Store};
use super::generate::stdin;
use crate::args::{ChatArgs, ModelArgs, SessionArgs};
use crate::error::CliError;
use crate::interrupt;
use crate::output::{self, Notes};

pub(super) use self::conversation::Closing;

pub(super) fn run(args: &ChatArgs, notes: Notes) -> Result<ExitCode, CliError> {
    if args.sessions.list_sessions {
        output::result(&Store::open()?.table())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = &args.sessions.delete_session {
        Store::open()?.place(name)?.remove()?;
        notes.say(&format!("(removed {name})"));
        return Ok(ExitCode::SUCCESS);
    }
    let prompt = match args.prompt.join(" ") {
        prompt if prompt.is_empty() => None,
        prompt => Some(with_stdin(&prompt)?),
    };
    start(args, prompt, Closing::Line, notes)
}

/// A prompt behind what comes from elsewhere.
pub(super) fn with_stdin(prompt: &str) -> Result<String, CliError> {
    if std::io::stdin().is_terminal() {
        return Ok(prompt.to_owned());
    }
    let text = stdin()?;
    let text = unix_lines(&text);
    let parts = [text.trim_end(), prompt];
    Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n"))
}

/// Begins or resumes a conversation: one answer to the prompt, or as many as the user wants.
pub(super) fn start(
    args: &ChatArgs,
    prompt: Option<String>,
    closing: Closing,
    notes: Notes,
) -> Result<ExitCode, CliError> {
    let at_terminal = std::io::stdin().is_terminal() && (prompt.is_none() || args.interactive);
    let place = place(&args.sessions, at_terminal)?;
    let saved = match &place {
        // A new conversation takes the place of the last one that nobody named.
        Some(place) if is_resumed(&args.sessions) => place.load()?,
        _ => None,
    };
    let model = model_of(&args.model, saved.as_ref());
    let engine = conversation::load(&model, notes)?;
    let mut chat = Conversation::new(engine, &model, &args.chat, notes)?;
    if let (Some(place), Some(saved)) = (&place, saved) {
        let system = args.chat.system.clone().or_else(|| saved.talk.system.clone());
        chat.resume(saved, place);
        chat.talk.system = system;
    }
    (chat.place, chat.saves_all) = (place, is_resumed(&args.sessions));
    if at_terminal || closing == Closing::Timings {
        chat.closing = closing;
    }
    let code = match prompt {
        Some(prompt) if !at_terminal => once(&mut chat, &prompt),
        _ if at_terminal => {
            notes.say(&format!(
                "talking with {}; /help lists the commands, Ctrl-D ends",
                chat.engine.model().name
            ));
            if let Some(prompt) = prompt {
                chat.say(&prompt)?;
            }
            terminal::talk(&mut chat)
        }
        _ => from_lines(&mut chat),
    };
    if !chat.talk.messages.is_empty() {
        // Of a conversation with a name, keys and values were saved after the last turn.
        chat.keep(!chat.saves_all);
    }
    code
}

/// Whether a saved conversation is to go on.
fn is_resumed(args: &SessionArgs) -> bool {
    args.session.is_some() || args.resume
}

/// Where the conversation is kept, if it is.
fn place(args: &SessionArgs, at_terminal: bool) -> Result<Option<Place>, CliError> {
    if let Some(name) = &args.session {
        return Store::open()?.place(name).map(Some);
    }
    if args.resume {
        return Store::open()?.latest().map(Some);
    }
    // Without a folder a conversation goes on all the same, and is not kept.
    Ok(Store::open().ok().filter(|_| at_terminal && !args.no_save).map(|store| store.unnamed()))
}

/// The model that was asked for, else that of the saved conversation.
fn model_of(args: &ModelArgs, saved: Option<&Saved>) -> ModelArgs {
    let model = args.model.clone().or_else(|| saved.and_then(|saved| saved.model.as_ref().map(Into::into)));
    ModelArgs { model, ..args.clone() }
}

/// One answer.
fn once(chat: &mut Conversation, prompt: &str) -> Result<ExitCode, CliError> {
    chat.say(prompt)?;
    Ok(if chat.was_interrupted() { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// Lines from a pipe or file. An error is told, the next line has its turn, and the exit code remembers.
fn from_lines(chat: &mut Conversation) -> Result<ExitCode, CliError> {
    let (mut code, mut open) = (ExitCode::SUCCESS, String::new());
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let line = lines.next().transpose();
        let line = line.map_err(|error| CliError::failed(format!("cannot read stdin: {error}")))?;
        let typed = match &line {
            Some(line) => {
                open += line.strip_suffix('\r').unwrap_or(line);
                assemble(&open)
            }
            None => Some(assemble_rest(&open)),
        };
        let Some(typed) = typed else {
            open.push('\n');
            continue;
        };
        open.clear();
        if !typed.text.trim().is_empty() {
            match obey(&typed, chat) {
                Ok(Next::Go | Next::Draft(_)) => {}
                Ok(Next::Exit) => break,
                Err(CliError::Closed) => return Err(CliError::Closed),
                Err(error) => code = error.report(),
            }
        }
        if chat.was_interrupted() {
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
        if line.is_none() {
            break;
        }
    }
    Ok(code)
}
