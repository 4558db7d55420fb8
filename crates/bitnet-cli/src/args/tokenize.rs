//! `bitnet tokenize`.

use std::path::PathBuf;

use clap::Args;

use super::FormatArgs;

const EXAMPLES: &str = "\
Examples:
  bitnet tokenize \"Once upon a time\"             pieces in colours on a terminal, a line each elsewhere
  bitnet tokenize -m org/model -f story.txt --count
  bitnet tokenize --ids \"Hello\"                  [id, id, ...], which --decode reads
  bitnet tokenize --decode \"$(bitnet tokenize --ids Hello)\"
  bitnet tokenize --chat -sys \"Be brief.\" \"Hi\"   what a chat model is given
  bitnet tokenize --json \"Hello\" | jq -r '.tokens[].piece'

Spaces show as '·', tabs as '→', line breaks as '↵', bytes that are no whole character as '\\xE2'; special tokens have a
colour of their own. Elsewhere than on a terminal a line is an id, a tab and the piece, with escapes as in C. Unlike
`bitnet generate`, this command takes names of special tokens in the text for these tokens, as llama-tokenize does;
--no-parse-special shows what `generate` makes of a prompt. A line break at the end of a file or of stdin is left out.

JSON: {count, bytes, text, tokens}; a token is {id, piece, token, bytes, special, start, end}: 'piece' is its text,
'token' its name in the vocabulary, 'bytes' what it stands for, 'start' and 'end' its place in 'text' in bytes, null
for tokens that are not in the text.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TokenizeArgs {
    /// Text; `-` reads stdin, as does nothing at all when stdin is no terminal
    #[arg(value_name = "TEXT", conflicts_with_all = ["prompt_flag", "file", "decode", "stdin"])]
    pub(crate) text: Option<String>,
    /// The same, as a flag
    #[arg(id = "prompt_flag", short = 'p', long = "prompt", value_name = "TEXT", conflicts_with = "file")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// Read the text from a file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Read the text from stdin
    #[arg(long, conflicts_with_all = ["prompt_flag", "file"])]
    pub(crate) stdin: bool,
    /// Give the text of these ids, which commas, blanks or brackets may separate; `-` reads them from stdin
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt_flag", "file", "stdin", "chat", "system"])]
    pub(crate) decode: Option<String>,
    /// Model folder or file, or ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub [default: the bundled model]
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL", hide_env_values = true)]
    pub(crate) model: Option<PathBuf>,
    /// Print the ids alone, on one line
    #[arg(long, conflicts_with = "json")]
    pub(crate) ids: bool,
    /// Print the number of tokens alone
    #[arg(long, visible_alias = "show-count", conflicts_with_all = ["json", "ids"])]
    pub(crate) count: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Put the text into the model's chat template first, as the turn of the user
    #[arg(long)]
    pub(crate) chat: bool,
    /// System message; implies --chat
    #[arg(long, visible_alias = "sys", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Neither add nor recognise special tokens; with --decode leave them out of the text
    #[arg(long, conflicts_with_all = ["chat", "system"])]
    pub(crate) no_special: bool,
    /// Do not put the token that begins a text first
    #[arg(long, conflicts_with_all = ["chat", "system"])]
    pub(crate) no_bos: bool,
    /// Take names of special tokens in the text for ordinary text
    #[arg(long, conflicts_with_all = ["chat", "system"])]
    pub(crate) no_parse_special: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
