//! Proof that a difference from the reference comes from a rounding tie.
//!
//! Activations are rounded to int8. One that lies on the border between two integers but for the noise of float32 sums falls
//! to one side in one order of summing and to the other in another, and both are right. A single such step moves logits
//! by up to a tenth. Turning the ties of a text shows whether they explain a difference: the margins of the reference must
//! then come out, digit by digit.

use std::sync::{Arc, Mutex};

use bitnet_model::reference::{ReferenceExecutor, Site};
use bitnet_model::{Batch, Executor, KvType, LoadOptions, LogitRows, Sequence, load};

use crate::support::source;

/// How close to a border, in steps, an activation must lie to be a tie.
const TIE: f32 = 2e-5;
/// How close the margins must come; the reference's are written with five decimals.
const MARGIN: f32 = 1e-4;

/// An activation that is a tie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tie {
    pub(crate) layer: usize,
    pub(crate) projection: &'static str,
    pub(crate) position: usize,
    pub(crate) element: usize,
}

/// Whether `ties` are ties, and with them turned every token behind `prompt` in `prompt + generated` is the best by
/// the margin given for it.
pub(crate) fn explain(ties: &[Tie], prompt: usize, tokens: &[u32], margins: &[f32]) -> bool {
    let logits = logits_with(ties, tokens, margins.len());
    let vocab = logits.len() / margins.len();
    logits.chunks_exact(vocab).zip(&tokens[prompt..]).zip(margins).all(|((row, &token), want)| {
        let others = row.iter().enumerate().filter(|(id, _)| *id != token as usize);
        let best_other = others.map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max);
        (row[token as usize] - best_other - want).abs() < MARGIN
    })
}

/// The oracle's logits of the last `rows` tokens but one, with the ties turned.
fn logits_with(ties: &[Tie], tokens: &[u32], rows: usize) -> Vec<f32> {
    let model = load(&source(), &LoadOptions::default()).unwrap();
    let mut oracle = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::F32).unwrap();
    let turned = Arc::new(Mutex::new(0));
    let (count, turn) = (Arc::clone(&turned), ties.to_vec());
    oracle.set_hook(Some(Box::new(move |site, row, scale, q| {
        for tie in turn.iter().filter(|tie| tie.is_at(site)) {
            let value = row[tie.element] * scale;
            assert!((value - value.floor() - 0.5).abs() < TIE, "{tie:?} is none: {value}");
            let q = &mut q[tie.element];
            *q = if f32::from(*q) < value { *q + 1 } else { *q - 1 };
            *count.lock().unwrap() += 1;
        }
    })));
    let text = &tokens[..tokens.len() - 1];
    let blocks: Vec<u32> = (0..text.len().div_ceil(oracle.info().block_size) as u32).collect();
    oracle.reserve_blocks(blocks.len()).unwrap();
    let (start, mut logits) = (text.len() - rows, vec![0.0; rows * model.spec.vocab_size]);
    let part = |tokens, position, logits| Sequence { tokens, position, blocks: &blocks, logits };
    oracle.forward(&Batch { sequences: &[part(&text[..start], 0, LogitRows::None)] }, &mut []).unwrap();
    oracle
        .forward(&Batch { sequences: &[part(&text[start..], start, LogitRows::All)] }, &mut logits)
        .unwrap();
    assert_eq!(*turned.lock().unwrap(), ties.len(), "every tie was met once");
    logits
}

impl Tie {
    fn is_at(&self, site: Site) -> bool {
        site == Site { layer: self.layer, projection: self.projection, position: self.position }
    }
}
