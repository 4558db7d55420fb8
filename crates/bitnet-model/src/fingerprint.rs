//! [`fingerprint`]: a number that tells models apart.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::{DenseTensor, ModelSpec, Weights};

/// Rows that are looked at of each matrix, spread over all of it.
const SAMPLES: usize = 4;

/// A number that two models share if they compute the same: of the architecture, all norms and scales, and some decoded rows
/// of every matrix. It does not depend on the form in which the weights are stored, only on their values, nor on the
/// processor. The same weights with one changed in a row that is not looked at are not told apart.
pub fn fingerprint(spec: &ModelSpec, weights: &Weights) -> u64 {
    let mut hash = XxHash3_64::with_seed(0);
    // What does not change what is computed for a position is left out.
    let spec =
        ModelSpec { architecture: String::new(), context_length: 0, tied_output: false, ..spec.clone() };
    hash.write(format!("{spec:?}").as_bytes());
    hash_dense(&mut hash, &weights.embedding);
    hash_dense(&mut hash, weights.output_layer());
    hash_floats(&mut hash, &weights.final_norm);
    let mut trits = Vec::new();
    for layer in &weights.layers {
        for (_, matrix) in layer.projections() {
            hash.write_u32(matrix.scale().to_bits());
            trits.resize(matrix.cols(), 0i8);
            for row in samples(matrix.rows()) {
                // What cannot be decoded is for the executor to complain about.
                if matrix.decode_row(row, &mut trits).is_ok() {
                    let bytes: Vec<u8> = trits.iter().map(|trit| trit.cast_unsigned()).collect();
                    hash.write(&bytes);
                }
            }
        }
        let extras = &layer.extras;
        let extras = [&extras.head_norms, &extras.post_norms].into_iter().flatten().flatten();
        let of_projections = layer.extras.projection_norms.iter().flatten();
        let sub_norms = [&layer.attn_sub_norm, &layer.ffn_sub_norm].into_iter().flatten();
        let norms = [&layer.attn_norm, &layer.ffn_norm].into_iter();
        norms
            .chain(sub_norms)
            .chain(extras)
            .chain(of_projections)
            .for_each(|norm| hash_floats(&mut hash, norm));
    }
    hash.finish()
}

/// Rows to look at: the first, the last, and some between them.
fn samples(rows: usize) -> impl Iterator<Item = usize> {
    let last = rows.saturating_sub(1);
    (0..SAMPLES.min(rows)).map(move |i| last * i / (SAMPLES - 1))
}

fn hash_dense(hash: &mut XxHash3_64, table: &DenseTensor) {
    let mut row = vec![0.0; table.cols()];
    for index in samples(table.rows()) {
        table.decode_row(index, &mut row);
        hash_floats(hash, &row);
    }
}

fn hash_floats(hash: &mut XxHash3_64, values: &[f32]) {
    hash.write_usize(values.len());
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    hash.write(&bytes);
}
