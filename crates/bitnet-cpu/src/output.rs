//! The output layer by its full-precision rows.

use std::ops::Range;

use bitnet_core::pool::Team;
use bitnet_model::{DenseTensor, LogitRows, Sequence};

use crate::kernels::KernelSet;
use crate::outcome::Outcome;
use crate::shared::Shared;

/// Vocabulary rows that are computed for all logit rows before the next ones, so that they stay in cache.
const VOCAB_BLOCK: usize = 64;

/// Batch rows that need logits, in order.
pub(crate) fn logit_row_indices<'a>(sequences: &'a [Sequence<'a>]) -> impl Iterator<Item = usize> + 'a {
    let mut start = 0;
    sequences.iter().flat_map(move |s| {
        let end = start + s.tokens.len();
        let range = match s.logits {
            LogitRows::None => end..end,
            LogitRows::Last => end - 1..end,
            LogitRows::All => start..end,
        };
        start = end;
        range
    })
}

/// All logits of a pass.
pub(crate) struct FullLogits<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) output: &'a DenseTensor,
    /// Normed hidden rows, `[rows][stride]`.
    pub(crate) h: Shared<'a, f32>,
    pub(crate) stride: usize,
    /// Those of them whose logits are wanted.
    pub(crate) rows: Range<usize>,
    /// Whether the table is used where it lies, mapped, and stays resident; otherwise it is read block by block.
    pub(crate) resident: bool,
    pub(crate) outcome: &'a Outcome,
}

impl FullLogits<'_> {
    /// Computes this thread's share of the vocabulary for all rows, to `logits`, `[rows, vocab]`. `buffer` is scratch.
    ///
    /// # Safety
    /// All threads of the team call this with the same arguments; nothing else touches `logits`, nothing writes to `h`.
    pub(crate) unsafe fn run(&self, team: &Team<'_>, buffer: &mut Vec<u8>, logits: Shared<'_, f32>) {
        let (vocab, cols) = (self.output.rows(), self.output.cols());
        let mut all_finite = true;
        for block in team.share(vocab.div_ceil(VOCAB_BLOCK)) {
            let range = block * VOCAB_BLOCK..vocab.min((block + 1) * VOCAB_BLOCK);
            let weights = if self.resident {
                self.output.rows_in_place(range.clone(), buffer)
            } else {
                match self.output.read_rows(range.clone(), buffer) {
                    Ok(weights) => weights,
                    Err(error) => return self.outcome.fail(error),
                }
            };
            for (row, place) in self.rows.clone().enumerate() {
                // SAFETY: vocabulary ranges of threads are disjoint, `h` is only read; the kernel set is available.
                unsafe {
                    let out = logits.get_mut(row * vocab + range.start..row * vocab + range.end);
                    let h = self.h.get(place * self.stride..place * self.stride + cols);
                    (self.kernels.dense)(weights.dtype, weights.bytes, h, out);
                    all_finite &= out.iter().fold(0.0f32, |a, &l| a + l * 0.0) == 0.0;
                }
            }
        }
        if !all_finite {
            self.outcome.not_finite();
        }
    }
}
