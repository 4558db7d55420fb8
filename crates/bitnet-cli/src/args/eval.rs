//! `bitnet eval`.

use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, values};

const EXAMPLES: &str = "\
Examples:
  bitnet eval tasks.jsonl -m ./bitnet-b1.58-2B-4T
  bitnet eval tasks.jsonl --shots 5 --limit 200
  bitnet eval tasks.jsonl --shots 5 --shots-file examples.jsonl --letters
  bitnet eval tasks.jsonl --template 'Q: {{question}}\\nA:' -o answers.jsonl --json
  bitnet eval tasks.jsonl -o answers.jsonl --resume           go on after Ctrl-C or a crash

A task is a file of JSON objects, one a line:
  {\"question\": \"What do bees make?\", \"choices\": [\"honey\", \"milk\"], \"answer\": 0}
  {\"context\": \"The sun rises in the\", \"choices\": [\"east\", \"west\"], \"answer\": \"east\", \"category\": \"world\"}
  {\"question\": \"What is two plus two?\", \"answer\": [\"4\", \"four\"]}

  question, context   one of them or both
  choices             two or more strings; without them the answer is written
  answer              with choices: the number of the right one from 0, its text, or its letter from A;
                      without: the right text, or a list of right texts
  pattern             without choices and answer: a regular expression that the written text must contain
  id, category        may be left out; the id is then the line
  others              for templates, where null prints nothing

A context is the prompt as it is; a question is asked as 'Question: ...', a line break and 'Answer:', behind the context if
there is one. Each choice is put behind the prompt and a space, and its log-likelihood is the sum over its tokens. 'acc'
takes the largest sum, 'acc_norm' the largest over the bytes of the choice, 'acc_token' the largest over its tokens; 'chance'
is what guessing gets. Intervals are Wilson's, 95 %. Written answers are greedy, end at a line break, and are right if they
equal an answer but for white space around them ('exact').

With --output rows are in FILE.part as soon as they are computed, and what is needed to resume is in FILE.journal. A run
that was interrupted, and resumed with the same flags, gives the same file and the same summary as one without interruption.
Exit codes: 0 all rows are answered, 1 the run failed, 2 wrong flags or another run, 130 interrupted.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// Task, JSON objects one a line; `-` reads stdin
    #[arg(value_name = "TASKS")]
    pub(crate) tasks: PathBuf,
    /// Examples before each question: rows of --shots-file, else the first of the task, which are not asked then
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) shots: usize,
    /// Rows to take examples from
    #[arg(long, value_name = "FILE", requires = "shots")]
    pub(crate) shots_file: Option<PathBuf>,
    /// Prompt of a row, a Jinja template over its fields; \n is a line break
    #[arg(long, value_name = "TEXT", conflicts_with = "template_file", value_parser = values::escaped)]
    pub(crate) template: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) template_file: Option<PathBuf>,
    /// List the choices behind letters, and let a letter be chosen
    #[arg(long)]
    pub(crate) letters: bool,
    /// Ask in the form of the model's chat template, with examples as the turns before
    #[arg(long)]
    pub(crate) chat: bool,
    /// What stands between prompt and choice, unless the prompt ends in white space
    #[arg(long, value_name = "TEXT", default_value = " ", value_parser = values::escaped)]
    pub(crate) delimiter: String,
    /// Ask the first N rows only
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) limit: Option<usize>,
    /// Most tokens of a written answer
    #[arg(short = 'n', long, value_name = "N", value_parser = values::positive, default_value = "64")]
    pub(crate) predict: usize,
    /// Text that ends a written answer; may be given again [default: a line break]
    #[arg(long, value_name = "TEXT", value_parser = values::escaped)]
    pub(crate) stop: Vec<String>,
    /// Write what became of each row, JSON objects one a line
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Go on where an interrupted run with the same --output stopped; begins if there was none
    #[arg(long, requires = "output", conflicts_with = "force")]
    pub(crate) resume: bool,
    /// Begin again where a run was interrupted, and lose what it did
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
