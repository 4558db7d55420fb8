//! [`Pace`]: what steps take, by measurement, and what follows from it for the next one.
//!
//! The time of a forward call is kept by its number of rows. A step in which others generate may also compute as many
//! tokens of prompts as its allowance pays for: each step that generates earns a little less than half of what it would take
//! alone, so that prompts make the time between tokens half as long again and no longer. What was not used is kept, but no
//! more than makes a single step twice as long.

use std::time::Duration;

/// Share of a step's time that prompts may add to it: half, less what attention to a growing prompt takes before it is
/// noticed.
const SHARE: f64 = 0.4;
/// How many steps' time is kept.
const KEPT_STEPS: f64 = 1.0;
/// Seconds that no one notices: prompts may always add so much.
const UNNOTICED: f64 = 0.005;
/// Weight of a new measurement.
const WEIGHT: f64 = 0.25;
/// Steps with prompts after which one without is made, to measure it again.
const MEASURE_AGAIN: usize = 64;
/// Measurements after which all are worth making again.
const UNSETTLED: usize = 1024;
/// Largest numbers of rows of the classes.
const CLASSES: [usize; 26] = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    10,
    12,
    14,
    16,
    20,
    24,
    28,
    32,
    40,
    48,
    64,
    80,
    96,
    128,
    192,
    256,
    512,
    usize::MAX,
];

/// What calls of about the same number of rows take.
#[derive(Debug, Clone, Copy)]
struct Class {
    rows: f64,
    seconds: f64,
    /// Whether it was measured more than once, and not too long ago: a first call may have to find memory.
    settled: bool,
}

/// Measures steps and says how much the next one may compute.
#[derive(Debug, Default)]
pub(super) struct Pace {
    classes: [Option<Class>; CLASSES.len()],
    /// Seconds that prompts may add.
    allowance: f64,
    /// Steps with prompts since the last without.
    mixed: usize,
    /// Measurements so far.
    count: usize,
}

fn class(rows: usize) -> usize {
    CLASSES.partition_point(|&most| most < rows)
}

impl Pace {
    /// Notes that a call of `rows` rows took so long.
    pub(super) fn record(&mut self, rows: usize, time: Duration) {
        self.count += 1;
        if self.count.is_multiple_of(UNSETTLED) {
            self.classes.iter_mut().flatten().for_each(|class| class.settled = false);
        }
        let (rows_now, seconds) = (rows as f64, time.as_secs_f64());
        let place = &mut self.classes[class(rows)];
        *place = Some(match *place {
            None => Class { rows: rows_now, seconds, settled: false },
            Some(old) if !old.settled => {
                // Costs change slowly, with the length of contexts; the first time may have been far off.
                Class { rows: rows_now, seconds: seconds.min(old.seconds), settled: true }
            }
            Some(old) => {
                // A call that was interrupted for long says little.
                let seconds = seconds.min(4.0 * old.seconds);
                Class {
                    settled: true,
                    rows: old.rows + WEIGHT * (rows_now - old.rows),
                    seconds: old.seconds + WEIGHT * (seconds - old.seconds),
                }
            }
        });
    }

    /// Seconds that a call of `rows` rows will take, as far as can be told.
    pub(super) fn predict(&self, rows: usize) -> Option<f64> {
        let rows = rows as f64;
        let known = || self.classes.iter().flatten();
        let below = known().rfind(|c| c.rows <= rows);
        let above = known().find(|c| c.rows >= rows);
        match (below, above) {
            (None, None) => None,
            (Some(b), Some(a)) if a.rows > b.rows => {
                Some(b.seconds + (a.seconds - b.seconds) * (rows - b.rows) / (a.rows - b.rows))
            }
            (Some(c), Some(_)) => Some(c.seconds),
            // Without a larger call each further row is taken to cost what the last ones did.
            (Some(b), None) => {
                let row = match known().rfind(|c| c.rows < b.rows) {
                    Some(before) => ((b.seconds - before.seconds) / (b.rows - before.rows)).max(0.0),
                    None => b.seconds / b.rows,
                };
                Some(b.seconds + row * (rows - b.rows))
            }
            // A smaller call takes as long at most.
            (None, Some(a)) => Some(a.seconds),
        }
    }

    /// Whether a call of so many rows was measured.
    pub(super) fn is_known(&self, rows: usize) -> bool {
        self.classes[class(rows)].is_some_and(|class| class.settled)
    }

    /// Tokens of prompts, at most `most`, that the next step may compute beside `generating` rows, one or more, guesses
    /// included.
    pub(super) fn chunk(&self, generating: usize, most: usize) -> usize {
        if !self.is_known(generating) || self.mixed >= MEASURE_AGAIN {
            return 0;
        }
        let Some(base) = self.predict(generating) else { return 0 };
        let allowed = self.allowance.max(UNNOTICED);
        let fits = |tokens: usize| {
            self.predict(generating + tokens).is_some_and(|seconds| seconds - base <= allowed)
        };
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// Notes what a step took that computed `prompt` tokens of prompts beside `generating` rows.
    pub(super) fn spend(&mut self, generating: usize, prompt: usize, time: Duration) {
        self.mixed = if prompt == 0 { 0 } else { self.mixed + 1 };
        if let Some(base) = self.predict(generating).filter(|_| generating > 0) {
            let added = if prompt == 0 { 0.0 } else { (time.as_secs_f64() - base).max(0.0) };
            // Where a single row costs more than that, it must be paid for all the same.
            let row = self.predict(generating + 1).map_or(0.0, |seconds| seconds - base);
            let kept = (KEPT_STEPS * base).max(row);
            self.allowance = (self.allowance + SHARE * base - added).clamp(-kept, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs steps beside `generating` rows under a law of cost; gives the tokens of prompts of each.
    fn drive(pace: &mut Pace, generating: usize, steps: usize, cost: impl Fn(usize) -> f64) -> Vec<usize> {
        (0..steps)
            .map(|_| {
                let chunk = pace.chunk(generating, 192);
                let time = Duration::from_secs_f64(cost(generating + chunk));
                pace.record(generating + chunk, time);
                pace.spend(generating, chunk, time);
                chunk
            })
            .collect()
    }

    fn mean_growth(chunks: &[usize], generating: usize, cost: impl Fn(usize) -> f64) -> f64 {
        let total: f64 = chunks.iter().map(|&c| cost(generating + c)).sum();
        total / chunks.len() as f64 / cost(generating)
    }

    #[test]
    fn prompts_make_steps_half_as_long_again() {
        // Cheap rows, dear rows, and rows of which a single one costs more than half a step.
        let laws: [&dyn Fn(usize) -> f64; 3] =
            [&|rows| 0.020 + 0.001 * rows as f64, &|rows| 0.016 + 0.010 * rows as f64, &|rows| {
                0.004 + 0.022 * rows as f64
            }];
        for (number, cost) in laws.into_iter().enumerate() {
            for generating in [1, 4, 40] {
                let mut pace = Pace::default();
                let chunks = drive(&mut pace, generating, 400, cost);
                assert_eq!(chunks[0], 0, "the first step is measured alone");
                let growth = mean_growth(&chunks[100..], generating, cost);
                assert!((1.3..=1.52).contains(&growth), "law {number}, {generating} rows: {growth}");
            }
        }
    }

    #[test]
    fn a_prompt_after_a_quiet_time_makes_no_step_more_than_twice_as_long() {
        let cost = |rows: usize| 0.016 + 0.010 * rows as f64;
        let mut pace = Pace::default();
        drive(&mut pace, 1, 50, cost);
        for _ in 0..50 {
            pace.record(1, Duration::from_secs_f64(cost(1)));
            pace.spend(1, 0, Duration::from_secs_f64(cost(1)));
        }
        let chunk = pace.chunk(1, 192);
        assert!(chunk >= 2 && cost(1 + chunk) <= 2.0 * cost(1) + 1e-9, "{chunk}: {pace:?}");
    }

    #[test]
    fn rows_dearer_than_steps_are_paid_for_in_the_end() {
        let cost = |rows: usize| 0.010 + 0.100 * (rows - 1) as f64;
        let chunks = drive(&mut Pace::default(), 1, 200, cost);
        assert!(chunks.iter().sum::<usize>() >= 5, "{chunks:?}");
    }

    #[test]
    fn steps_too_short_to_notice_take_whole_prompts() {
        let cost = |rows: usize| 0.000_1 + 0.000_01 * rows as f64;
        let chunks = drive(&mut Pace::default(), 1, 20, cost);
        assert_eq!(chunks[5..], [192; 15]);
    }

    #[test]
    fn predictions_lie_between_measurements() {
        let mut pace = Pace::default();
        assert_eq!(pace.predict(3), None);
        for (rows, ms) in [(1, 10), (9, 50), (100, 400)] {
            pace.record(rows, Duration::from_millis(ms));
        }
        let near = |rows, want: f64| {
            let got = pace.predict(rows).unwrap();
            assert!((got - want).abs() < 1e-9, "{rows}: {got}");
        };
        near(1, 0.010);
        near(5, 0.030);
        near(9, 0.050);
        near(200, 0.4 + 100.0 * 0.35 / 91.0);
    }
}
