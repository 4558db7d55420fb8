//! The output layer: dense rows, used where they lie in the model's file.

use std::sync::atomic::{AtomicBool, Ordering};

use bitnet_core::pool::Team;
use bitnet_model::{DenseTensor, LogitRows, Sequence};

use crate::kernels::KernelSet;
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

/// Computes this thread's share of the vocabulary for `rows` normed rows of `h`, `[rows][stride]`.
/// Clears `finite` if a logit is not a number.
///
/// # Safety
/// All threads of the team call this with the same arguments; nothing else touches `logits`, nothing writes to `h`.
#[allow(clippy::too_many_arguments, reason = "what goes in, what comes out, and who computes it")]
pub(crate) unsafe fn logits(
    kernels: &KernelSet,
    output: &DenseTensor,
    team: &Team<'_>,
    rows: usize,
    h: Shared<'_, f32>,
    stride: usize,
    logits: Shared<'_, f32>,
    finite: &AtomicBool,
) {
    let (vocab, cols) = (output.rows(), output.cols());
    let row_bytes = cols * output.dtype().size();
    let share = team.share(vocab.div_ceil(VOCAB_BLOCK));
    let mut all_finite = true;
    for block in share {
        let range = block * VOCAB_BLOCK..vocab.min((block + 1) * VOCAB_BLOCK);
        let weights = &output.data().as_slice()[range.start * row_bytes..range.end * row_bytes];
        for row in 0..rows {
            // SAFETY: vocabulary ranges of threads are disjoint, `h` is only read; the kernel set is available.
            unsafe {
                let out = logits.get_mut(row * vocab + range.start..row * vocab + range.end);
                (kernels.dense)(output.dtype(), weights, h.get(row * stride..row * stride + cols), out);
                all_finite &= out.iter().fold(0.0f32, |a, &l| a + l * 0.0) == 0.0;
            }
        }
    }
    if !all_finite {
        finite.store(false, Ordering::Relaxed);
    }
}
