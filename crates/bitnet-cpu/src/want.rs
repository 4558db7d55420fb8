//! [`Want`]: what a pass gives.

use bitnet_model::{RowWant, TopLogits, TopWant};

use crate::shared::Shared;

/// What a pass gives.
pub(crate) enum Want<'a> {
    /// Logits.
    Logits {
        rows: RowWants<'a>,
        /// Of the rows that want all, `[rows, vocab_size]`.
        logits: Shared<'a, f32>,
        /// Of each row that wants the largest, found with the int8 output layer, which the model has.
        top: Shared<'a, TopLogits>,
    },
    /// The hidden states of the rows that would have logits, `[logit_rows, hidden_size]`.
    Hidden(Shared<'a, f32>),
}

/// What each logit row wants.
#[derive(Clone, Copy)]
pub(crate) enum RowWants<'a> {
    /// All logits, for every row.
    All,
    /// The same of every row.
    Top(TopWant<'a>),
    /// Something of its own for each row; and what those of them want that do not want all.
    Each(&'a [RowWant<'a>], &'a [TopWant<'a>]),
}

impl<'a> RowWants<'a> {
    /// How many of the logit rows want their largest logits.
    pub(crate) fn tops(self, logit_rows: usize) -> usize {
        match self {
            RowWants::All => 0,
            RowWants::Top(_) => logit_rows,
            RowWants::Each(_, tops) => tops.len(),
        }
    }

    /// Whether a logit row wants its largest logits.
    pub(crate) fn is_top(self, row: usize) -> bool {
        match self {
            RowWants::All => false,
            RowWants::Top(_) => true,
            RowWants::Each(rows, _) => rows[row].top().is_some(),
        }
    }

    /// What number `index` of the rows that want their largest logits wants.
    pub(crate) fn top(self, index: usize) -> TopWant<'a> {
        match self {
            RowWants::Top(want) => want,
            RowWants::Each(_, tops) => tops[index],
            RowWants::All => unreachable!("no row wants its largest logits"),
        }
    }
}
