//! Flags that say what a text must be.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What a text must be, from its first to its last character; one of these.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Constraints (whatever is drawn, the text fits; -n may cut it off)")]
pub(crate) struct ConstraintArgs {
    /// JSON that a schema describes: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON", group = "constraint")]
    pub(crate) json_schema: Option<String>,
    /// Any JSON object
    #[arg(long, group = "constraint")]
    pub(crate) json_object: bool,
    /// A text that a regular expression matches as a whole
    #[arg(long, value_name = "REGEX", group = "constraint", allow_hyphen_values = true)]
    pub(crate) regex: Option<String>,
    /// A text of a grammar: a file, or the grammar itself, in GBNF or Lark
    #[arg(long, value_name = "FILE|TEXT", group = "constraint")]
    pub(crate) grammar: Option<String>,
    /// A text of the grammar in a file
    #[arg(long, value_name = "FILE", group = "constraint")]
    pub(crate) grammar_file: Option<PathBuf>,
    /// What the grammar is written in [default: lark if it has a line with %llguidance or is a .lark file, else gbnf]
    #[arg(long, value_name = "TYPE")]
    pub(crate) grammar_type: Option<GrammarType>,
    /// This text, or another one given in the same way
    #[arg(long, value_name = "TEXT", group = "constraint", allow_hyphen_values = true)]
    pub(crate) choice: Vec<String>,
}

/// What a grammar is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GrammarType {
    /// As llama.cpp has it
    Gbnf,
    /// As llguidance has it
    Lark,
}
