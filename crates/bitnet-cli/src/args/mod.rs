//! The command line as types. No logic here but the reading of single values.

mod batch;
mod bench;
mod chat;
mod compare;
mod config;
mod constraint;
mod convert;
mod devices;
mod doctor;
mod embed;
mod eval;
mod generate;
mod hub;
mod inspect;
pub(crate) mod lists;
mod model;
mod perplexity;
mod running;
mod sampling;
mod serve;
mod shell;
mod synth;
mod tokenize;
pub(crate) mod values;

use std::ffi::OsString;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use batch::{BatchArgs, InputFormat, OutputFormat, TextMode};
pub(crate) use bench::{BenchAction, BenchArgs, BenchFormat, OpsArgs};
pub(crate) use chat::{ChatArgs, ChatFlags, RunArgs, SessionArgs, ToolArgs};
pub(crate) use compare::CompareArgs;
pub(crate) use config::{ConfigAction, ConfigArgs};
pub(crate) use constraint::{ConstraintArgs, GrammarType};
pub(crate) use convert::{ConvertArgs, OutputArgs, QuantizeArgs};
pub(crate) use devices::DevicesArgs;
pub(crate) use doctor::DoctorArgs;
pub(crate) use embed::{EmbedArgs, EmbedFormat};
pub(crate) use eval::EvalArgs;
pub(crate) use generate::GenerateArgs;
pub(crate) use hub::{DuArgs, HubArgs, ListArgs, PullArgs, RmArgs, ShowArgs};
pub(crate) use inspect::{InspectArgs, SampleArgs};
pub(crate) use model::{DeviceArgs, FormatArgs, ModelArgs, StorageArgs};
pub(crate) use perplexity::PerplexityArgs;
pub(crate) use running::{ClientArgs, PsArgs, StopArgs};
pub(crate) use sampling::SamplingArgs;
pub(crate) use serve::ServeArgs;
pub(crate) use shell::{CompletionsArgs, ManArgs, ReferenceAction, ReferenceArgs, Shell};
pub(crate) use synth::SynthArgs;
pub(crate) use tokenize::TokenizeArgs;

/// Run BitNet b1.58 models (ternary weights) on this machine.
#[derive(Debug, Parser)]
#[command(name = "bitnet", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bitnet generate \"Once upon a time\"          text from the bundled model
  bitnet generate -m DIR -n 200 --chat \"Hi\"   an answer from a downloaded model
  bitnet chat                                 a conversation
  bitnet run MODEL \"Hi\"                       an answer of a model by its name, fetched if it is not there
  bitnet batch prompts.csv -o out.csv         texts for all rows of a file
  bitnet serve                                a server with a chat page
  bitnet pull microsoft/bitnet-b1.58-2B-4T    fetch a model; -m ORG/NAME fetches it on first use
  bitnet inspect MODEL                        what is in a model
  bitnet doctor                               what is wrong here, and what to do
  bitnet bench                                how fast it runs

Without --model the small bundled model is used. `bitnet config` keeps defaults of flags.

Exit codes:
  0    it is done
  1    it failed; stderr says why
  2    it was asked for wrongly: a flag, a setting
  3    some rows of a batch failed; the others are done
  130  it was interrupted";

/// Forms of what is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl LogFormat {
    /// Its name in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct GlobalArgs {
    /// Say more on stderr
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Form of what is said on stderr
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    #[arg(env = "BITNET_LOG_FORMAT", hide_env_values = true)]
    pub(crate) log_format: LogFormat,
    /// Whether that is a flag of this command line.
    #[arg(skip)]
    pub(crate) log_format_given: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a text, or answer once
    Generate(GenerateArgs),
    /// Talk with a model, or have one question answered
    Chat(ChatArgs),
    /// The same with a model by its name, fetched if it is not there
    Run(RunArgs),
    /// Process files of prompts: text, JSONL, CSV, TSV, Parquet, OpenAI's batch files
    Batch(BatchArgs),
    /// Serve models over HTTP: the APIs of OpenAI, Anthropic, llama-server and ollama, and a chat page
    Serve(ServeArgs),
    /// Show which models a running server has loaded, and what they are doing
    Ps(PsArgs),
    /// Unload a model of a running server, or end the server
    Stop(StopArgs),
    /// Fetch a model from the Hub
    Pull(PullArgs),
    /// List the models in the cache
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show card, licence, configuration and template of a model
    Show(ShowArgs),
    /// Remove models from the cache
    Rm(RmArgs),
    /// Show what the cache holds, and keep it within a budget
    Du(DuArgs),
    /// Turn texts into vectors
    Embed(EmbedArgs),
    /// Show what is in a model
    Inspect(InspectArgs),
    /// Show a text as tokens, or tokens as a text
    Tokenize(TokenizeArgs),
    /// Show the processor, kernels and memory
    Devices(DevicesArgs),
    /// Look for what is wrong on this machine, and say what to do
    Doctor(DoctorArgs),
    /// Measure how well a model predicts a text
    Perplexity(PerplexityArgs),
    /// Answer the questions of a task, and count what is right
    Eval(EvalArgs),
    /// Compare two models, or one in two ways, over a text
    Compare(CompareArgs),
    /// Measure how fast a model runs, beside what the machine can do
    Bench(BenchArgs),
    /// Write a model in another form, and verify it
    Convert(ConvertArgs),
    /// Make a ternary model from a full-precision checkpoint
    Quantize(QuantizeArgs),
    /// Write a model of random weights, to measure speed
    Synth(SynthArgs),
    /// Show and change the settings that are kept in a file
    Config(ConfigArgs),
    /// Print what a shell needs to complete commands, flags and models
    Completions(CompletionsArgs),
    /// Print or write manual pages
    Man(ManArgs),
    /// Write the reference of all commands, for the book
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

/// The command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// The flags of sampling alone.
pub(crate) fn sampling() -> clap::Command {
    SamplingArgs::augment_args(clap::Command::new("sampling"))
}

/// Turns the spellings that users of llama.cpp know and clap cannot have, long names behind one dash, into ours. Leaves
/// alone what stands behind `--`.
pub(crate) fn with_llama_spellings(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let (mut verbatim, mut bench, mut batch, mut serve) = (false, false, false, false);
    args.map(move |arg| {
        verbatim |= arg == "--";
        bench |= arg == "bench";
        batch |= arg == "batch";
        serve |= arg == "serve";
        match arg.to_str() {
            Some("-sys") if !verbatim => "--system".into(),
            Some("-hf" | "--hf-repo") if !verbatim => "--model".into(),
            Some("-pg") if !verbatim && bench => "--pg".into(),
            Some("-np") if !verbatim && (serve || batch) => "--parallel".into(),
            Some("-to") if !verbatim && serve => "--timeout".into(),
            _ => arg,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn spellings_of_llama_are_understood() {
        let args = ["bitnet", "generate", "-sys", "Be brief.", "--", "-sys"].map(OsString::from);
        let cli = Cli::parse_from(with_llama_spellings(args.into_iter()));
        let Command::Generate(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!((args.system.as_deref(), args.prompt.as_deref()), (Some("Be brief."), Some("-sys")));
        let args = ["bitnet", "generate", "-hf", "org/model:i2_s"].map(OsString::from);
        let cli = Cli::parse_from(with_llama_spellings(args.into_iter()));
        let Command::Generate(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.model.model, Some("org/model:i2_s".into()));
        let args = ["bitnet", "serve", "-np", "4", "-m", "a=b", "-to", "5"].map(OsString::from);
        let cli = Cli::parse_from(with_llama_spellings(args.into_iter()));
        let Command::Serve(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!((args.engine.parallel, args.limits.timeout, args.models.len()), (Some(4), Some(5), 1));
        let args = ["bitnet", "bench", "-p", "1,2", "-pg", "8,4", "-o", "csv"].map(OsString::from);
        let cli = Cli::parse_from(with_llama_spellings(args.into_iter()));
        let Command::Bench(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!((args.prompt_and_answer, args.n_prompt), (vec![(8, 4)], vec![lists::List(vec![1, 2])]));
    }
}
