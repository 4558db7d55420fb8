//! [`Summary`] of repeated measurements, and percentiles.

use std::time::Duration;

/// Mean, spread and order statistics of some measurements.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// How many there were.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Standard deviation of the sample (`n - 1`), 0 for a single one.
    pub spread: f64,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of these values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let spread = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        Some(Self { count, mean, spread, min, median: percentile(&values, 50.0), max })
    }
}

/// Percentile `p` (0 to 100) of ascending values, linear between the two nearest; 0 if there are none.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = (p / 100.0).clamp(0.0, 1.0) * last as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * part
}

/// How long single tokens took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// Half of them took at most so long.
    pub p50: Duration,
    /// 95 of 100.
    pub p95: Duration,
    /// 99 of 100.
    pub p99: Duration,
}

impl Latency {
    /// Of these times; `None` if there are none.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut seconds: Vec<f64> = times.into_iter().map(|t| t.as_secs_f64()).collect();
        if seconds.is_empty() {
            return None;
        }
        seconds.sort_by(f64::total_cmp);
        let at = |p| Duration::from_secs_f64(percentile(&seconds, p));
        Some(Self { p50: at(50.0), p95: at(95.0), p99: at(99.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_known_values() {
        let s = Summary::of([4.0, 2.0, 6.0]).unwrap();
        let expected = Summary { count: 3, mean: 4.0, spread: 2.0, min: 2.0, median: 4.0, max: 6.0 };
        assert_eq!(s, expected);
        let one = Summary::of([5.0]).unwrap();
        assert_eq!((one.mean, one.spread, one.median), (5.0, 0.0, 5.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn percentiles_of_known_values() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        for p in [0.0, 50.0, 95.0, 99.0, 100.0] {
            assert_eq!(percentile(&values, p), p);
        }
        assert_eq!(percentile(&[1.0, 2.0], 50.0), 1.5);
        assert_eq!(percentile(&[1.0, 3.0, 100.0], 75.0), 51.5);
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
        assert_eq!(percentile(&[1.0, 2.0], 400.0), 2.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }

    #[test]
    fn latencies_are_sorted_first() {
        let times = (1..=101).rev().map(Duration::from_secs);
        let latency = Latency::of(times).unwrap();
        assert_eq!(latency.p50, Duration::from_secs(51));
        assert_eq!(latency.p95, Duration::from_secs(96));
        assert_eq!(latency.p99, Duration::from_secs(100));
        assert_eq!(Latency::of([]), None);
    }
}
