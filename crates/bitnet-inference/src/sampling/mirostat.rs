//! [`Control`]: mirostat, which steers the surprise of the text.
//!
//! Basu, Ramachandran, Keskar and Varshney, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
//! Perplexity" (ICLR 2021). The surprise that is fed back is that of the token under the model's distribution, as in the
//! paper, not under what the cut left of it.

use super::candidates::{Candidate, Pool};
use super::math;
use super::{Mirostat, SamplingParams};

/// How many of the best tokens version 1 fits its Zipf distribution to.
const FITTED: usize = 100;

/// The state of the control: the most surprise that is let through, in bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Control {
    pub(super) bound: f64,
}

impl Control {
    pub(super) fn new(p: &SamplingParams) -> Self {
        Self { bound: 2.0 * f64::from(p.mirostat_tau) }
    }

    /// Cuts the candidates, draws one with the random number `u` and corrects the bound.
    pub(super) fn draw(
        &mut self,
        p: &SamplingParams,
        pool: &mut Pool,
        fitted: &mut Vec<Candidate>,
        u: f64,
    ) -> Option<Candidate> {
        // Surprises are relative to all, so this comes before the cut.
        let surprise = pool.surprise();
        match p.mirostat {
            Mirostat::V1 => {
                let k = zipf_count(pool.weighed(), &surprise, fitted, self.bound);
                pool.top_k(&[], k);
            }
            Mirostat::V2 | Mirostat::Off => {
                let bound = self.bound;
                pool.retain_surprise(|s| s <= bound);
            }
        }
        let drawn = pool.draw(u)?;
        self.bound -= f64::from(p.mirostat_eta) * (surprise(&drawn) - f64::from(p.mirostat_tau));
        Some(drawn)
    }
}

/// How many of the best tokens have a cross entropy of `bound` bits, if probabilities fall as in a Zipf distribution
/// whose exponent is estimated from the best ones (the paper's equations 30 and 4.2).
fn zipf_count(
    list: &[Candidate],
    surprise: impl Fn(&Candidate) -> f64,
    fitted: &mut Vec<Candidate>,
    bound: f64,
) -> usize {
    let n = list.len();
    best_of(list, fitted);
    let (mut above, mut below) = (0.0, 0.0);
    for (i, pair) in fitted.windows(2).enumerate() {
        let t = math::ln((i + 2) as f64 / (i + 1) as f64);
        let b = (surprise(&pair[1]) - surprise(&pair[0])) * std::f64::consts::LN_2;
        (above, below) = (above + t * b, below + t * t);
    }
    let s = if below > 0.0 { above / below } else { 0.0 };
    let epsilon = s - 1.0;
    // At an exponent of 1 the quotient has the limit 1 / ln n.
    let quotient = if epsilon.abs() < 1e-9 {
        1.0 / math::ln(n as f64)
    } else {
        epsilon / (1.0 - math::pow(n as f64, -epsilon))
    };
    let base = quotient * math::pow(2.0, bound);
    // A flat distribution: the root of order 0 is nothing or everything.
    let k = if s < 1e-9 { if base < 1.0 { 0.0 } else { n as f64 } } else { math::pow(base, 1.0 / s) };
    // NaN, where there is one token only, becomes 1.
    k.round().max(1.0).min(n as f64) as usize
}

/// Fills `out` with the best few of `list`, best first.
fn best_of(list: &[Candidate], out: &mut Vec<Candidate>) {
    let by_rank = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.place.cmp(&b.place));
    out.clear();
    out.reserve(2 * FITTED);
    // The worst of the best so far, once there are enough.
    let mut worst = None;
    for c in list {
        if worst.is_none_or(|worst| by_rank(c, &worst).is_lt()) {
            out.push(*c);
        }
        if out.len() == 2 * FITTED {
            out.select_nth_unstable_by(FITTED - 1, by_rank);
            out.truncate(FITTED);
            worst = Some(out[FITTED - 1]);
        }
    }
    out.sort_unstable_by(by_rank);
    out.truncate(FITTED);
}
