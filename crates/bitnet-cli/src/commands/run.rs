//! `bitnet run`: a model by its name, as users of ollama know it.

use std::io::IsTerminal;
use std::process::ExitCode;

use super::chat::{self, Closing};
use crate::args::{ChatArgs, ConstraintArgs, ModelArgs, RunArgs, SessionArgs};
use crate::error::CliError;
use crate::output::Notes;

pub(super) fn run(args: &RunArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let prompt = chat::with_stdin(&args.prompt.join(" "))?;
    if prompt.is_empty() && !std::io::stdin().is_terminal() {
        return Err(CliError::usage("no prompt").hint("write one after the model, or pipe it in"));
    }
    let closing = if notes.is_verbose() { Closing::Timings } else { Closing::Line };
    chat::start(&as_chat(args), Some(prompt).filter(|prompt| !prompt.is_empty()), closing, notes)
}

/// The same as a chat.
fn as_chat(args: &RunArgs) -> ChatArgs {
    let is_bundled = args.name.as_os_str() == bitnet_tiny::NAME && !args.name.exists();
    let mut flags = args.chat.clone();
    if let Some(format) = &args.format {
        let is_any = format == "json";
        let json_schema = (!is_any).then(|| format.clone());
        flags.constraint = ConstraintArgs { json_object: is_any, json_schema, ..flags.constraint };
    }
    ChatArgs {
        prompt: Vec::new(),
        interactive: false,
        chat: flags,
        sessions: SessionArgs::default(),
        model: ModelArgs { model: (!is_bundled).then(|| args.name.clone()), ..args.model.clone() },
    }
}
