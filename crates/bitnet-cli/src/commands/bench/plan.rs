//! [`Plan`]: which engines are built, and which tests each runs.
//!
//! Lists that were given are combined, as llama-bench does. For a report, what was not given is swept, one thing at a
//! time around a base: all threads, one sequence, an empty context.

use bitnet_core::cpu::CpuFeatures;
use bitnet_inference::benchmark::BenchmarkTest;

use crate::args::BenchArgs;
use crate::args::lists::List;
use crate::error::CliError;

/// Tokens of a prompt and of an answer unless told otherwise.
const PROMPT: usize = 512;
const ANSWER: usize = 128;
/// Batches that a report sweeps.
const BATCHES: [usize; 4] = [1, 2, 4, 8];
/// Deepest context that a report sweeps.
const DEEPEST: usize = 4096;

/// One engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) threads: Option<usize>,
    pub(super) kernels: Option<String>,
    /// Whether sweeps over depth and batch are run on it.
    base: bool,
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) setups: Vec<Setup>,
    prompts: Option<Vec<usize>>,
    answers: Option<Vec<usize>>,
    both: Vec<(usize, usize)>,
    depths: Option<Vec<usize>>,
    batches: Option<Vec<usize>>,
    sweeps: bool,
}

/// All numbers of a flag in the order given, each once; `None` if it was not given.
fn numbers(lists: &[List]) -> Option<Vec<usize>> {
    let mut all: Vec<usize> = Vec::new();
    for &n in lists.iter().flat_map(|list| &list.0) {
        if !all.contains(&n) {
            all.push(n);
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Powers of two up to `most`, and `most`.
fn doubling(most: usize) -> Vec<usize> {
    let mut all: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < most).collect();
    all.push(most);
    all
}

impl Plan {
    pub(super) fn of(args: &BenchArgs) -> Result<Self, CliError> {
        let sweeps = args.report.is_some();
        let threads = match numbers(&args.threads) {
            Some(threads) => threads.into_iter().map(Some).collect(),
            None if sweeps => doubling(CpuFeatures::detect().cores).into_iter().map(Some).collect(),
            None => vec![None],
        };
        let most = threads.iter().max().copied().flatten();
        let kernels: Vec<Option<String>> = match args.kernels.as_slice() {
            [] => vec![None],
            names => names.iter().map(|name| Some(name.trim().to_owned())).collect(),
        };
        let mut setups = Vec::new();
        for kernels in &kernels {
            for &threads in &threads {
                setups.push(Setup { threads, kernels: kernels.clone(), base: threads == most });
            }
        }
        let plan = Self {
            setups,
            prompts: numbers(&args.n_prompt),
            answers: numbers(&args.n_gen),
            both: args.prompt_and_answer.clone(),
            depths: numbers(&args.n_depth),
            batches: numbers(&args.batch),
            sweeps,
        };
        let nothing = |list: &Option<Vec<usize>>| list.as_ref().is_some_and(|l| l.iter().all(|&n| n == 0));
        if nothing(&plan.prompts) && nothing(&plan.answers) && plan.both.is_empty() {
            return Err(CliError::usage("there is nothing to measure: -p and -n are 0"));
        }
        Ok(plan)
    }

    /// Sequences that run together at most.
    pub(super) fn sessions(&self) -> usize {
        let swept = if self.sweeps { &BATCHES[..] } else { &[1] };
        self.batches.as_deref().unwrap_or(swept).iter().copied().max().unwrap_or(1)
    }

    /// Whether batches tell tests apart.
    pub(super) fn shows_batch(&self) -> bool {
        self.sessions() > 1
    }

    /// The tests of one engine whose context holds `context` tokens.
    pub(super) fn tests(&self, setup: &Setup, context: usize) -> Vec<BenchmarkTest> {
        // A report has room for the sweep over depth.
        let most = if self.sweeps { context / 4 } else { usize::MAX };
        let prompts = self.prompts.clone().unwrap_or_else(|| vec![PROMPT.min(most)]);
        let answers = self.answers.clone().unwrap_or_else(|| vec![ANSWER.min(most)]);
        let depths = self.depths.as_deref().unwrap_or(&[0]);
        let batches = self.batches.as_deref().unwrap_or(&[1]);
        let mut tests = Vec::new();
        let mut add = |test: BenchmarkTest| {
            if test.prompt + test.generate > 0 && !tests.contains(&test) {
                tests.push(test);
            }
        };
        for &sequences in batches {
            for &depth in depths {
                for &prompt in &prompts {
                    add(BenchmarkTest { depth, ..BenchmarkTest::prompt(prompt) });
                }
                for &generate in &answers {
                    add(BenchmarkTest { prompt: 0, generate, depth, sequences });
                }
                for &(prompt, generate) in &self.both {
                    add(BenchmarkTest { prompt, generate, depth, sequences });
                }
            }
        }
        if self.sweeps && setup.base {
            self.sweep(&prompts, &answers, context, &mut add);
        }
        tests
    }

    /// What a report adds: depths that were not given with the first batch, batches that were not given at the first depth.
    fn sweep(
        &self,
        prompts: &[usize],
        answers: &[usize],
        context: usize,
        add: &mut impl FnMut(BenchmarkTest),
    ) {
        if self.depths.is_none() {
            let longest = prompts.iter().chain(answers).copied().max().unwrap_or(0);
            let deepest = context.saturating_sub(longest).min(DEEPEST);
            let sequences = self.batches.as_ref().map_or(1, |b| b[0]);
            for depth in [8, 4, 2, 1].map(|part| deepest / part) {
                for &prompt in prompts {
                    add(BenchmarkTest { depth, ..BenchmarkTest::prompt(prompt) });
                }
                for &generate in answers {
                    add(BenchmarkTest { prompt: 0, generate, depth, sequences });
                }
            }
        }
        if self.batches.is_none() {
            let depth = self.depths.as_ref().map_or(0, |d| d[0]);
            for sequences in BATCHES {
                for &generate in answers {
                    add(BenchmarkTest { prompt: 0, generate, depth, sequences });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(flags: &[&str]) -> Result<Plan, CliError> {
        let cli = Cli::parse_from([&["bitnet", "bench", "-m", "x", "-t", "1,2"], flags].concat());
        let Command::Bench(args) = cli.command else { panic!("{cli:?}") };
        Plan::of(&args)
    }

    fn names(flags: &[&str]) -> Vec<String> {
        let plan = plan(flags).unwrap();
        let tests = plan.tests(plan.setups.last().unwrap(), 4096);
        tests.iter().map(|t| format!("{} b{}", t.name(), t.sequences)).collect()
    }

    #[test]
    fn the_default_is_that_of_llama_bench() {
        assert_eq!(names(&[]), ["pp512 b1", "tg128 b1"]);
    }

    #[test]
    fn lists_are_combined_but_prompts_are_not_repeated_for_batches() {
        assert_eq!(
            names(&["-p", "8,8", "-n", "4", "-d", "0,16", "-b", "1,2", "--pg", "3,2"]),
            [
                "pp8 b1",
                "tg4 b1",
                "pp3+tg2 b1",
                "pp8 @ d16 b1",
                "tg4 @ d16 b1",
                "pp3+tg2 @ d16 b1",
                "tg4 b2",
                "pp3+tg2 b2",
                "tg4 @ d16 b2",
                "pp3+tg2 @ d16 b2",
            ]
        );
        assert_eq!(names(&["-p", "0", "-n", "4"]), ["tg4 b1"]);
        assert_eq!(names(&["-p", "0", "-n", "0", "--pg", "3,2"]), ["pp3+tg2 b1"]);
        assert!(plan(&["-p", "0", "-n", "0"]).is_err());
    }

    #[test]
    fn setups_are_kernels_times_threads() {
        let plan = plan(&["--kernels", "scalar,avx2"]).unwrap();
        let setups: Vec<_> = plan.setups.iter().map(|s| (s.kernels.as_deref(), s.threads)).collect();
        assert_eq!(
            setups,
            [
                (Some("scalar"), Some(1)),
                (Some("scalar"), Some(2)),
                (Some("avx2"), Some(1)),
                (Some("avx2"), Some(2))
            ]
        );
        assert!(!plan.shows_batch());
    }

    #[test]
    fn a_report_sweeps_what_was_not_given_on_the_most_threads() {
        let plan = plan(&["--report", "x.html", "-p", "0", "-n", "32"]).unwrap();
        let [one, two] = &plan.setups[..] else { panic!("{plan:?}") };
        assert_eq!(plan.tests(one, 512).len(), 1);
        let tests = plan.tests(two, 512);
        let depths: Vec<usize> = tests.iter().filter(|t| t.sequences == 1).map(|t| t.depth).collect();
        let batches: Vec<usize> = tests.iter().filter(|t| t.depth == 0).map(|t| t.sequences).collect();
        assert_eq!((depths, batches), (vec![0, 60, 120, 240, 480], vec![1, 2, 4, 8]));
        assert!(tests.iter().all(|t| t.context() <= 512));
        assert_eq!(plan.sessions(), 8);
        let given = names(&["--report", "x.html", "-p", "0", "-n", "4", "-d", "0,8", "-b", "2"]);
        assert_eq!(given, ["tg4 b2", "tg4 @ d8 b2"]);
    }

    #[test]
    fn thread_counts_double() {
        assert_eq!(doubling(1), [1]);
        assert_eq!(doubling(2), [1, 2]);
        assert_eq!(doubling(12), [1, 2, 4, 8, 12]);
    }
}
