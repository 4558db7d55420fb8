//! `bitnet completions`, `bitnet man`, `bitnet reference`: what is made of the command line itself.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Shells that can complete.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
    Elvish,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  echo 'source <(bitnet completions bash)' >> ~/.bashrc
  echo 'source <(bitnet completions zsh)' >> ~/.zshrc
  bitnet completions fish > ~/.config/fish/completions/bitnet.fish
  bitnet completions powershell | Out-String | Invoke-Expression
  eval (bitnet completions elvish | slurp)

The shell asks bitnet itself at each Tab, so that models in the cache are offered too.";

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete in
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

const MAN_EXAMPLES: &str = "\
Examples:
  bitnet man generate | man -l -
  bitnet man --output ~/.local/share/man/man1
  bitnet man bench ops > bitnet-bench-ops.1";

#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct ManArgs {
    /// Command whose page is printed [default: that of bitnet]
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into a folder
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReferenceArgs {
    #[command(subcommand)]
    pub(crate) action: ReferenceAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReferenceAction {
    /// Write a page for each command
    Write {
        /// Folder to write into
        #[arg(value_name = "DIR")]
        output: PathBuf,
    },
    /// Say whether a command line can be, and do nothing
    Check {
        /// The command line behind `bitnet`
        #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}
