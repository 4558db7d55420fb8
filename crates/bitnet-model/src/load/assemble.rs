//! Builds [`Weights`] from named tensors: the part that all formats share.

use bitnet_quant::{RowOrder, TernaryMatrix};

use super::error::{LoadError, Result};
use super::projection::{MasterRule, Projection, finish_all};
use super::tensors::Tensors;
use crate::{LayerWeights, ModelSpec, Weights};

/// What the tensors of a model are called.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    /// Token embedding.
    pub(super) embedding: String,
    /// Output layer.
    pub(super) output: &'static str,
    /// Norm before the output layer.
    pub(super) final_norm: String,
    /// What stands before the number of a layer.
    pub(super) layers: String,
    /// The parts of a layer.
    pub(super) parts: Parts,
}

/// What the parts of a layer are called, without `.weight`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    /// Norm before attention.
    pub(super) attn_norm: &'static str,
    /// Norm before the feed-forward part.
    pub(super) ffn_norm: &'static str,
    /// Norm before the attention output.
    pub(super) attn_sub_norm: &'static str,
    /// Norm before the down projection.
    pub(super) ffn_sub_norm: &'static str,
    /// Query, key, value, attention output, gate, up, down.
    pub(super) projections: [&'static str; 7],
}

impl Naming {
    /// Name of a part of a layer, without `.weight`.
    pub(super) fn part(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}", self.layers)
    }

    /// Name of the weight of a part of a layer.
    pub(super) fn weight(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}.weight", self.layers)
    }

    /// Whether the model has sub-norms, told by the first layer.
    pub(super) fn has_sub_norms(&self, tensors: &Tensors<'_>) -> bool {
        [self.parts.attn_sub_norm, self.parts.ffn_sub_norm]
            .iter()
            .any(|part| tensors.contains(&self.weight(0, part)))
    }
}

/// A place in the model where a projection belongs.
#[derive(Debug)]
pub(super) struct Slot {
    /// Name of the projection without `.weight`.
    pub(super) name: String,
    /// Output features.
    pub(super) rows: usize,
    /// Input features.
    pub(super) cols: usize,
    /// Order of the stored rows.
    pub(super) order: RowOrder,
}

/// Takes all tensors of the model. `read` finds the projection of a slot in one format; `qk_order` is the order of the
/// stored rows of query and key projections.
///
/// # Errors
/// The first tensor that is missing, has the wrong type or shape or holds values that cannot be right.
pub(super) fn assemble(
    tensors: &Tensors<'_>,
    spec: &ModelSpec,
    naming: &Naming,
    qk_order: RowOrder,
    rule: MasterRule,
    read: &dyn Fn(&Slot) -> Result<Projection>,
) -> Result<Weights> {
    let embedding = tensors.dense(&naming.embedding, spec.vocab_size, spec.hidden_size)?;
    let output = if spec.tied_output {
        None
    } else {
        Some(tensors.dense(naming.output, spec.vocab_size, spec.hidden_size)?)
    };
    let final_norm = tensors.norm(&naming.final_norm, spec.hidden_size)?;
    let mut norms = Vec::new();
    let mut projections = Vec::new();
    for layer in 0..spec.num_layers {
        norms.push(LayerNorms::take(tensors, spec, naming, layer)?);
        for slot in slots(spec, naming, qk_order, layer) {
            projections.push(read(&slot)?);
        }
    }
    refuse_leftovers(tensors, naming)?;
    let matrices = finish_all(projections, rule)?;
    let layers =
        norms.into_iter().zip(matrices.as_chunks().0).map(|(norms, seven)| norms.with(seven)).collect();
    Ok(Weights { embedding, output, final_norm, layers })
}

fn slots(spec: &ModelSpec, naming: &Naming, qk_order: RowOrder, layer: usize) -> [Slot; 7] {
    let (hidden, ffn, q, kv) = (spec.hidden_size, spec.intermediate_size, spec.q_size(), spec.kv_size());
    let shapes =
        [(q, hidden), (kv, hidden), (kv, hidden), (hidden, q), (ffn, hidden), (ffn, hidden), (hidden, ffn)];
    std::array::from_fn(|i| Slot {
        name: naming.part(layer, naming.parts.projections[i]),
        rows: shapes[i].0,
        cols: shapes[i].1,
        order: if i < 2 { qk_order } else { RowOrder::Natural },
    })
}

/// Tensors inside the layers that nothing asked for change what the layers compute: biases, norms of single
/// projections or heads, more layers than the configuration tells.
fn refuse_leftovers(tensors: &Tensors<'_>, naming: &Naming) -> Result<()> {
    // Tables that old checkpoints carry along; they follow from the configuration.
    const HARMLESS: [&str; 3] = ["rotary_emb.inv_freq", "attention.bias", "masked_bias"];
    let extra = tensors.leftovers().find(|tensor| {
        tensor.name.starts_with(&naming.layers) && !HARMLESS.iter().any(|end| tensor.name.ends_with(end))
    });
    match extra {
        None => Ok(()),
        Some(tensor) => Err(LoadError::Unsupported {
            file: tensor.origin.to_string(),
            what: format!("tensor {}", tensor.name),
            remedy: "layers of attention and a gated feed-forward part without biases or extra norms are, \
                     as many as the configuration tells",
        }),
    }
}

/// The norms of a layer.
struct LayerNorms {
    attn: Vec<f32>,
    ffn: Vec<f32>,
    attn_sub: Option<Vec<f32>>,
    ffn_sub: Option<Vec<f32>>,
}

impl LayerNorms {
    fn take(tensors: &Tensors<'_>, spec: &ModelSpec, naming: &Naming, layer: usize) -> Result<Self> {
        let parts = &naming.parts;
        let norm = |part, len| tensors.norm(&naming.weight(layer, part), len);
        let sub = |part, len| if spec.sub_norms { norm(part, len).map(Some) } else { Ok(None) };
        Ok(Self {
            attn: norm(parts.attn_norm, spec.hidden_size)?,
            ffn: norm(parts.ffn_norm, spec.hidden_size)?,
            attn_sub: sub(parts.attn_sub_norm, spec.q_size())?,
            ffn_sub: sub(parts.ffn_sub_norm, spec.intermediate_size)?,
        })
    }

    fn with(self, seven: &[TernaryMatrix; 7]) -> LayerWeights {
        let [q, k, v, o, gate, up, down] = seven.clone();
        LayerWeights {
            attn_norm: self.attn,
            q,
            k,
            v,
            attn_sub_norm: self.attn_sub,
            o,
            ffn_norm: self.ffn,
            gate,
            up,
            ffn_sub_norm: self.ffn_sub,
            down,
        }
    }
}
