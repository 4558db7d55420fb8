//! `bitnet chat`: a conversation at a terminal, or one turn a line from elsewhere.
//!
//! [`Conversation`] holds what was said and runs turns, [`command`] reads what begins with
//! a slash, [`history`] knows where the lines typed before are kept. Here is the loop between them.

mod command;
mod conversation;
mod history;
mod settings;

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use self::command::{Command, HELP};
use self::conversation::Conversation;
use crate::args::ChatArgs;
use crate::error::CliError;
use crate::model;
use crate::output::Notes;

pub(super) fn run(args: &ChatArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let engine = model::engine(&args.model, notes)?;
    let mut conversation = Conversation::new(&engine, args, notes)?;
    if std::io::stdin().is_terminal() {
        notes.say(&format!("talking with {}; /help lists the commands, Ctrl-D ends", engine.model().name));
        at_terminal(&mut conversation, notes)
    } else {
        from_lines(&mut conversation, notes)
    }
}

/// What follows a line.
enum Next {
    Go,
    Exit,
}

/// Does what a line says.
fn obey(line: &str, conversation: &mut Conversation<'_>, notes: Notes) -> Result<Next, CliError> {
    match Command::parse(line)? {
        None => conversation.say(line)?,
        Some(Command::Help) => notes.say(HELP),
        Some(Command::Exit) => return Ok(Next::Exit),
        Some(Command::Clear) => conversation.clear(),
        Some(Command::System(text)) => conversation.set_system(text),
        Some(Command::Regen) => conversation.regenerate()?,
        Some(Command::Settings) => conversation.show_settings(),
        Some(Command::Set(name, value)) => conversation.set(name, value)?,
        Some(Command::Stats) => conversation.show_stats(),
    }
    Ok(Next::Go)
}

/// Lines typed at a terminal, with editing and history. An error is told and the conversation goes on.
fn at_terminal(conversation: &mut Conversation<'_>, notes: Notes) -> Result<ExitCode, CliError> {
    let terminal = |error: ReadlineError| CliError::failed(format!("cannot use the terminal: {error}"));
    let config = Config::builder().auto_add_history(true).max_history_size(1000).map_err(terminal)?.build();
    let mut editor = DefaultEditor::with_config(config).map_err(terminal)?;
    let history = history::path();
    if let Some(path) = &history {
        // There is none before the first conversation.
        let _ = editor.load_history(path);
    }
    loop {
        let line = match read_line(&mut editor) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(terminal(error)),
        };
        if line.trim().is_empty() {
            continue;
        }
        match obey(&line, conversation, notes) {
            Ok(Next::Go) => {}
            Ok(Next::Exit) => break,
            Err(CliError::Closed) => return Err(CliError::Closed),
            Err(error) => error.print(),
        }
    }
    if let Some(path) = &history {
        history::save(&mut editor, path, notes);
    }
    Ok(ExitCode::SUCCESS)
}

/// A line, or several where each but the last ends in a backslash.
fn read_line(editor: &mut DefaultEditor) -> Result<String, ReadlineError> {
    let mut text = editor.readline("> ")?;
    while text.ends_with('\\') {
        text.pop();
        text.push('\n');
        text += &editor.readline("... ")?;
    }
    Ok(text)
}

/// Lines from a pipe or file. An error is told, the next line has its turn, and the exit code remembers.
fn from_lines(conversation: &mut Conversation<'_>, notes: Notes) -> Result<ExitCode, CliError> {
    let mut code = ExitCode::SUCCESS;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| CliError::failed(format!("cannot read stdin: {error}")))?;
        if line.trim().is_empty() {
            continue;
        }
        match obey(&line, conversation, notes) {
            Ok(Next::Go) => {}
            Ok(Next::Exit) => break,
            Err(CliError::Closed) => return Err(CliError::Closed),
            Err(error) => code = error.report(),
        }
        if conversation.was_interrupted() {
            return Ok(ExitCode::from(crate::interrupt::EXIT_CODE));
        }
    }
    Ok(code)
}
