//! Builds [`Weights`] from named tensors: the part that all formats share.

use bitnet_core::bytes::ByteView;
use bitnet_formats::StoredTensor;
use bitnet_quant::{RowOrder, TernaryMatrix};

use super::error::{LoadError, Result};
use super::naming::Naming;
use super::projection::{Form, MasterRule, Projection, finish_all};
use super::tensors::Tensors;
use crate::{LayerExtras, LayerWeights, ModelSpec, Weights};

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

impl Slot {
    /// The projection that `tensor` is in this place; `data` are its weights without scales and padding.
    pub(super) fn filled(&self, tensor: &StoredTensor, form: Form, data: ByteView) -> Projection {
        Projection {
            tensor: tensor.name.clone(),
            file: tensor.origin.clone(),
            rows: self.rows,
            cols: self.cols,
            order: self.order,
            form,
            data,
        }
    }
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
    let final_norm = stored_norm(tensors, naming, &naming.final_norm, spec.hidden_size)?;
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
            remedy: "layers of attention and a gated feed-forward part without biases and with the norms of their \
                     architecture are, as many as the configuration tells",
        }),
    }
}

/// The norms of a layer.
struct LayerNorms {
    attn: Vec<f32>,
    ffn: Vec<f32>,
    attn_sub: Option<Vec<f32>>,
    ffn_sub: Option<Vec<f32>>,
    extras: LayerExtras,
}

/// A norm of the architecture itself, with the one that Gemma leaves out.
fn stored_norm(tensors: &Tensors<'_>, naming: &Naming, name: &str, len: usize) -> Result<Vec<f32>> {
    let mut norm = tensors.norm(name, len)?;
    if naming.from_one {
        norm.iter_mut().for_each(|w| *w += 1.0);
    }
    Ok(norm)
}

impl LayerNorms {
    fn take(tensors: &Tensors<'_>, spec: &ModelSpec, naming: &Naming, layer: usize) -> Result<Self> {
        let parts = &naming.parts;
        let norm = |part: &str, len| stored_norm(tensors, naming, &naming.weight(layer, part), len);
        // Norms before projections are the trainer's and stored as they are.
        let own = |part: &str, len| tensors.norm(&naming.weight(layer, part), len);
        let sub = |part, len| if spec.sub_norms { own(part, len).map(Some) } else { Ok(None) };
        let (extras, hidden) = (&spec.extras, spec.hidden_size);
        let extras = LayerExtras {
            head_norms: several(extras.head_norms, parts.head_norms, |part| norm(part, spec.head_dim))?,
            projection_norms: several(extras.projection_norms, parts.projection_norms, |part| {
                own(part, hidden)
            })?,
            post_norms: several(extras.post_norms, parts.post_norms, |part| norm(part, hidden))?,
        };
        Ok(Self {
            extras,
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
            extras: self.extras,
        }
    }
}

/// Takes some norms, if the model has them.
fn several<const N: usize>(
    there: bool,
    parts: [&str; N],
    take: impl Fn(&str) -> Result<Vec<f32>>,
) -> Result<Option<[Vec<f32>; N]>> {
    if !there {
        return Ok(None);
    }
    let mut norms = std::array::from_fn(|_| Vec::new());
    for (norm, part) in norms.iter_mut().zip(parts) {
        *norm = take(part)?;
    }
    Ok(Some(norms))
}
