//! `bitnet bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{DeviceArgs, FormatArgs, StorageArgs, lists, values};

const EXAMPLES: &str = "\
Examples:
  bitnet bench                                          pp512 and tg128 of the bundled model
  bitnet bench -m DIR -p 512 -n 128 -t 1,2 -r 5         a model on one thread and on two
  bitnet bench -m DIR -p 0 -n 64 -d 0,512-3584+1024     generation at several depths of the context
  bitnet bench -m DIR -p 0 -b 1,2,4,8                   several sequences that generate together
  bitnet bench -m DIR -pg 512,128 -o csv                a prompt and its answer, for a spreadsheet
  bitnet bench --report out.html                        sweeps everything, writes one page with plots
  bitnet bench ops                                      products of one layer a second
  bitnet bench --score                                  grades for this machine

Numbers may be lists and ranges: 1,2,4 and first-last, first-last+step, first-last*factor.

Columns: 'of limit' is the speed as a part of what the memory bandwidth (GB/s) and the int8 multiplier (GMAC/s) allow,
both measured on the same threads between the repetitions. Generation must read all weights and the context from memory
for every token; a prompt must multiply every ternary weight with every token. A model that fits the caches, as the
bundled one does, can be faster than memory. 'first token' is the time of a prompt up to its first token; P50, P95 and
P99 are percentiles of the time of a generated token; 'peak' is the most memory the process took.

Grades (--score) always measure the bundled model, one BitLinear of 768 x 768 and one row, on this machine:
  throughput  40 %  operations/s    over 300,000 A+, from 200,000 A, from 100,000 B, from 50,000 C, below D
  latency     40 %  ms a token      under 1 A+, under 2 A, under 5 B, under 10 C, over D
  memory      15 %  beside weights  under 50 MB A+, under 100 A, under 200 B, under 500 C, over D
  batch        5 %  tokens/s of 8 sequences over 1: from 4.5 A+, from 3 A, from 2 B, from 1.3 C, below D
A+ is 100 points, A 90, B 75, C 60, D 40; the weighted sum is A+ from 95, A from 85, B from 70, C from 50.";

/// Form of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    /// A table
    Md,
    /// One array
    Json,
    /// One object a line
    Jsonl,
    /// Comma-separated values
    Csv,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) action: Option<BenchAction>,
    /// Model folder or file, or ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub [default: the bundled model]
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL", hide_env_values = true)]
    pub(crate) model: Option<PathBuf>,
    /// Tokens of a prompt; 0 for none [default: 512]
    #[arg(short = 'p', long, value_name = "LIST", value_parser = lists::list)]
    pub(crate) n_prompt: Vec<lists::List>,
    /// Tokens to generate; 0 for none [default: 128]
    #[arg(short = 'n', long, value_name = "LIST", value_parser = lists::list)]
    pub(crate) n_gen: Vec<lists::List>,
    /// A prompt and its answer as one test (-pg 512,128); may be given again
    #[arg(long = "pg", value_name = "PROMPT,ANSWER", value_parser = lists::pair)]
    pub(crate) prompt_and_answer: Vec<(usize, usize)>,
    /// Tokens in the context before the test [default: 0]
    #[arg(short = 'd', long, value_name = "LIST", value_parser = lists::list)]
    pub(crate) n_depth: Vec<lists::List>,
    /// Sequences that generate together; prompts alone are measured with one [default: 1]
    #[arg(short, long, value_name = "LIST", value_parser = lists::positive_list)]
    pub(crate) batch: Vec<lists::List>,
    /// Threads that compute [default: one for each core]
    #[arg(short, long, value_name = "LIST", env = "BITNET_THREADS", hide_env_values = true)]
    #[arg(value_parser = lists::thread_list)]
    pub(crate) threads: Vec<lists::List>,
    /// Kernel sets, as `bitnet devices` lists them [default: the fastest]
    #[arg(long, value_name = "SETS", env = "BITNET_KERNELS", hide_env_values = true, value_delimiter = ',')]
    pub(crate) kernels: Vec<String>,
    /// Repetitions of each test
    #[arg(short, long, value_name = "N", value_parser = values::positive, default_value = "5")]
    pub(crate) repetitions: usize,
    /// Form of the results
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = BenchFormat::Md)]
    pub(crate) output: BenchFormat,
    /// The same as `-o json`
    #[arg(long, conflicts_with = "output")]
    pub(crate) json: bool,
    /// Write one page with plots and the table; what is not given is swept
    #[arg(long, value_name = "FILE", conflicts_with = "score")]
    pub(crate) report: Option<PathBuf>,
    /// Grade this machine from A+ to D
    #[arg(long)]
    pub(crate) score: bool,
    /// Logits that choosing a token needs, 0 for all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub(crate) top_k: usize,
    /// Do not run each test once before it is timed
    #[arg(long)]
    pub(crate) no_warmup: bool,
    /// Do not measure the limits of the machine
    #[arg(long)]
    pub(crate) no_limits: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

impl BenchArgs {
    /// The form to print in.
    pub(crate) fn output(&self) -> BenchFormat {
        if self.json { BenchFormat::Json } else { self.output }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchAction {
    /// Time one BitLinear layer with one row, in operations per second
    Ops(OpsArgs),
}

const OPS_EXAMPLES: &str = "\
Examples:
  bitnet bench ops
  bitnet bench ops --rows 6912 --cols 2560 --threads 2
  bitnet bench ops --kernels avx2,scalar -o json

An operation quantises one row of activations and multiplies it with the layer. Kernel sets are measured in turns; the
figure is the median of the rounds. With several threads each has a layer of its own, and all operations count.";

#[derive(Debug, Args)]
#[command(after_help = OPS_EXAMPLES)]
pub(crate) struct OpsArgs {
    /// Rows of the layer: its outputs
    #[arg(long, value_name = "N", value_parser = values::positive, default_value = "768")]
    pub(crate) rows: usize,
    /// Columns of the layer: its inputs
    #[arg(long, value_name = "N", value_parser = values::positive, default_value = "768")]
    pub(crate) cols: usize,
    /// Threads that compute
    #[arg(short, long, value_name = "N", value_parser = values::threads, default_value = "1")]
    pub(crate) threads: usize,
    /// Kernel sets, as `bitnet devices` lists them [default: all that this machine has]
    #[arg(long, value_name = "SETS", env = "BITNET_KERNELS", hide_env_values = true, value_delimiter = ',')]
    pub(crate) kernels: Vec<String>,
    /// Rounds
    #[arg(short, long, value_name = "N", value_parser = values::positive, default_value = "15")]
    pub(crate) repetitions: usize,
    /// Form of the results
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = BenchFormat::Md)]
    pub(crate) output: BenchFormat,
    /// The same as `-o json`
    #[arg(long, conflicts_with = "output")]
    pub(crate) json: bool,
}

impl OpsArgs {
    /// The form to print in.
    pub(crate) fn output(&self) -> BenchFormat {
        if self.json { BenchFormat::Json } else { self.output }
    }
}
