//! Grades from A+ to D.
//!
//! Four things are graded, each with a weight, and their weighted sum is graded again:
//!
//! | graded | weight | A+ | A | B | C |
//! |---|---|---|---|---|---|
//! | throughput: operations/s of one BitLinear, one row of 768 x 768, one thread | 40 % | > 300,000 | ≥ 200,000 | ≥ 100,000 | ≥ 50,000 |
//! | latency: median time of a token | 40 % | < 1 ms | < 2 ms | < 5 ms | < 10 ms |
//! | memory: resident beside the weights | 15 % | < 50 MB | < 100 MB | < 200 MB | < 500 MB |
//! | batch: tokens/s of eight sequences together, over those of one | 5 % | ≥ 4.5 | ≥ 3 | ≥ 2 | ≥ 1.3 |
//!
//! Below C is D. A+ is 100 points, A 90, B 75, C 60 and D 40; the sum is A+ from 95 points on, A from 85, B from 70, C
//! from 50.

use std::ops::ControlFlow;

use bitnet_core::process;

use super::operations::{OperationsOptions, operations};
use super::{BenchmarkEvent, BenchmarkOptions, BenchmarkTest};
use crate::engine::InferenceEngine;
use crate::error::EngineError;

/// Sequences that the batch is graded with.
pub const BATCH: usize = 8;
/// Tokens that are generated for a figure.
const TOKENS: usize = 64;
/// Repetitions of each figure.
const REPETITIONS: usize = 5;

/// A grade; a better one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Poor.
    D,
    /// Usable.
    C,
    /// Good.
    B,
    /// Very good.
    A,
    /// As it should be.
    APlus,
}

impl std::fmt::Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::APlus => "A+",
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
        })
    }
}

impl Grade {
    /// Points of this grade in the sum.
    pub fn points(self) -> f64 {
        match self {
            Self::APlus => 100.0,
            Self::A => 90.0,
            Self::B => 75.0,
            Self::C => 60.0,
            Self::D => 40.0,
        }
    }

    /// Of operations a second.
    pub fn of_throughput(operations: f64) -> Self {
        match operations {
            o if o > 300_000.0 => Self::APlus,
            o if o >= 200_000.0 => Self::A,
            o if o >= 100_000.0 => Self::B,
            o if o >= 50_000.0 => Self::C,
            _ => Self::D,
        }
    }

    /// Of milliseconds a token.
    pub fn of_latency(ms: f64) -> Self {
        Self::below(ms, [1.0, 2.0, 5.0, 10.0])
    }

    /// Of bytes beside the weights; a megabyte is a million bytes.
    pub fn of_memory(bytes: f64) -> Self {
        Self::below(bytes / 1e6, [50.0, 100.0, 200.0, 500.0])
    }

    /// Of the gain of a batch of [`BATCH`] sequences.
    pub fn of_batch(gain: f64) -> Self {
        match gain {
            g if g >= 4.5 => Self::APlus,
            g if g >= 3.0 => Self::A,
            g if g >= 2.0 => Self::B,
            g if g >= 1.3 => Self::C,
            _ => Self::D,
        }
    }

    /// Of points.
    pub fn of_points(points: f64) -> Self {
        match points {
            p if p >= 95.0 => Self::APlus,
            p if p >= 85.0 => Self::A,
            p if p >= 70.0 => Self::B,
            p if p >= 50.0 => Self::C,
            _ => Self::D,
        }
    }

    fn below(value: f64, limits: [f64; 4]) -> Self {
        let grades = [Self::APlus, Self::A, Self::B, Self::C];
        limits.into_iter().zip(grades).find(|(limit, _)| value < *limit).map_or(Self::D, |(_, grade)| grade)
    }
}

/// One graded figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Graded {
    /// What it is: `throughput`, `latency`, `memory`, `batch`.
    pub name: &'static str,
    /// Its part of the sum, 0 to 1.
    pub weight: f64,
    /// What was measured.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The grade.
    pub grade: Grade,
}

/// All grades. A figure that the system does not give is missing, and the others weigh more.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The graded figures.
    pub parts: Vec<Graded>,
}

impl Score {
    /// Grades figures: operations a second, milliseconds a token, bytes beside the weights if known, gain of a batch.
    pub fn of(operations: f64, ms: f64, bytes: Option<f64>, gain: f64) -> Self {
        let part = |name, weight, value, unit, grade| Graded { name, weight, value, unit, grade };
        let mut parts = vec![
            part("throughput", 0.40, operations, "operations/s", Grade::of_throughput(operations)),
            part("latency", 0.40, ms, "ms a token", Grade::of_latency(ms)),
        ];
        parts.extend(
            bytes.map(|b| part("memory", 0.15, b / 1e6, "MB beside the weights", Grade::of_memory(b))),
        );
        parts.push(part("batch", 0.05, gain, "times the speed at batch 8", Grade::of_batch(gain)));
        Self { parts }
    }

    /// The weighted sum, 0 to 100.
    pub fn points(&self) -> f64 {
        let weights: f64 = self.parts.iter().map(|p| p.weight).sum();
        self.parts.iter().map(|p| p.weight * p.grade.points()).sum::<f64>() / weights
    }

    /// The grade of the sum.
    pub fn grade(&self) -> Grade {
        Grade::of_points(self.points())
    }
}

/// Grades this machine with `engine`, which is to run the bundled model for figures that can be compared, and to have
/// room for [`BATCH`] sessions. The throughput is that of the engine's kernel set. `on_progress` gets the part done, 0 to 1, and breaks off; there is no score then.
///
/// # Errors
/// As [`InferenceEngine::benchmark`] and [`operations`].
pub fn score(
    engine: &InferenceEngine,
    on_progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Option<Score>, EngineError> {
    let generate = |sequences| BenchmarkTest { sequences, ..BenchmarkTest::generate(TOKENS) };
    let mut broken = false;
    let mut run = |test, from: f64, to: f64| -> Result<_, EngineError> {
        let options = BenchmarkOptions { repetitions: REPETITIONS, ..BenchmarkOptions::default() };
        let mut results = engine.benchmark_with(&[test], options, &mut |event| {
            let BenchmarkEvent::Progress { done, total } = event else { return ControlFlow::Continue(()) };
            let flow = on_progress(from + (to - from) * done as f64 / total.max(1) as f64);
            broken |= flow.is_break();
            flow
        })?;
        Ok(results.pop().filter(|_| !broken))
    };
    let Some(one) = run(generate(1), 0.0, 0.3)? else { return Ok(None) };
    let weights = engine.info().weight_bytes.as_bytes();
    let beside = process::peak_resident().map(|peak| peak.as_bytes().saturating_sub(weights) as f64);
    let Some(many) = run(generate(BATCH), 0.3, 0.7)? else { return Ok(None) };
    let options = OperationsOptions {
        kernels: vec![engine.info().kernels.to_owned()],
        limits: false,
        ..OperationsOptions::default()
    };
    let mut broken = false;
    let throughput = operations(&options, &mut |done, total| {
        let flow = on_progress(0.7 + 0.3 * done as f64 / total as f64);
        broken |= flow.is_break();
        flow
    })?;
    let Some(throughput) = throughput.first().filter(|_| !broken) else { return Ok(None) };
    let ms = one.latency().map_or(f64::INFINITY, |latency| latency.p50.as_secs_f64() * 1e3);
    let gain = many.tokens_per_second().median / one.tokens_per_second().median;
    Ok(Some(Score::of(throughput.per_second.median, ms, beside, gain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_of_throughput() {
        for (value, grade) in [
            (300_001.0, Grade::APlus),
            (300_000.0, Grade::A),
            (200_000.0, Grade::A),
            (199_999.0, Grade::B),
            (100_000.0, Grade::B),
            (99_999.0, Grade::C),
            (50_000.0, Grade::C),
            (49_999.0, Grade::D),
            (f64::NAN, Grade::D),
        ] {
            assert_eq!(Grade::of_throughput(value), grade, "{value}");
        }
    }

    #[test]
    fn thresholds_of_latency_and_memory() {
        let cases = [
            (0.999, Grade::APlus),
            (1.0, Grade::A),
            (1.999, Grade::A),
            (2.0, Grade::B),
            (4.999, Grade::B),
            (5.0, Grade::C),
            (9.999, Grade::C),
            (10.0, Grade::D),
            (f64::INFINITY, Grade::D),
        ];
        for (value, grade) in cases {
            assert_eq!(Grade::of_latency(value), grade, "{value} ms");
        }
        let cases = [
            (49.9, Grade::APlus),
            (50.0, Grade::A),
            (100.0, Grade::B),
            (199.9, Grade::B),
            (200.0, Grade::C),
            (499.9, Grade::C),
            (500.0, Grade::D),
        ];
        for (value, grade) in cases {
            assert_eq!(Grade::of_memory(value * 1e6), grade, "{value} MB");
        }
    }

    #[test]
    fn thresholds_of_the_batch_and_the_sum() {
        for (value, grade) in [
            (4.5, Grade::APlus),
            (4.49, Grade::A),
            (3.0, Grade::A),
            (2.0, Grade::B),
            (1.3, Grade::C),
            (1.29, Grade::D),
        ] {
            assert_eq!(Grade::of_batch(value), grade, "{value}");
        }
        for (value, grade) in [
            (95.0, Grade::APlus),
            (94.9, Grade::A),
            (85.0, Grade::A),
            (70.0, Grade::B),
            (50.0, Grade::C),
            (49.0, Grade::D),
        ] {
            assert_eq!(Grade::of_points(value), grade, "{value}");
        }
    }

    #[test]
    fn the_sum_is_weighted() {
        let best = Score::of(400_000.0, 0.3, Some(10e6), 6.0);
        assert!((best.points() - 100.0).abs() < 1e-9 && best.grade() == Grade::APlus);
        let worst = Score::of(1.0, 100.0, Some(9e9), 0.5);
        assert!((worst.points() - 40.0).abs() < 1e-9 && worst.grade() == Grade::D);
        // 0.4 * 90 + 0.4 * 75 + 0.15 * 60 + 0.05 * 40
        let mixed = Score::of(250_000.0, 3.0, Some(300e6), 1.0);
        assert!((mixed.points() - 77.0).abs() < 1e-9 && mixed.grade() == Grade::B);
        let unknown = Score::of(400_000.0, 0.3, None, 1.0);
        assert_eq!(unknown.parts.len(), 3);
        assert!((unknown.points() - (0.8 * 100.0 + 0.05 * 40.0) / 0.85).abs() < 1e-9);
    }
}
