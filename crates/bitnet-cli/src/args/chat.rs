//! `bitnet chat` and `bitnet run`.

use std::path::PathBuf;

use clap::Args;

use super::values::{self, Limit};
use super::{ConstraintArgs, ModelArgs, SamplingArgs};

const EXAMPLES: &str = "\
Examples:
  bitnet chat                                          a conversation at the terminal
  bitnet chat \"Why is the sky blue?\"                   one answer, and no more
  cat notes.txt | bitnet chat \"Summarise this.\"        the text on stdin comes before the prompt
  bitnet chat -i \"Tell me a story.\"                    an answer, and then a conversation
  bitnet chat -m ./bitnet-b1.58-2B-4T --system \"You are a patient teacher.\"
  bitnet chat --session foxes                          begin a conversation that is kept, or go on with it
  bitnet chat --continue \"And then?\"                   go on with the last one
  printf 'Hello\\nTell me more\\n' | bitnet chat -q      without a prompt, each line of stdin is a turn
  bitnet chat --choice yes --choice no                 each answer is one of these
  bitnet chat --tools tools.json --tool-command ./call the model calls functions, ./call runs them

In the chat: /help lists the commands, Tab completes, Ctrl-C stops an answer, Ctrl-D leaves. History and conversations
are kept in BITNET_STATE_DIR, by default bitnet in the user's folder for state (XDG_STATE_HOME); BITNET_HISTORY names
another file for the history (empty for none).";

#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    /// A message: it is answered, and that is all
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
    /// Stay after the answer to PROMPT
    #[arg(short, long, requires = "prompt")]
    pub(crate) interactive: bool,
    #[command(flatten)]
    pub(crate) chat: ChatFlags,
    #[command(flatten)]
    pub(crate) sessions: SessionArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// How answers are made and shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChatFlags {
    /// System message
    #[arg(long, visible_alias = "sys", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Most tokens of one answer; -1 until the model stops or the context is full [default: the model's, else -1]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = values::limit)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) predict: Option<Limit>,
    /// End an answer before STR (may be given several times)
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// When the context is full, let the oldest turns go; the system message stays
    #[arg(long)]
    pub(crate) context_shift: bool,
    /// Show answers as the model writes them, their Markdown not rendered
    #[arg(long)]
    pub(crate) raw: bool,
    /// Leave long lines to the terminal, not cut between words
    #[arg(long)]
    pub(crate) nowordwrap: bool,
    /// Print statistics after each answer
    #[arg(long)]
    pub(crate) stats: bool,
    #[command(flatten)]
    pub(crate) tools: ToolArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) constraint: ConstraintArgs,
}

/// Functions that the model may call.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tools")]
pub(crate) struct ToolArgs {
    /// Functions that the model may call: a JSON list as in OpenAI's API. Without --tool-command you are asked for the
    /// result of a call; without a terminal the calls are printed as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,
    /// Command that runs a call: it gets {"id", "name", "arguments"} on stdin, its stdout is the result
    #[arg(long, value_name = "CMD", requires = "tools")]
    pub(crate) tool_command: Option<String>,
    /// Run calls without asking for each
    #[arg(long, requires = "tool_command")]
    pub(crate) yes: bool,
}

/// Conversations that are kept.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Saved conversations")]
pub(crate) struct SessionArgs {
    /// Go on with the conversation of this name, or begin it; it is saved after each turn
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    pub(crate) session: Option<String>,
    /// Go on with the last conversation
    #[arg(id = "resume", long = "continue")]
    pub(crate) resume: bool,
    /// Keep nothing of the conversation for --continue
    #[arg(long, conflicts_with_all = ["session", "resume"])]
    pub(crate) no_save: bool,
    /// List the saved conversations
    #[arg(long)]
    pub(crate) list_sessions: bool,
    /// Remove a saved conversation
    #[arg(long, value_name = "NAME")]
    pub(crate) delete_session: Option<String>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  bitnet run microsoft/bitnet-b1.58-2B-4T              a conversation; the model is fetched on first use
  bitnet run bitnet-tiny \"Tell me about a fox.\"        one answer of the bundled model
  cat notes.txt | bitnet run ./model.gguf \"Summarise this.\"
  bitnet run MODEL --format json \"Three colours as JSON.\"
  bitnet run MODEL --verbose \"Hi\"                      timings behind the answer

`bitnet chat` is the same without the name of a model, and keeps conversations under names; `bitnet generate` continues
raw text.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES, mut_arg("model", |arg| arg.hide(true)))]
pub(crate) struct RunArgs {
    /// Model: a path, ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub, or bitnet-tiny
    #[arg(id = "name", value_name = "MODEL")]
    pub(crate) name: PathBuf,
    /// A message: it is answered, and that is all. Text on stdin comes before it
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
    /// Answers are JSON: `json` for any object, or a schema or the name of a file with one
    #[arg(long, value_name = "json|SCHEMA", group = "constraint")]
    pub(crate) format: Option<String>,
    #[command(flatten)]
    pub(crate) chat: ChatFlags,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
