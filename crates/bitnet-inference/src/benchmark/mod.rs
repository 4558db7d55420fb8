//! How fast a model runs on this machine, beside what the machine could do.
//!
//! * [`InferenceEngine::benchmark`](crate::InferenceEngine::benchmark): a [`BenchmarkPlan`] in, a [`BenchmarkReport`] out,
//!   which displays itself.
//! * [`InferenceEngine::benchmark_with`](crate::InferenceEngine::benchmark_with): prompts and generation, at any depth of the
//!   context, of one or several sequences together; [`BenchmarkTest`] in, [`BenchmarkResult`] out.
//! * [`roofline`]: what a test must read and multiply at least.
//! * [`operations`](mod@operations): how many products of one BitLinear layer a second.
//! * [`score`](mod@score): grades.
//! * [`statistics`]: means, spreads, percentiles.
//!
//! Machines are noisy and change their speed: a [`Probe`] measures their limits between the repetitions, and every
//! repetition is held against the limits measured before and after it.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use bitnet_inference::benchmark::{BenchmarkOptions, BenchmarkTest, Probe};
//! # fn engine() -> bitnet_inference::InferenceEngine { unreachable!() }
//!
//! let mut probe = Probe::new()?;
//! let options = BenchmarkOptions { probe: Some(&mut probe), ..BenchmarkOptions::default() };
//! let tests = [BenchmarkTest::prompt(512), BenchmarkTest::generate(128)];
//! for result in engine().benchmark_with(&tests, options, &mut |_| ControlFlow::Continue(()))? {
//!     let speed = result.tokens_per_second();
//!     println!("{}: {:.1} ± {:.1} tokens/s", result.test.name(), speed.mean, speed.spread);
//! }
//! # Ok::<(), bitnet_inference::EngineError>(())
//! ```

pub mod operations;
mod report;
mod result;
pub mod roofline;
mod run;
pub mod score;
pub mod statistics;

pub use bitnet_cpu::limits::{Limits, Probe};
pub use report::{BenchmarkPlan, BenchmarkReport};
pub use result::{BenchmarkResult, Repetition};

/// What one repetition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BenchmarkTest {
    /// Tokens of the prompt of each sequence, computed in large chunks.
    pub prompt: usize,
    /// Tokens that each sequence generates after that, one forward call for all sequences each.
    pub generate: usize,
    /// Tokens that are in the context already; computed once, not timed.
    pub depth: usize,
    /// Sequences that run together.
    pub sequences: usize,
}

impl BenchmarkTest {
    /// A prompt of so many tokens.
    pub fn prompt(tokens: usize) -> Self {
        Self { prompt: tokens, generate: 0, depth: 0, sequences: 1 }
    }

    /// Generation of so many tokens.
    pub fn generate(tokens: usize) -> Self {
        Self { prompt: 0, generate: tokens, depth: 0, sequences: 1 }
    }

    /// Tokens of one sequence at the end.
    pub fn context(&self) -> usize {
        self.depth.saturating_add(self.prompt).saturating_add(self.generate)
    }

    /// Tokens that are computed and timed, over all sequences.
    pub fn tokens(&self) -> usize {
        (self.prompt + self.generate) * self.sequences
    }

    /// A name like `pp512`, `tg128 @ d1024` or `pp512+tg128`. It does not tell the number of sequences.
    pub fn name(&self) -> String {
        let mut name = match (self.prompt, self.generate) {
            (p, 0) => format!("pp{p}"),
            (0, g) => format!("tg{g}"),
            (p, g) => format!("pp{p}+tg{g}"),
        };
        if self.depth > 0 {
            name += &format!(" @ d{}", self.depth);
        }
        name
    }
}

/// How to measure.
#[derive(Debug)]
pub struct BenchmarkOptions<'a> {
    /// Repetitions of each test.
    pub repetitions: usize,
    /// Whether to run each test once in part before it is timed.
    pub warm_up: bool,
    /// How many of the best logits a token needs: what sampling from the `k` best asks for. 0 computes all logits.
    pub top_k: usize,
    /// Measures the machine's limits between the repetitions.
    pub probe: Option<&'a mut Probe>,
}

impl Default for BenchmarkOptions<'_> {
    /// Five repetitions, warm, sampling from the 40 best, without limits.
    fn default() -> Self {
        Self { repetitions: 5, warm_up: true, top_k: 40, probe: None }
    }
}

/// What a benchmark tells while it runs; whoever hears it can break off.
#[derive(Debug)]
pub enum BenchmarkEvent<'a> {
    /// So many of so many tokens are done.
    Progress {
        /// Tokens done.
        done: u64,
        /// Tokens in all.
        total: u64,
    },
    /// A test is done, or was broken off after at least one repetition.
    Result(&'a BenchmarkResult),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_llama_bench() {
        assert_eq!(BenchmarkTest::prompt(512).name(), "pp512");
        assert_eq!(BenchmarkTest { depth: 1024, ..BenchmarkTest::generate(128) }.name(), "tg128 @ d1024");
        let both = BenchmarkTest { prompt: 8, generate: 4, depth: 0, sequences: 3 };
        assert_eq!((both.name().as_str(), both.tokens(), both.context()), ("pp8+tg4", 36, 12));
    }
}
