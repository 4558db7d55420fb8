//! [`Accuracy`] with its interval, and the [`Summary`] of a task.

use super::run::{Choosing, ItemResult, Outcome};

/// How many of some answers are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accuracy {
    /// Right answers.
    pub correct: usize,
    /// All answers.
    pub total: usize,
}

/// Two-sided 95 % of a normal distribution.
const Z: f64 = 1.959_963_984_540_054;

impl Accuracy {
    fn count(&mut self, correct: bool) {
        self.correct += usize::from(correct);
        self.total += 1;
    }

    /// The part that is right, 0 to 1.
    pub fn value(&self) -> f64 {
        self.correct as f64 / self.total.max(1) as f64
    }

    /// The interval of Wilson that covers the true accuracy in 95 of 100 cases. It keeps to 0 and 1, and is of use for few
    /// items too.
    pub fn interval(&self) -> (f64, f64) {
        let n = self.total.max(1) as f64;
        let (p, z2) = (self.value(), Z * Z);
        let scale = 1.0 + z2 / n;
        let center = (p + z2 / (2.0 * n)) / scale;
        let half = Z / scale * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        ((center - half).max(0.0), (center + half).min(1.0))
    }
}

/// Items with choices. The three accuracies differ in how the likelihoods of choices of different length are compared.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Choices {
    /// By their sum: the more probable text. Others call it `acc`.
    pub by_sum: Accuracy,
    /// By the sum over the bytes of the choice: `acc_norm`.
    pub by_byte: Accuracy,
    /// By the sum over the tokens of the choice.
    pub by_token: Accuracy,
    /// Accuracy of guesses: the mean of one over the number of choices.
    pub chance: f64,
}

/// The figures of some items.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Those with choices, if there are any.
    pub choices: Option<Choices>,
    /// Those that were answered with a text, if there are any.
    pub texts: Option<Accuracy>,
}

/// The figures of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Of all items.
    pub overall: Figures,
    /// Of the items of each category, in the order in which they first came. Items without one are in none.
    pub categories: Vec<(String, Figures)>,
    /// Tokens of all texts; the same whatever the engine did before.
    pub tokens: usize,
    /// Tokens that were computed.
    pub computed: usize,
    /// Tokens that were not computed again, since texts have them in common.
    pub reused: usize,
}

impl Summary {
    /// Of these results.
    pub fn of<'a>(results: impl IntoIterator<Item = &'a ItemResult>) -> Self {
        let mut out = Self::default();
        for result in results {
            out.add(result);
        }
        out
    }

    /// Counts another result.
    pub fn add(&mut self, result: &ItemResult) {
        self.tokens += result.tokens;
        self.computed += result.computed;
        self.reused += result.reused;
        self.overall.add(&result.outcome);
        let Some(category) = &result.category else { return };
        let known = self.categories.iter().position(|(name, _)| name == category);
        let index = known.unwrap_or_else(|| {
            self.categories.push((category.clone(), Figures::default()));
            self.categories.len() - 1
        });
        self.categories[index].1.add(&result.outcome);
    }
}

impl Figures {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Chosen(choosing) => self.choices.get_or_insert_default().add(choosing),
            Outcome::Written(writing) => self.texts.get_or_insert_default().count(writing.correct),
        }
    }
}

impl Choices {
    fn add(&mut self, choosing: &Choosing) {
        let before = self.by_sum.total as f64;
        let chance = 1.0 / choosing.scores.len() as f64;
        self.chance = (self.chance * before + chance) / (before + 1.0);
        self.by_sum.count(choosing.by_sum == choosing.right);
        self.by_byte.count(choosing.by_byte == choosing.right);
        self.by_token.count(choosing.by_token == choosing.right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_wilson() {
        let close = |accuracy: Accuracy, low: f64, high: f64| {
            let (a, b) = accuracy.interval();
            assert!((a - low).abs() < 1e-4 && (b - high).abs() < 1e-4, "{a} {b}");
        };
        // Worked out by hand with z = 1.96.
        close(Accuracy { correct: 5, total: 10 }, 0.2366, 0.7634);
        close(Accuracy { correct: 0, total: 10 }, 0.0, 0.2775);
        close(Accuracy { correct: 10, total: 10 }, 0.7225, 1.0);
        close(Accuracy { correct: 810, total: 1000 }, 0.7845, 0.8331);
        assert_eq!(Accuracy::default().value(), 0.0);
    }
}
