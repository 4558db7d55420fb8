//! [`Draw`]: how a token is drawn from the largest logits of a row, for executors that draw themselves.

use bitnet_core::lanes;

use crate::executor::TopLogits;

/// What acts on the largest logits before one is drawn. Weights are `exp((logit - largest) / temperature)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DrawStep {
    /// Weights are those of this temperature, greater than 0, from now on; before it is 1.
    Temperature(f32),
    /// Keeps the fewest largest that have this share of the sum of weights together.
    TopP(f32),
    /// Keeps those with at least this share of the largest weight.
    MinP(f32),
}

/// A draw from the `k` largest logits of a row, of equals those of the lower tokens. What it gives is defined bit for bit, by
/// [`Draw::token`]: weights are f32, their sums f64, in descending order of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// How many of the largest logits count, at least one.
    pub k: usize,
    /// What acts on them, in this order; `None` does nothing.
    pub steps: [Option<DrawStep>; 3],
    /// The random number, in `[0, 1)`: the token is that in whose stretch of the summed weights it falls.
    pub number: f64,
}

/// A logit that may be drawn, and its token.
type Candidate = (u32, f32);

impl Draw {
    /// From so many logits everything that [draws](crate::Executor::draws) can draw; from more it may leave it to the caller.
    pub const FEW: usize = 256;

    /// The token that is drawn from these logits, which are numbers and among which are the `k` largest; `None` if there are
    /// none. The reference for executors.
    pub fn token(&self, top: &TopLogits) -> Option<u32> {
        let mut list: Vec<Candidate> = top.ids.iter().copied().zip(top.logits.iter().copied()).collect();
        // Zeros are equal whatever their sign.
        list.sort_by(|a, b| (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then(a.0.cmp(&b.0)));
        list.truncate(self.k.max(1));
        let best = list.first()?.1;
        let weight = |logit: f32, temperature: f32| lanes::exp((logit - best) / temperature);
        let mut temperature = 1.0;
        for step in self.steps.iter().flatten() {
            match *step {
                DrawStep::Temperature(value) => temperature = value,
                DrawStep::TopP(share) => {
                    let weights = list.iter().map(|c| f64::from(weight(c.1, temperature)));
                    let target = f64::from(share) * weights.clone().sum::<f64>();
                    let last = reach(weights, |sum| sum >= target);
                    list.truncate(last.unwrap_or(list.len()) + 1);
                }
                DrawStep::MinP(share) => {
                    let least =
                        share * list.iter().fold(0.0f32, |most, c| most.max(weight(c.1, temperature)));
                    list.retain(|c| weight(c.1, temperature) >= least);
                }
            }
        }
        let weights = list.iter().map(|c| f64::from(weight(c.1, temperature)));
        let target = self.number * weights.clone().sum::<f64>();
        let place = reach(weights, |sum| sum > target).unwrap_or(list.len().saturating_sub(1));
        list.get(place).map(|c| c.0)
    }
}

/// The first place at which the sum of the weights so far is enough.
fn reach(mut weights: impl Iterator<Item = f64>, enough: impl Fn(f64) -> bool) -> Option<usize> {
    let mut sum = 0.0;
    weights.position(|weight| {
        sum += weight;
        enough(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_fall_where_the_number_says() {
        // Weights 1, 1/2, 1/4, 1/4 but for the order.
        let ln2 = std::f32::consts::LN_2;
        let top = TopLogits { ids: vec![3, 5, 8, 9], logits: vec![-2.0 * ln2, 0.0, -ln2, -2.0 * ln2] };
        let draw = |k, steps, number| Draw { k, steps, number }.token(&top);
        let plain = [None; 3];
        assert_eq!([0.0, 0.49, 0.51, 0.76, 0.9].map(|n| draw(4, plain, n)), [5, 5, 8, 3, 9].map(Some));
        assert_eq!(draw(3, plain, 0.99), Some(3), "of equals the lower token");
        assert_eq!(draw(2, plain, 0.68), Some(8));
        // The two largest have 3/4 of the sum; a low temperature makes the largest alone enough.
        let (cold, half) = (Some(DrawStep::Temperature(0.1)), Some(DrawStep::TopP(0.7)));
        assert_eq!(draw(4, [half, None, None], 0.99), Some(8));
        assert_eq!(draw(4, [cold, half, None], 0.9999), Some(5));
        assert_eq!(draw(4, [half, cold, None], 0.9999), Some(8));
        assert_eq!(draw(4, [Some(DrawStep::MinP(0.3)), None, None], 0.99), Some(8));
        assert_eq!(Draw { k: 1, steps: plain, number: 0.5 }.token(&TopLogits::default()), None);
    }
}
