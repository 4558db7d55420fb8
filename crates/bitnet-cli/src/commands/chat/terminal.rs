//! The chat at a terminal: lines with editing, history and completion.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler,
    KeyEvent, RepeatCount,
};

use super::complete::Helper;
use super::conversation::Conversation;
use super::editor;
use super::input::{assemble_rest, unix_lines};
use super::obey::{Next, obey};
use super::store::Store;
use crate::error::CliError;
use crate::output::Notes;
use crate::{folders, interrupt};

/// Lines that are remembered.
const HISTORY: usize = 1000;

/// Ctrl-G: ends the line, and notes that it is to be edited elsewhere.
struct OpenEditor(Arc<AtomicBool>);

impl ConditionalEventHandler for OpenEditor {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(true, Ordering::SeqCst);
        Some(Cmd::AcceptLine)
    }
}

/// Reads what is typed.
struct Reader {
    editor: Editor<Helper, FileHistory>,
    wants_editor: Arc<AtomicBool>,
    history: Option<PathBuf>,
    notes: Notes,
}

fn failed(error: &ReadlineError) -> CliError {
    CliError::failed(format!("cannot use the terminal: {error}"))
}

impl Reader {
    fn new(notes: Notes) -> Result<Self, CliError> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_dups(true)
            .and_then(|config| config.max_history_size(HISTORY))
            .map_err(|error| failed(&error))?
            .build();
        let mut editor = Editor::with_config(config).map_err(|error| failed(&error))?;
        editor.set_helper(Some(Helper::new(Store::open().ok())));
        let wants_editor = Arc::new(AtomicBool::new(false));
        let handler = Box::new(OpenEditor(Arc::clone(&wants_editor)));
        editor.bind_sequence(KeyEvent::ctrl('G'), EventHandler::Conditional(handler));
        let history = history_file();
        if let Some(path) = &history {
            // There is none before the first conversation.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, wants_editor, history, notes })
    }

    /// The next text, begun with a draft.
    fn read(&mut self, draft: &str) -> Result<String, ReadlineError> {
        let mut text = self.editor.readline_with_initial("> ", (draft, ""))?;
        while self.wants_editor.swap(false, Ordering::SeqCst) {
            match editor::edit(&text) {
                Ok(edited) => text = edited,
                Err(error) => error.print(),
            }
            text = self.editor.readline_with_initial("> ", (&text, ""))?;
        }
        Ok(unix_lines(&text).into_owned())
    }

    /// Remembers a text, in this conversation and in those that follow.
    fn remember(&mut self, text: &str) {
        if !self.editor.add_history_entry(text).unwrap_or(false) {
            return;
        }
        let Some(path) = &self.history else { return };
        let made = path.parent().map_or(Ok(()), folders::make_private);
        let saved = made
            .map_err(|error| error.to_string())
            .and_then(|()| self.editor.append_history(path).map_err(|error| error.to_string()));
        if let Err(error) = saved {
            // A chat is not worth failing for it, nor is one warning a line.
            self.notes.warn(&format!("cannot write the history to {}: {error}", path.display()));
            self.history = None;
        }
    }
}

/// The history file: `BITNET_HISTORY` (empty for none), else in the user's folder for state.
fn history_file() -> Option<PathBuf> {
    match std::env::var_os("BITNET_HISTORY") {
        Some(path) => (!path.is_empty()).then(|| path.into()),
        None => Some(folders::state(&folders::environment)?.join("history")),
    }
}

/// Talks until the user leaves. An error is told and the conversation goes on.
pub(super) fn talk(chat: &mut Conversation) -> Result<ExitCode, CliError> {
    let mut reader = Reader::new(chat.notes)?;
    let mut draft = String::new();
    // Behind a first Ctrl-C. Until the next prompt the terminal turns another one into a signal: that leaves as well, but saves.
    let mut listening = None;
    loop {
        if listening.is_some() && interrupt::requested() {
            break;
        }
        let text = match reader.read(&draft) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) if listening.is_some() => break,
            Err(ReadlineError::Interrupted) => {
                listening = Some(interrupt::listen());
                chat.notes.say("(Ctrl-C again, Ctrl-D or /exit leaves)");
                draft.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(&error)),
        };
        (draft, listening) = (String::new(), None);
        if text.trim().is_empty() {
            continue;
        }
        if chat.settings.history {
            reader.remember(&text);
        }
        match obey(&assemble_rest(&text), chat) {
            Ok(Next::Go) => {}
            Ok(Next::Draft(text)) => draft = text,
            Ok(Next::Exit) => break,
            Err(CliError::Closed) => return Err(CliError::Closed),
            Err(error) => error.print(),
        }
    }
    Ok(ExitCode::SUCCESS)
}
