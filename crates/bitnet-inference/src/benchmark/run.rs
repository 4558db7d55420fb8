//! [`InferenceEngine::benchmark_with`]: runs tests on the executor, without text and sampling.

use std::hint::black_box;
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use bitnet_cpu::limits::{Limits, Probe};
use bitnet_model::{Batch, LogitRows, Sequence, TopLogits};

use super::roofline::Work;
use super::{BenchmarkEvent, BenchmarkOptions, BenchmarkResult, BenchmarkTest, Repetition, result};
use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};
use crate::kv::Session;

/// Tokens that a warm-up generates at most.
const WARM_UP_STEPS: usize = 8;

/// Receives what happens; breaking off ends the benchmark.
type OnEvent<'a> = dyn FnMut(BenchmarkEvent<'_>) -> ControlFlow<()> + 'a;

/// Why a test ended early: an error, or whoever listens broke off.
enum Stop {
    Broken,
    Failed(EngineError),
}

impl<E: Into<EngineError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl InferenceEngine {
    /// Runs each test `options.repetitions` times and gives what was measured. All tokens are random, generated ones too:
    /// the best logit is found, but not followed. The context of a test's depth is really computed, once, and kept for
    /// the tests that follow.
    ///
    /// `on_event` hears of progress and results; when it breaks, the result is what was measured so far.
    ///
    /// # Errors
    /// [`EngineError`]: a test that does nothing or does not fit the context, more sequences than the engine was built
    /// for, a failing executor.
    pub fn benchmark_with(
        &self,
        tests: &[BenchmarkTest],
        options: BenchmarkOptions<'_>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Vec<BenchmarkResult>, EngineError> {
        self.check_tests(tests, options.repetitions)?;
        let costs: Vec<u64> = tests.iter().map(|t| cost(t, options.repetitions)).collect();
        let mut runner = Runner {
            engine: self,
            sessions: Vec::new(),
            top: Vec::new(),
            logits: Vec::new(),
            top_k: options.top_k,
            warm_up: options.warm_up,
            random: 0,
            done: 0,
            total: costs.iter().sum(),
            on_event,
        };
        let mut probe = options.probe;
        let mut results = Vec::with_capacity(tests.len());
        let mut planned = 0;
        for (test, cost) in tests.iter().zip(costs) {
            let mut repetitions = Vec::with_capacity(options.repetitions);
            let outcome = runner.test(test, options.repetitions, &mut probe, &mut repetitions);
            if !repetitions.is_empty() {
                let work = Work::of(test, self.spec(), self.info(), runner.top_k == 0);
                let result = BenchmarkResult { test: *test, work, repetitions };
                let flow = (runner.on_event)(BenchmarkEvent::Result(&result));
                results.push(result);
                if flow.is_break() {
                    return Ok(results);
                }
            }
            match outcome {
                Ok(()) => {}
                Err(Stop::Broken) => return Ok(results),
                Err(Stop::Failed(error)) => return Err(error),
            }
            planned += cost;
            runner.done = planned;
        }
        Ok(results)
    }

    fn check_tests(&self, tests: &[BenchmarkTest], repetitions: usize) -> Result<(), EngineError> {
        let refuse =
            |name, allowed| Err(EngineError::from(ParameterError { name, value: "0".to_owned(), allowed }));
        if repetitions == 0 {
            return refuse("repetitions", "1 or more");
        }
        for test in tests {
            if test.sequences == 0 {
                return refuse("sequences", "1 or more");
            }
            if test.prompt == 0 && test.generate == 0 {
                return refuse("prompt + generate", "1 or more tokens");
            }
            if test.context() > self.context() {
                let (asked, limit) = (test.context(), self.context());
                return Err(EngineError::ContextTooLong { asked, limit, model: self.model().name.clone() });
            }
        }
        Ok(())
    }
}

/// Tokens that a test computes at most.
fn cost(test: &BenchmarkTest, repetitions: usize) -> u64 {
    let once = (test.prompt + test.generate) as u64;
    test.sequences as u64 * (test.depth as u64 + once * (repetitions as u64 + 1))
}

/// The sequences of a benchmark and their memory.
struct Runner<'a, 'e> {
    engine: &'a InferenceEngine,
    sessions: Vec<Session>,
    top: Vec<TopLogits>,
    logits: Vec<f32>,
    /// 0 computes all logits.
    top_k: usize,
    warm_up: bool,
    /// Counts random numbers.
    random: u64,
    /// Tokens computed, and those planned.
    done: u64,
    total: u64,
    on_event: &'a mut OnEvent<'e>,
}

impl Runner<'_, '_> {
    /// Runs one test, as often as asked for.
    fn test(
        &mut self,
        test: &BenchmarkTest,
        repetitions: usize,
        probe: &mut Option<&mut Probe>,
        into: &mut Vec<Repetition>,
    ) -> Result<(), Stop> {
        self.sessions.truncate(test.sequences);
        while self.sessions.len() < test.sequences {
            self.sessions.push(self.engine.scratch_session());
        }
        for index in 0..test.sequences {
            self.sessions[index].truncate(test.depth);
            self.prefill(index, test.depth, false)?;
        }
        if self.warm_up {
            let steps = test.generate.min(WARM_UP_STEPS);
            self.repetition(&BenchmarkTest { generate: steps, ..*test })?;
        }
        let mut before = self.limits(probe)?;
        for _ in 0..repetitions {
            if self.warm_up {
                // Measuring the limits emptied the caches.
                self.rewind(test.depth);
                self.step()?;
            }
            let mut repetition = self.repetition(test)?;
            let after = self.limits(probe)?;
            repetition.limits = result::mean(before.into_iter().chain(after));
            before = after;
            into.push(repetition);
        }
        Ok(())
    }

    fn limits(&self, probe: &mut Option<&mut Probe>) -> Result<Option<Limits>, Stop> {
        let info = self.engine.info();
        match probe {
            Some(probe) => Ok(Some(probe.measure(info.threads, info.kernels)?)),
            None => Ok(None),
        }
    }

    /// Makes all sequences as long as they were before.
    fn rewind(&mut self, depth: usize) {
        for session in &mut self.sessions {
            session.truncate(depth);
        }
    }

    fn repetition(&mut self, test: &BenchmarkTest) -> Result<Repetition, Stop> {
        self.rewind(test.depth);
        let mut steps = Vec::with_capacity(test.generate);
        for session in &mut self.sessions {
            session.reserve(test.prompt + test.generate);
        }
        let start = Instant::now();
        if test.prompt > 0 {
            for index in 0..self.sessions.len() {
                self.prefill(index, test.depth + test.prompt, true)?;
            }
        }
        let prompt = if test.prompt > 0 { start.elapsed() } else { Duration::ZERO };
        for _ in 0..test.generate {
            let start = Instant::now();
            self.step()?;
            steps.push(start.elapsed());
            self.progress(self.sessions.len())?;
        }
        Ok(Repetition { prompt, steps, limits: None })
    }

    /// Makes one sequence `end` tokens long by random tokens, computed in the chunks that the executor likes; with the
    /// token after the last if `first` is set.
    fn prefill(&mut self, index: usize, end: usize, first: bool) -> Result<(), Stop> {
        let chunk = self.engine.info().max_batch_tokens.max(1);
        while self.sessions[index].computed() < end {
            let start = self.sessions[index].computed();
            let next = end.min(start + chunk);
            while self.sessions[index].tokens().len() < next {
                let token = self.random_token();
                self.sessions[index].push(token);
            }
            self.forward(index..index + 1, first && next == end)?;
            self.progress(next - start)?;
        }
        Ok(())
    }

    /// Computes one more token of every sequence, and which would follow.
    fn step(&mut self) -> Result<(), Stop> {
        for index in 0..self.sessions.len() {
            let token = self.random_token();
            self.sessions[index].push(token);
        }
        self.forward(0..self.sessions.len(), true)
    }

    /// Computes all waiting tokens of some sequences in one call.
    fn forward(&mut self, range: Range<usize>, logits: bool) -> Result<(), Stop> {
        let vocab = self.engine.spec().vocab_size;
        let backend = &mut *self.engine.backend();
        for session in &mut self.sessions[range.clone()] {
            session.cover(session.tokens().len())?;
        }
        self.engine.reserve_memory(backend)?;
        let want = if logits { LogitRows::Last } else { LogitRows::None };
        let sequences: Vec<Sequence<'_>> = self.sessions[range.clone()]
            .iter()
            .map(|s| Sequence {
                tokens: &s.tokens()[s.computed()..],
                position: s.computed(),
                blocks: s.blocks(),
                logits: want,
            })
            .collect();
        let batch = Batch { sequences: &sequences };
        let rows = batch.logit_rows();
        if rows > 0 && self.top_k > 0 {
            if self.top.len() < rows {
                self.top.resize(rows, TopLogits::default());
            }
            let top = &mut self.top[..rows];
            backend.executor().forward_top(&batch, self.top_k, top)?;
            black_box(top.iter().filter_map(|top| best(&top.logits)).max());
            if top.iter().all(|top| top.ids.len() == vocab) {
                // The executor gave all there is: from now on without the copy.
                (self.top_k, self.top) = (0, Vec::new());
            }
        } else {
            self.logits.resize(rows * vocab, 0.0);
            backend.executor().forward(&batch, &mut self.logits)?;
            black_box(self.logits.chunks_exact(vocab).filter_map(best).max());
        }
        for session in &mut self.sessions[range] {
            session.set_computed(session.tokens().len());
        }
        Ok(())
    }

    fn progress(&mut self, tokens: usize) -> Result<(), Stop> {
        self.done += tokens as u64;
        let event = BenchmarkEvent::Progress { done: self.done.min(self.total), total: self.total };
        if (self.on_event)(event).is_break() { Err(Stop::Broken) } else { Ok(()) }
    }

    /// The same sequence of tokens in every benchmark of a model.
    fn random_token(&mut self) -> u32 {
        self.random += 1;
        let mut z = self.random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z >> 32) % self.engine.spec().vocab_size as u64) as u32
    }
}

/// Index of the largest logit: what taking the best token costs.
fn best(logits: &[f32]) -> Option<usize> {
    let best = bitnet_core::lanes::max(logits);
    logits.iter().position(|&l| l == best)
}
