//! [`Tuner`]: finds the batch size with the highest throughput by trying.

/// Batches after which sizes are tried anew: machines change their speed.
const FORGET_AFTER: u32 = 32;
/// What a larger batch must win to be worth its latency and memory.
const GAIN: f64 = 1.05;
/// The share of a measurement that a newer one keeps.
const INERTIA: f64 = 0.5;

/// Sizes are powers of two, and the largest that is allowed. Climbs while throughput rises, steps back when a smaller
/// size does as well.
#[derive(Debug)]
pub(super) struct Tuner {
    sizes: Vec<usize>,
    /// Items a second of each size.
    speeds: Vec<Option<f64>>,
    level: usize,
    /// Levels from here on did not fit memory.
    ceiling: usize,
    batches: u32,
}

impl Tuner {
    pub(super) fn new(max: usize) -> Self {
        let mut sizes: Vec<usize> = std::iter::successors(Some(1usize), |size| size.checked_mul(2))
            .take_while(|&size| size < max)
            .collect();
        sizes.push(max);
        let (count, level) = (sizes.len(), 2.min(sizes.len() - 1));
        Self { sizes, speeds: vec![None; count], level, ceiling: count, batches: 0 }
    }

    /// The size to use now.
    pub(super) fn size(&self) -> usize {
        self.sizes[self.level]
    }

    /// Items a second at the present size, once measured.
    pub(super) fn speed(&self) -> Option<f64> {
        self.speeds[self.level]
    }

    /// Notes that a batch of `size` items took `seconds`. Only whole batches of the present size teach anything.
    pub(super) fn observe(&mut self, size: usize, seconds: f64) {
        if size != self.size() || seconds.is_nan() || seconds <= 0.0 {
            return;
        }
        let speed = size as f64 / seconds;
        let known = &mut self.speeds[self.level];
        *known = Some(known.map_or(speed, |old| INERTIA * old + (1.0 - INERTIA) * speed));
        let speed = known.unwrap_or(speed);
        self.batches += 1;
        if self.batches >= FORGET_AFTER {
            self.batches = 0;
            self.ceiling = self.sizes.len();
            let level = self.level;
            self.speeds.iter_mut().enumerate().filter(|(i, _)| *i != level).for_each(|(_, s)| *s = None);
        }
        let (above, below) = (self.level + 1, self.level.checked_sub(1).map(|level| self.speeds[level]));
        // What is known to lose to the size below is no reason to try the size above.
        let climbs = below.flatten().is_none_or(|lower| speed > lower * GAIN);
        let rises = |higher: Option<f64>| higher.map_or(climbs, |higher| higher > speed * GAIN);
        if above < self.ceiling && rises(self.speeds[above]) {
            self.level = above;
        } else if below.is_some_and(|lower| lower.is_none_or(|lower| lower * GAIN > speed)) {
            self.level -= 1;
        }
    }

    /// Notes that batches of `size` items do not fit memory.
    pub(super) fn does_not_fit(&mut self, size: usize) {
        let ceiling = self.sizes.iter().position(|&s| s >= size).unwrap_or(self.sizes.len());
        self.ceiling = self.ceiling.min(ceiling).max(1);
        self.level = self.level.min(self.ceiling - 1);
        self.batches = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches whose time `seconds` tells; returns the sizes of the last 12.
    fn run(tuner: &mut Tuner, seconds: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..60 {
            let size = tuner.size();
            sizes.push(size);
            tuner.observe(size, seconds(size));
        }
        sizes.split_off(48)
    }

    /// The size that comes most often.
    fn mode(sizes: &[usize]) -> usize {
        *sizes.iter().max_by_key(|size| sizes.iter().filter(|other| other == size).count()).unwrap()
    }

    #[test]
    fn climbs_to_the_peak_and_follows_it() {
        let mut tuner = Tuner::new(64);
        // A fixed cost for each batch, and beyond a size a growing one: the best throughput is at that size.
        let peak_at = |peak: usize| move |n: usize| 1.0 + n as f64 * if n > peak { 1.0 } else { 0.01 };
        let sizes = run(&mut tuner, peak_at(16));
        assert!(sizes.iter().all(|size| (8..=32).contains(size)), "{sizes:?}");
        assert_eq!(mode(&sizes), 16);
        let sizes = run(&mut tuner, peak_at(4));
        assert_eq!(mode(&sizes), 4, "{sizes:?}");
    }

    #[test]
    fn small_batches_win_where_large_ones_bring_nothing() {
        let mut tuner = Tuner::new(64);
        let sizes = run(&mut tuner, |n| n as f64 * 0.1);
        assert!(sizes.iter().all(|&size| size <= 4), "{sizes:?}");
    }

    #[test]
    fn memory_is_a_ceiling() {
        let mut tuner = Tuner::new(100);
        for _ in 0..20 {
            let size = tuner.size();
            if size > 8 {
                tuner.does_not_fit(size);
            } else {
                tuner.observe(size, 1.0);
            }
        }
        assert_eq!(tuner.size(), 8);
        tuner.does_not_fit(1);
        assert_eq!(tuner.size(), 1);
        assert_eq!(Tuner::new(1).size(), 1);
        assert_eq!(Tuner::new(3).sizes, [1, 2, 3]);
    }
}
