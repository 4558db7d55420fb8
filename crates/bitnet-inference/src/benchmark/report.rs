//! [`BenchmarkPlan`] and [`BenchmarkReport`]: a benchmark in one call, and its figures as a table.

use std::fmt;
use std::ops::ControlFlow;

use super::{BenchmarkOptions, BenchmarkResult, BenchmarkTest, Probe};
use crate::background::{self, Cancel};
use crate::engine::InferenceEngine;
use crate::error::EngineError;

/// What to measure, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchmarkPlan {
    /// The tests.
    pub tests: Vec<BenchmarkTest>,
    /// Repetitions of each.
    pub repetitions: usize,
    /// Whether to run each test once in part before it is timed.
    pub warm_up: bool,
    /// How many of the best logits a token needs; 0 computes all.
    pub top_k: usize,
    /// Whether to measure the machine's limits between the repetitions, which takes 256 MiB of memory and more. What memory
    /// delivers then shows up in [`memory_stats`](InferenceEngine::memory_stats) too.
    pub limits: bool,
}

impl Default for BenchmarkPlan {
    /// A prompt of 128 tokens and 32 generated tokens, three times each, with the machine's limits.
    fn default() -> Self {
        let tests = vec![BenchmarkTest::prompt(128), BenchmarkTest::generate(32)];
        Self { tests, repetitions: 3, warm_up: true, top_k: 40, limits: true }
    }
}

/// What a benchmark measured. [`Display`](fmt::Display) writes a table.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchmarkReport {
    /// Name of the model.
    pub model: String,
    /// What it ran on.
    pub device: String,
    /// One result a test.
    pub results: Vec<BenchmarkResult>,
}

impl BenchmarkReport {
    /// The report as a table, for people: one line a test with tokens a second, their spread, the time of a token, and the
    /// part of what the machine allows.
    pub fn display(&self) -> impl fmt::Display + '_ {
        self
    }
}

impl fmt::Display for BenchmarkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}", self.model, self.device)?;
        writeln!(f, "{:<24} {:>12} {:>9} {:>12} {:>9}", "test", "tokens/s", "+/-", "ms/token", "of limit")?;
        for result in &self.results {
            let speed = result.tokens_per_second();
            let milliseconds = result.seconds().mean * 1e3 / result.test.tokens() as f64;
            let part = result.of_limit().map_or_else(
                || "-".to_owned(),
                |(part, bound)| format!("{:.0} % {bound:?}", part.mean * 100.0).to_lowercase(),
            );
            let name = match result.test.sequences {
                1 => result.test.name(),
                count => format!("{} x {count}", result.test.name()),
            };
            let spread = format!("{:.1}", speed.spread);
            writeln!(f, "{name:<24} {:>12.1} {spread:>9} {milliseconds:>12.3} {part:>9}", speed.mean)?;
        }
        Ok(())
    }
}

impl InferenceEngine {
    /// Measures how fast the model runs here, on a thread of its own. Dropping the future ends it within a forward call.
    ///
    /// ```
    /// use bitnet_inference::benchmark::{BenchmarkPlan, BenchmarkTest};
    /// # use bitnet_inference::{EngineError, InferenceEngine};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), EngineError> {
    /// # let engine = InferenceEngine::bundled().threads(1).build()?;
    /// let tests = vec![BenchmarkTest::prompt(8), BenchmarkTest::generate(2)];
    /// let plan = BenchmarkPlan { tests, repetitions: 1, limits: false, ..BenchmarkPlan::default() };
    /// let report = engine.benchmark(plan).await?;
    /// println!("{}", report.display());
    /// # assert!(report.to_string().contains("tg2"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`benchmark_with`](Self::benchmark_with); if the system starts no thread.
    pub async fn benchmark(&self, plan: BenchmarkPlan) -> Result<BenchmarkReport, EngineError> {
        let engine = self.clone();
        background::run(move |cancel| engine.run_plan(&plan, cancel)).await
    }

    /// As [`benchmark`](Self::benchmark), blocking this thread.
    ///
    /// # Errors
    /// As [`benchmark_with`](Self::benchmark_with).
    pub fn benchmark_blocking(&self, plan: &BenchmarkPlan) -> Result<BenchmarkReport, EngineError> {
        self.run_plan(plan, &Cancel::new())
    }

    fn run_plan(&self, plan: &BenchmarkPlan, cancel: &Cancel) -> Result<BenchmarkReport, EngineError> {
        let mut probe = if plan.limits { Some(Probe::new()?) } else { None };
        let options = BenchmarkOptions {
            repetitions: plan.repetitions,
            warm_up: plan.warm_up,
            top_k: plan.top_k,
            probe: probe.as_mut(),
        };
        let results = self.benchmark_with(&plan.tests, options, &mut |_| {
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(limits) = results.iter().filter_map(BenchmarkResult::limits).next_back() {
            self.memory().record_bandwidth(limits.read_bytes);
        }
        let (model, device) = (self.model().name.clone(), self.info().description.clone());
        Ok(BenchmarkReport { model, device, results })
    }
}
