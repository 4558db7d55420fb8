//! The tokens that are still in the race, and the steps that thin them out.

use std::cmp::Ordering;

use bitnet_core::lanes;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Its place among the logits, which is the token itself where these are all. Places ascend as tokens do.
    pub(super) place: usize,
    /// Its logit after the penalty.
    pub(super) logit: f32,
    /// `exp((logit - best) / temperature)`, its probability but for the common factor.
    pub(super) weight: f32,
}

/// Higher logits first, of equals the lower token: a total order, for logits that are numbers.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.place.cmp(&b.place))
}

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

/// Fills `out` with all possible tokens in ascending order.
pub(super) fn all(logits: &[f32], out: &mut Vec<Candidate>) {
    out.clear();
    out.reserve(logits.len());
    let possible = logits.iter().enumerate().filter(|(_, l)| **l > f32::NEG_INFINITY);
    out.extend(possible.map(|(place, &logit)| Candidate { place, logit, weight: 0.0 }));
}

/// The weight of a logit beside the best one.
pub(super) fn weight(logit: f32, best: f32, temperature: f32) -> f32 {
    lanes::exp((logit - best) / temperature)
}

/// Sets the weights at a temperature greater than 0.
pub(super) fn set_weights(candidates: &mut [Candidate], best: f32, temperature: f32) {
    for c in candidates {
        c.weight = weight(c.logit, best, temperature);
    }
}

/// Sum of weights, in the order given.
pub(super) fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.weight)).sum()
}

/// How many of the best-first candidates it takes to reach `target` together; `None` if all together do not.
pub(super) fn reach(candidates: &[Candidate], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    candidates.iter().position(|c| {
        sum += f64::from(c.weight);
        sum >= target
    })
}

/// The candidate in whose stretch of the summed weights the number `u` of `[0, 1)` falls.
pub(super) fn draw(candidates: &[Candidate], u: f64) -> Option<usize> {
    let target = u * total(candidates);
    let mut sum = 0.0;
    let hit = candidates.iter().find(|c| {
        sum += f64::from(c.weight);
        sum > target
    });
    hit.or(candidates.last()).map(|c| c.place)
}
