//! `bitnet batch`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{self, Limit};
use super::{ConstraintArgs, ModelArgs, SamplingArgs};

const EXAMPLES: &str = "\
Examples:
  bitnet batch prompts.txt -o answers.jsonl                  one prompt a line
  bitnet batch reviews.csv -o out.csv --template \"Sum up: {{review}}\" --chat
  bitnet batch questions.jsonl -o answers.md -n 100 --temp 0
  bitnet batch 'notes/**/*.md' --mode file --template \"{{text}}\\n\\nIn short:\" -o out.html
  bitnet batch folder/ -o out.tsv --dry-run                  how many rows and tokens, how long it takes
  bitnet batch big.jsonl -o out.jsonl --resume               go on after Ctrl-C or a crash
  bitnet batch requests.jsonl -o results.jsonl               files of OpenAI's batch API
  cat lines.txt | bitnet batch - -o - | jq .text

Every row has a seed of its own, made of --seed and the row's number: a text depends neither on what is computed
beside it nor on interruptions. Fields of JSONL rows that are named as in the HTTP APIs (max_tokens, temperature,
seed, stop, system, messages, ...) hold for their row; a field that the template names is data.

While it runs, results are in OUT.part and what is needed to resume in OUT.journal.
Exit codes: 0 all rows are done, 3 some failed (see their errors in the output), 1 the run failed, 130 interrupted.";

/// What a row of a text file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextMode {
    /// A line that is not blank
    Line,
    /// Lines up to a blank one
    Paragraph,
    /// The whole file
    File,
}

impl TextMode {
    /// A short name for machines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Paragraph => "paragraph",
            Self::File => "file",
        }
    }
}

/// Forms of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// Text; --mode says what a row is
    Text,
    /// One JSON object or string a line
    Jsonl,
    /// Values between commas, names of columns in the first line
    Csv,
    /// Values between tabs, names of columns in the first line
    Tsv,
    /// A Parquet file (needs a build with the feature parquet)
    Parquet,
    /// Requests of OpenAI's batch API, one a line
    Openai,
}

/// Forms of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// One JSON object a line
    Jsonl,
    /// Values between commas
    Csv,
    /// Values between tabs
    Tsv,
    /// Markdown, a section for each row
    #[value(alias = "md")]
    Markdown,
    /// One page that needs nothing else
    Html,
    /// The texts alone, each with a line break behind it
    #[value(alias = "txt")]
    Text,
    /// A Parquet file (needs a build with the feature parquet)
    Parquet,
}

impl OutputFormat {
    /// A short name for machines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Text => "text",
            Self::Parquet => "parquet",
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BatchArgs {
    /// Files, folders (all files in them of a known ending), patterns such as 'data/*.csv', or `-` for stdin
    #[arg(value_name = "INPUT", required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// Where the results go; `-` for stdout
    #[arg(short, long, value_name = "OUT", default_value = "-")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) course: CourseArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) constraint: ConstraintArgs,
}

/// What is read and written.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FormArgs {
    /// Form of the inputs [default: by their endings; text for stdin and endings that say nothing]
    #[arg(long, value_name = "FORM")]
    pub(crate) input_format: Option<InputFormat>,
    /// Form of the output [default: by its ending; jsonl for stdout]
    #[arg(long, value_name = "FORM")]
    pub(crate) output_format: Option<OutputFormat>,
    /// What a row of a text file is
    #[arg(long, value_name = "MODE", default_value = "line")]
    pub(crate) mode: TextMode,
    /// Do not look into folders below the folders that are given
    #[arg(long)]
    pub(crate) no_recursive: bool,
    /// Write times beside the counts of tokens; the output is not the same twice then
    #[arg(long)]
    pub(crate) timings: bool,
}

/// How a row becomes a prompt.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct PromptArgs {
    /// Prompt of a row, with its columns or fields by name: "Translate: {{text}}" (Jinja) [default: the text, or the
    /// column `prompt`]
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "template_file")]
    pub(crate) template: Option<String>,
    /// Read the template from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) template_file: Option<PathBuf>,
    /// Continue the prompts as they are (the default)
    #[arg(long, conflicts_with = "chat")]
    pub(crate) raw: bool,
    /// Answer the prompts, in the form of the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
    /// System message; implies --chat
    #[arg(long, visible_alias = "sys", value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Take all fields of JSONL rows as data: none of them sets anything for its row
    #[arg(long)]
    pub(crate) no_row_settings: bool,
    /// Most tokens of each text; -1 until the model stops or the context is full [default: the model's, else -1]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = values::limit)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) predict: Option<Limit>,
    /// End texts before STR (may be given several times)
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Go on after the model's stop tokens
    #[arg(long)]
    pub(crate) ignore_eos: bool,
}

/// How the run goes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct CourseArgs {
    /// Rows that are computed together
    #[arg(long, value_name = "N", value_parser = values::positive, default_value_t = 32)]
    pub(crate) parallel: usize,
    /// Go on where an interrupted run stopped; begins if there was none
    #[arg(long, conflicts_with = "force")]
    pub(crate) resume: bool,
    /// Write over what is there, an interrupted run included
    #[arg(long)]
    pub(crate) force: bool,
    /// End at the first row that fails
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Read at most N rows
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) limit: Option<usize>,
    /// Write nothing: count rows and tokens, measure a few seconds, and tell how long it would take
    #[arg(long, conflicts_with_all = ["resume", "force"])]
    pub(crate) dry_run: bool,
    /// Print the summary, or what --dry-run tells, as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
