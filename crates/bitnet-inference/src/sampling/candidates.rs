//! The tokens that are still in the race, and the cuts that thin them out.

use std::cmp::Ordering;

use bitnet_core::lanes;

use super::math;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Its place among the logits, which is the token itself where these are all. Places ascend as tokens do.
    pub(super) place: usize,
    /// Its logit after the penalties.
    pub(super) logit: f32,
    /// `exp((logit - best) / temperature)`, its probability but for the common factor.
    pub(super) weight: f32,
}

/// Higher logits first, of equals the lower token: a total order, for logits that are numbers.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.place.cmp(&b.place))
}

/// How many candidates a cut sorts first when it may need them all.
const FIRST_LOOK: usize = 256;

/// Fills `out` with the `k` best of `logits`, best first, fewer if fewer are possible (greater than -inf).
///
/// One pass that keeps what beats the worst of the best so far, and thins out whenever twice as many have gathered: time
/// proportional to the vocabulary and memory proportional to `k`.
pub(super) fn top_k(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let full = k.saturating_mul(2).max(64);
    // How many gather depends on the logits: room for all cases, lest a late token allocate.
    out.reserve(full.min(logits.len()));
    let mut threshold = f32::NEG_INFINITY;
    for (place, &logit) in logits.iter().enumerate() {
        // A later token with the logit of the k-th best would lose to it by its higher place.
        if logit > threshold {
            out.push(Candidate { place, logit, weight: 0.0 });
            if out.len() == full {
                out.select_nth_unstable_by(k - 1, by_rank);
                out.truncate(k);
                threshold = out[k - 1].logit;
            }
        }
    }
    if out.len() > k {
        out.select_nth_unstable_by(k - 1, by_rank);
        out.truncate(k);
    }
    out.sort_unstable_by(by_rank);
}

/// Sum of weights, in the order given.
fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.weight)).sum()
}

/// How many of the candidates, in the order given and less one, it takes to reach `target` together; `None` if all
/// together do not.
fn reach(candidates: &[Candidate], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    candidates.iter().position(|c| {
        sum += f64::from(c.weight);
        sum >= target
    })
}

/// Keeps the first candidates by `order` that reach `target` together. Sorts only as many as it takes.
fn keep_until(
    list: &mut Vec<Candidate>,
    target: f64,
    mut order: impl FnMut(&Candidate, &Candidate) -> Ordering,
) {
    let mut look = FIRST_LOOK;
    loop {
        let head =
            if look < list.len() { list.select_nth_unstable_by(look, &mut order).0 } else { &mut list[..] };
        head.sort_unstable_by(&mut order);
        let (reached, seen) = (reach(head, target), head.len());
        if let Some(last) = reached {
            list.truncate(last + 1);
        }
        if reached.is_some() || seen == list.len() {
            return;
        }
        look *= 8;
    }
}

/// The candidates of one draw and the temperature that acted so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    list: Vec<Candidate>,
    /// Whether the list was filled since the draw began.
    filled: bool,
    /// Whether the list is sorted by rank; else it ascends by place or has another order of its own.
    sorted: bool,
    /// Whether the weights are those of `temperature`.
    weighed: bool,
    temperature: f32,
}

impl Pool {
    /// Begins a draw.
    pub(super) fn begin(&mut self) {
        (self.filled, self.sorted, self.weighed, self.temperature) = (false, false, false, 1.0);
    }

    /// Whether candidates were chosen already, so that the logits they came from no longer count.
    pub(super) fn is_filled(&self) -> bool {
        self.filled
    }

    /// Takes all possible tokens in ascending order, unless there are candidates.
    pub(super) fn fill(&mut self, logits: &[f32]) {
        if self.filled {
            return;
        }
        self.list.clear();
        // How many are possible may change from token to token.
        self.list.reserve(logits.len());
        let possible = logits.iter().enumerate().filter(|(_, l)| **l > f32::NEG_INFINITY);
        self.list.extend(possible.map(|(place, &logit)| Candidate { place, logit, weight: 0.0 }));
        (self.filled, self.sorted, self.weighed) = (true, false, false);
    }

    /// Keeps the `k` best, of all possible tokens if there are no candidates yet.
    pub(super) fn top_k(&mut self, logits: &[f32], k: usize) {
        if !self.filled {
            top_k(logits, k.min(logits.len()), &mut self.list);
            (self.filled, self.sorted, self.weighed) = (true, true, false);
        } else if k < self.list.len() {
            if !self.sorted {
                self.list.select_nth_unstable_by(k - 1, by_rank);
            }
            self.list.truncate(k);
            self.sort();
        }
    }

    /// The candidates with their weights.
    pub(super) fn weighed(&mut self) -> &[Candidate] {
        if !self.weighed {
            let best = self.list.iter().fold(f32::NEG_INFINITY, |best, c| best.max(c.logit));
            for c in &mut self.list {
                c.weight = lanes::exp((c.logit - best) / self.temperature);
            }
            self.weighed = true;
        }
        &self.list
    }

    /// The candidates, to be changed in their logits.
    pub(super) fn logits_mut(&mut self) -> &mut [Candidate] {
        (self.sorted, self.weighed) = (false, false);
        &mut self.list
    }

    /// Best first.
    pub(super) fn sort(&mut self) {
        if !self.sorted {
            self.list.sort_unstable_by(by_rank);
            self.sorted = true;
        }
    }

    /// Divides logits by a temperature greater than 0.
    pub(super) fn set_temperature(&mut self, temperature: f32) {
        (self.temperature, self.weighed) = (temperature, false);
    }

    /// The entropy of the candidates in nats.
    ///
    /// With `x = (logit - best) / temperature` and `z = sum exp x` it is `ln z - sum (x exp x) / z`.
    fn entropy(&mut self) -> f64 {
        let temperature = self.temperature;
        let list = self.weighed();
        let best = list.iter().fold(f32::NEG_INFINITY, |best, c| best.max(c.logit));
        let z = total(list);
        let information = |c: &Candidate| {
            let x = f64::from((c.logit - best) / temperature);
            // Far below the best `x` may be infinite; its weight is 0 then.
            if c.weight == 0.0 { 0.0 } else { f64::from(c.weight) * x }
        };
        math::ln(z) - list.iter().map(information).sum::<f64>() / z
    }

    /// Sets the temperature within `middle` -/+ `range` by the share of the greatest possible entropy. A temperature of 0
    /// keeps the best token alone.
    pub(super) fn dynamic_temperature(&mut self, middle: f32, range: f32, exponent: f32) {
        let (low, high) = (f64::from((middle - range).max(0.0)), f64::from(middle + range));
        let greatest = math::ln(self.list.len() as f64);
        let share = if greatest > 0.0 { (self.entropy() / greatest).clamp(0.0, 1.0) } else { 0.0 };
        let temperature = (low + (high - low) * math::pow(share, f64::from(exponent))) as f32;
        if temperature > 0.0 {
            self.set_temperature(temperature);
        } else if !self.list.is_empty() {
            self.list.select_nth_unstable_by(0, by_rank);
            self.list.truncate(1);
            (self.sorted, self.weighed) = (true, false);
        }
    }

    /// Keeps logits of at least `best - n * sigma`, sigma being the standard deviation of the candidates' logits.
    pub(super) fn top_n_sigma(&mut self, n: f32) {
        let count = self.list.len() as f64;
        let mean = self.list.iter().map(|c| f64::from(c.logit)).sum::<f64>() / count;
        let square = |c: &Candidate| (f64::from(c.logit) - mean) * (f64::from(c.logit) - mean);
        let sigma = (self.list.iter().map(square).sum::<f64>() / count).sqrt();
        let best = self.list.iter().fold(f32::NEG_INFINITY, |best, c| best.max(c.logit));
        let least = f64::from(best) - f64::from(n) * sigma;
        self.list.retain(|c| f64::from(c.logit) >= least);
    }

    /// Keeps the fewest best that have the share `p` of the probability together.
    pub(super) fn top_p(&mut self, p: f32) {
        let target = f64::from(p) * total(self.weighed());
        if self.sorted {
            let last = reach(&self.list, target).unwrap_or(self.list.len());
            self.list.truncate(last + 1);
        } else {
            keep_until(&mut self.list, target, by_rank);
            self.sorted = true;
        }
    }

    /// Keeps those with at least the share `p` of the best one's probability.
    pub(super) fn min_p(&mut self, p: f32) {
        let best = self.weighed().iter().fold(0.0f32, |best, c| best.max(c.weight));
        self.list.retain(|c| c.weight >= p * best);
    }

    /// Keeps the fewest that have the share `p` of the probability together, in the order of the distance of their
    /// information from the entropy, of equals by rank.
    pub(super) fn typical(&mut self, p: f32) {
        let entropy = self.entropy();
        let best = self.list.iter().fold(f32::NEG_INFINITY, |best, c| best.max(c.logit));
        let z = total(&self.list);
        let (temperature, ln_z) = (self.temperature, math::ln(z));
        let distance = |c: &Candidate| (ln_z - f64::from((c.logit - best) / temperature) - entropy).abs();
        let order = |a: &Candidate, b: &Candidate| {
            distance(a).partial_cmp(&distance(b)).unwrap_or(Ordering::Equal).then_with(|| by_rank(a, b))
        };
        keep_until(&mut self.list, f64::from(p) * z, order);
        self.sorted = false;
        self.sort();
    }

    /// Removes those with a probability of at least `threshold`, but keeps the least probable of them.
    pub(super) fn exclude_top(&mut self, threshold: f32) {
        let target = f64::from(threshold) * total(self.weighed());
        self.sort();
        let top = self.list.iter().take_while(|c| f64::from(c.weight) >= target).count();
        if top > 1 {
            self.list.drain(..top - 1);
            // The best one is another now.
            self.weighed = false;
        }
    }

    /// Keeps those that `keep` says of their surprise, `-log2` of the probability; if there are none, the best.
    pub(super) fn retain_surprise(&mut self, keep: impl Fn(f64) -> bool) {
        let surprise = self.surprise();
        let best = self.list.iter().min_by(|a, b| by_rank(a, b)).copied();
        self.list.retain(|c| keep(surprise(c)));
        if let (true, Some(best)) = (self.list.is_empty(), best) {
            self.list.push(best);
        }
    }

    /// Gives the surprise of a candidate among the present ones, in bits.
    pub(super) fn surprise(&mut self) -> impl Fn(&Candidate) -> f64 + use<> {
        let temperature = self.temperature;
        let ln_z = math::ln(total(self.weighed()));
        let best = self.list.iter().fold(f32::NEG_INFINITY, |best, c| best.max(c.logit));
        move |c| (ln_z - f64::from((c.logit - best) / temperature)) / std::f64::consts::LN_2
    }

    /// The candidate in whose stretch of the summed weights the number `u` of `[0, 1)` falls.
    pub(super) fn draw(&mut self, u: f64) -> Option<Candidate> {
        let list = self.weighed();
        let target = u * total(list);
        let mut sum = 0.0;
        let hit = list.iter().find(|c| {
            sum += f64::from(c.weight);
            sum > target
        });
        hit.or(list.last()).copied()
    }
}
