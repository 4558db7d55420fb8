//! Looking into the layers, held against the reference executor token by token.

use std::sync::{Arc, Mutex};

use bitnet_inference::anatomy::Anatomy;
use bitnet_model::reference::{ReferenceExecutor, Site, walk};
use bitnet_model::{Batch, Executor, KvType, LoadOptions, LogitRows, Sequence, load};

use crate::support::source;

/// Everything that is seen at a site.
type Seen = Vec<(Site, Vec<u32>, Vec<i8>)>;

fn seen(site: Site, row: &[f32], q: &[i8]) -> (Site, Vec<u32>, Vec<i8>) {
    (site, row.iter().map(|x| x.to_bits()).collect(), q.to_vec())
}

fn sorted(mut all: Seen) -> Seen {
    all.sort_by_key(|(site, ..)| (site.layer, site.position, site.projection));
    all
}

#[test]
fn layer_by_layer_and_token_by_token_are_the_same() {
    let model = load(&source(), &LoadOptions::default()).unwrap();
    // More than one KV block of the reference.
    let tokens = [8000, 3, 500, 77, 4, 4000, 12];
    let mut walked: Seen = Vec::new();
    let mut last = (0, 0);
    walk(
        &model.spec,
        &model.weights,
        &tokens,
        &mut |site, row, _, q| walked.push(seen(site, row, q)),
        &mut |done, all| last = (done, all),
    )
    .unwrap();
    let rows = (model.spec.num_layers * tokens.len()) as u64;
    assert_eq!(last, (rows, rows));

    let mut oracle = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::default()).unwrap();
    let told: Arc<Mutex<Seen>> = Arc::default();
    let teller = Arc::clone(&told);
    oracle.set_hook(Some(Box::new(move |site, row, _, q| teller.lock().unwrap().push(seen(site, row, q)))));
    oracle.reserve_blocks(2).unwrap();
    let sequences = [Sequence { tokens: &tokens, position: 0, blocks: &[1, 0], logits: LogitRows::None }];
    oracle.forward(&Batch { sequences: &sequences }, &mut []).unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(walked.len(), 4 * rows as usize);
    assert!(sorted(walked) == sorted(told), "the activations differ");
}

#[test]
fn the_bundled_model_is_looked_into() {
    let model = load(&source(), &LoadOptions::default()).unwrap();
    let tokens = [8000, 3, 500];
    let anatomy = Anatomy::of(&model, &tokens, &mut |_, _| {}).unwrap();
    assert_eq!((anatomy.layers.len(), anatomy.sample_tokens), (model.spec.num_layers, tokens.len()));
    assert_eq!(anatomy.trits.total(), model.spec.ternary_parameters());
    for (layer, weights) in anatomy.layers.iter().zip(&model.weights.layers) {
        assert_eq!(layer.projections.len(), 7);
        for (projection, (name, matrix)) in layer.projections.iter().zip(weights.projections()) {
            assert_eq!((projection.name, projection.scale), (name, matrix.scale()));
            let trits = matrix.to_trits().unwrap();
            let zeros = trits.iter().filter(|trit| **trit == 0).count() as u64;
            assert_eq!(projection.trits.counts()[1], zeros);
            assert_eq!(projection.trits.total(), trits.len() as u64);
            let bits = projection.trits.entropy();
            assert!(bits > 1.0 && bits <= 3f64.log2(), "{bits}");
            let group = projection.trits.group_entropy().unwrap();
            assert!(group > 0.9 * bits && group <= bits, "{group} of {bits}");
            let input = projection.input.as_ref().unwrap();
            // The largest of every row is at the end of the range.
            assert!(input.saturated_share() >= 1.0 / projection.cols as f64, "{input:?}");
            assert!(input.absmax >= input.least_row_absmax && input.least_row_absmax > 0.0, "{input:?}");
            assert!(input.mean().abs() <= input.mean_magnitude() && input.zero_share() < 1.0, "{input:?}");
        }
        let range = |index: usize| layer.projections[index].input.as_ref();
        assert!(range(0) == range(1) && range(0) == range(2) && range(4) == range(5) && range(0) != range(3));
    }
    let weights_only = Anatomy::of(&model, &[], &mut |_, _| {}).unwrap();
    assert!(weights_only.layers.iter().flat_map(|layer| &layer.projections).all(|p| p.input.is_none()));
    assert_eq!(weights_only.trits, anatomy.trits);
    let missing = Anatomy::of(&model, &[u32::MAX], &mut |_, _| {}).unwrap_err();
    assert!(missing.to_string().contains("vocabulary"), "{missing}");
}
