//! [`walk`]: the forward pass of the oracle layer by layer instead of token by token.

use super::attention::LayerCache;
use super::layer::{Layer, Place, Site};
use super::{BLOCK_SIZE, embedded};
use crate::ModelSpec;
use crate::executor::{Batch, ExecError, LogitRows, Sequence};
use crate::kv::KvType;
use crate::weights::Weights;

/// Sees a row before quantisation, its scale and its int8 values.
pub type Observer<'a> = &'a mut dyn FnMut(Site, &[f32], f32, &[i8]);

/// Takes a text through all layers, one layer at a time, and shows `observer` every row that is quantised, as
/// [`ReferenceExecutor::set_hook`](super::ReferenceExecutor::set_hook) does, with the same bits. Only one layer is
/// unpacked at any time, so that models can be looked into that are larger than memory in that form. `progress` hears
/// how many rows of how many are done, a row being one token in one layer.
///
/// # Errors
/// [`ExecError::Weights`] if a ternary tensor is damaged, [`ExecError::TokenOutOfRange`] for tokens that the model does
/// not have, [`ExecError::EmptySequence`] without tokens.
pub fn walk(
    spec: &ModelSpec,
    weights: &Weights,
    tokens: &[u32],
    observer: Observer<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ExecError> {
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(BLOCK_SIZE) as u32).collect();
    let sequences = [Sequence { tokens, position: 0, blocks: &blocks, logits: LogitRows::None }];
    Batch { sequences: &sequences }.validate(spec, BLOCK_SIZE, blocks.len())?;
    let mut rows: Vec<Vec<f32>> =
        tokens.iter().map(|&token| embedded(spec, &weights.embedding, token)).collect();
    let mut cache = LayerCache::new(spec, KvType::default());
    cache.resize(blocks.len());
    let total = (weights.layers.len() * tokens.len()) as u64;
    for (number, layer) in weights.layers.iter().enumerate() {
        let layer = Layer::new(number, layer)?;
        for (position, x) in rows.iter_mut().enumerate() {
            let place = Place { layer: number, blocks: &blocks, position };
            let mut hook = |site: Site, row: &[f32], scale: f32, q: &mut [i8]| observer(site, row, scale, q);
            layer.forward(spec, place, &mut cache, x, Some(&mut hook));
            progress((number * tokens.len() + position + 1) as u64, total);
        }
    }
    Ok(())
}
