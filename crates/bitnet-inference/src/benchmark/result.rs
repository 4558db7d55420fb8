//! [`BenchmarkResult`]: what was measured, and what follows from it.

use std::time::Duration;

use bitnet_cpu::limits::Limits;

use super::BenchmarkTest;
use super::roofline::{Bound, Work};
use super::statistics::{Latency, Summary};

/// One repetition of a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Repetition {
    /// Time for the prompts of all sequences, to the first token of each.
    pub prompt: Duration,
    /// Time of each forward call of the generation, which gives one token of each sequence.
    pub steps: Vec<Duration>,
    /// Mean of the limits measured right before and after.
    pub limits: Option<Limits>,
}

impl Repetition {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.prompt + self.steps.iter().sum::<Duration>()
    }
}

/// A test that ran at least once.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchmarkResult {
    /// What each repetition did.
    pub test: BenchmarkTest,
    /// What it had to read and multiply at least.
    pub work: Work,
    /// The repetitions, at least one.
    pub repetitions: Vec<Repetition>,
}

impl BenchmarkResult {
    /// Tokens a second of each repetition, over all sequences.
    pub fn samples(&self) -> impl Iterator<Item = f64> + '_ {
        self.repetitions.iter().map(|r| self.test.tokens() as f64 / r.total().as_secs_f64())
    }

    /// Tokens a second, over all sequences.
    pub fn tokens_per_second(&self) -> Summary {
        Summary::of(self.samples()).unwrap_or_default()
    }

    /// Seconds of a repetition.
    pub fn seconds(&self) -> Summary {
        Summary::of(self.repetitions.iter().map(|r| r.total().as_secs_f64())).unwrap_or_default()
    }

    /// Seconds from the prompt to the first token (of the last sequence, if there are several); `None` without a prompt.
    pub fn first_token(&self) -> Option<Summary> {
        if self.test.prompt == 0 {
            return None;
        }
        Summary::of(self.repetitions.iter().map(|r| r.prompt.as_secs_f64()))
    }

    /// How long a generated token took, over all repetitions; `None` without generation.
    pub fn latency(&self) -> Option<Latency> {
        Latency::of(self.repetitions.iter().flat_map(|r| r.steps.iter().copied()))
    }

    /// The machine's limits beside the repetitions, on average.
    pub fn limits(&self) -> Option<Limits> {
        mean(self.repetitions.iter().filter_map(|r| r.limits))
    }

    /// Which part of the speed that the limits allow was reached, each repetition beside its own limits, and which limit
    /// that was. More than 1 is possible: a small model stays in the caches, which read faster than memory.
    pub fn of_limit(&self) -> Option<(Summary, Bound)> {
        let part = |r: &Repetition| Some(self.work.bound(r.limits.as_ref()?).0 / r.total().as_secs_f64());
        let parts = Summary::of(self.repetitions.iter().filter_map(part))?;
        Some((parts, self.work.bound(&self.limits()?).1))
    }

    /// Bytes read a second, as [`Work`] counts them.
    pub fn read_bytes(&self) -> f64 {
        self.work.bytes() / self.seconds().mean
    }

    /// int8 multiply-adds a second, as [`Work`] counts them.
    pub fn macs(&self) -> f64 {
        self.work.macs() / self.seconds().mean
    }
}

/// The mean of limits; without a multiplier if one of them has none.
pub(super) fn mean(limits: impl IntoIterator<Item = Limits>) -> Option<Limits> {
    let (mut count, mut read, mut macs) = (0.0, 0.0, Some(0.0));
    for l in limits {
        count += 1.0;
        read += l.read_bytes;
        macs = macs.zip(l.macs).map(|(a, b)| a + b);
    }
    (count > 0.0).then(|| Limits { read_bytes: read / count, macs: macs.map(|m| m / count) })
}

#[cfg(test)]
mod tests {
    use super::super::roofline::Phase;
    use super::*;

    fn repetition(prompt: u64, steps: &[u64], read: f64) -> Repetition {
        Repetition {
            prompt: Duration::from_secs(prompt),
            steps: steps.iter().map(|&s| Duration::from_secs(s)).collect(),
            limits: Some(Limits { read_bytes: read, macs: Some(1e9) }),
        }
    }

    #[test]
    fn figures_follow_from_times() {
        let result = BenchmarkResult {
            test: BenchmarkTest { prompt: 4, generate: 2, depth: 0, sequences: 2 },
            work: Work {
                prompt: Phase { bytes: 100.0, macs: 10.0 },
                generate: Phase { bytes: 300.0, macs: 5.0 },
            },
            repetitions: vec![repetition(2, &[1, 3], 200.0), repetition(1, &[1, 1], 400.0)],
        };
        let speed = result.tokens_per_second();
        assert_eq!((speed.mean, speed.min, speed.max), (3.0, 2.0, 4.0));
        assert_eq!(result.first_token().unwrap().mean, 1.5);
        assert_eq!(result.latency().unwrap().p50, Duration::from_secs(1));
        assert_eq!(result.limits(), Some(Limits { read_bytes: 300.0, macs: Some(1e9) }));
        // 400 bytes take 2 s of 6 and 1 s of 3.
        let (part, bound) = result.of_limit().unwrap();
        assert!((part.mean - 1.0 / 3.0).abs() < 1e-12 && part.spread < 1e-12, "{part:?}");
        assert_eq!(bound, Bound::Memory);
        assert_eq!(result.read_bytes(), 400.0 / 4.5);
        assert_eq!(result.macs(), 15.0 / 4.5);
    }

    #[test]
    fn without_limits_or_generation_there_is_none() {
        let mut only = repetition(2, &[], 1.0);
        only.limits = None;
        let result = BenchmarkResult {
            test: BenchmarkTest::prompt(8),
            work: Work::default(),
            repetitions: vec![only],
        };
        assert_eq!((result.of_limit(), result.limits(), result.latency()), (None, None, None));
        assert_eq!(result.tokens_per_second().mean, 4.0);
    }

    #[test]
    fn a_mean_without_multiplier_has_none() {
        let limits = |macs| Limits { read_bytes: 2.0, macs };
        assert_eq!(mean([limits(Some(2.0)), limits(None)]), Some(limits(None)));
        assert_eq!(mean([limits(Some(2.0)), limits(Some(4.0))]), Some(limits(Some(3.0))));
        assert_eq!(mean([]), None);
    }
}
