//! [`Want`]: what a forward call gives, whichever of the calls of [`Executor`](crate::Executor) it is, so that an executor
//! has one way through its passes for all of them.

use crate::ModelSpec;
use crate::executor::{Batch, ExecError, Give, TopLogits};
use crate::select::{RowWant, TopWant};

/// What each row of logits is to give.
#[derive(Debug, Clone, Copy)]
pub enum RowWants<'a> {
    /// All logits, every row.
    All,
    /// The largest, every row.
    Top(TopWant<'a>),
    /// Something of its own.
    Each(&'a [RowWant<'a>]),
}

impl<'a> RowWants<'a> {
    /// The `k` largest of every row.
    pub fn top(k: usize) -> Self {
        RowWants::Top(TopWant { k, allowed: None })
    }

    /// What a row wants, counted over the whole call.
    ///
    /// # Panics
    /// If each row wants something of its own and there is no such row.
    pub fn row(self, row: usize) -> RowWant<'a> {
        match self {
            RowWants::All => RowWant::All,
            RowWants::Top(top) => RowWant::Top(top),
            RowWants::Each(wants) => wants[row],
        }
    }
}

/// What a call gives, and where it goes.
#[derive(Debug)]
pub enum Want<'a> {
    /// Hidden states behind the final norm.
    Hidden(&'a mut [f32]),
    /// Logits: of rows that want all of them, and the largest of the others.
    Logits(RowWants<'a>, &'a mut [f32], &'a mut [TopLogits]),
}

impl<'a> Want<'a> {
    /// What [`Executor::forward`](crate::Executor::forward) gives.
    pub fn all(logits: &'a mut [f32]) -> Self {
        Want::Logits(RowWants::All, logits, &mut [])
    }

    /// What [`Executor::forward_top`](crate::Executor::forward_top) gives.
    pub fn top(k: usize, top: &'a mut [TopLogits]) -> Self {
        Want::Logits(RowWants::top(k), &mut [], top)
    }

    /// What [`Executor::forward_select`](crate::Executor::forward_select) gives.
    pub fn each(wants: &'a [RowWant<'a>], logits: &'a mut [f32], top: &'a mut [TopLogits]) -> Self {
        Want::Logits(RowWants::Each(wants), logits, top)
    }

    /// What [`Executor::forward_rows`](crate::Executor::forward_rows) gives.
    pub fn of(give: Give, out: &'a mut [f32]) -> Self {
        match give {
            Give::Logits => Want::all(out),
            Give::Hidden => Want::Hidden(out),
        }
    }

    /// Checks that there is room for exactly what the batch asks for, and that `rows`, if the call computes from them, has
    /// one for each of its tokens.
    ///
    /// # Errors
    /// [`ExecError::InputSize`], [`ExecError::OutputSize`].
    pub fn check(&self, batch: &Batch<'_>, spec: &ModelSpec, rows: Option<&[f32]>) -> Result<(), ExecError> {
        if let Some(rows) = rows {
            batch.check_rows(spec, rows)?;
        }
        match self {
            Want::Hidden(hidden) => batch.check_hidden(spec, hidden),
            Want::Logits(RowWants::All, logits, _) => batch.check_output(spec, logits),
            Want::Logits(RowWants::Top(_), _, top) => batch.check_top(top),
            Want::Logits(RowWants::Each(wants), logits, top) => {
                batch.check_select(spec.vocab_size, wants, logits, top)
            }
        }
    }
}
