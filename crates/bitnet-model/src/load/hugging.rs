//! Weights of a Hugging Face model: packed (`uint8` and `weight_scale`) or float masters, told by type and shape of
//! each tensor and not by the configuration, which is known to be wrong about it.

use bitnet_formats::{StoredTensor, StoredType, TensorSet};
use bitnet_quant::{RowOrder, TritCodec};

use super::assemble::{Slot, assemble};
use super::config::{Class, HfConfig, ScaleRule};
use super::error::{LoadError, Result};
use super::naming::Naming;
use super::projection::{Form, MasterRule, Projection};
use super::tensors::{Tensors, check_shape, unsupported_type};
use crate::{ModelSpec, Weights};

/// A model put together from `config.json` and tensors.
#[derive(Debug)]
pub(super) struct HfModel {
    /// The whole architecture.
    pub(super) spec: ModelSpec,
    /// Its tensors.
    pub(super) weights: Weights,
    /// What people should know.
    pub(super) warnings: Vec<String>,
}

/// Puts a model together. `place` is the file or folder of the weights, `config_file` the configuration, for messages;
/// `rule` is what float projections are taken for.
///
/// # Errors
/// If a tensor is missing, superfluous or does not fit the configuration.
pub(super) fn build(
    set: &TensorSet,
    place: &str,
    config: &HfConfig,
    config_file: &str,
    rule: MasterRule,
) -> Result<HfModel> {
    let tensors = Tensors::new(set, place);
    let naming = naming(&tensors, config.class);
    let mut warnings = Vec::new();
    let mut spec = config.spec.clone();
    spec.sub_norms = tensors.has_sub_norms(&naming);
    spec.extras.projection_norms = tensors.has_projection_norms(&naming);
    spec.tied_output = config.tied == Some(true) || !tensors.contains(naming.output);
    // Embedding models need no output layer and come without it, whatever their configuration says.
    if spec.tied_output && config.tied == Some(false) && !spec.extras.projection_norms {
        warnings.push(format!(
            "{config_file}: tie_word_embeddings is false, but there is no {}; the embedding is the output layer",
            naming.output
        ));
    }
    if config.is_2b_class() && !spec.sub_norms {
        warnings
            .push(format!("{place}: a BitNetForCausalLM model without sub-norms; it is run without them"));
    }
    // Embedding models are published as masters, and their configuration says nothing.
    let rule = if spec.extras.projection_norms { MasterRule::Quantise } else { rule };
    let read = |slot: &Slot| projection(&tensors, config.scale_rule, config_file, slot);
    let weights = assemble(&tensors, &spec, &naming, RowOrder::Natural, rule, &read)?;
    Ok(HfModel { spec, weights, warnings })
}

/// Tells the names by the tensors that are there.
fn naming(tensors: &Tensors<'_>, class: Class) -> Naming {
    let bare = tensors.contains("embed_tokens.weight") && !tensors.contains("model.embed_tokens.weight");
    let prefix = if bare { "" } else { "model." };
    if matches!(class, Class::Qwen3 | Class::Gemma3) {
        let plain = match class {
            Class::Gemma3 => Naming::gemma3(prefix),
            _ => Naming::hugging_face(prefix),
        };
        return if tensors.has_projection_norms(&plain) { plain.with_projection_norms() } else { plain };
    }
    let first = Naming::first_bitnet(prefix);
    if tensors.has_sub_norms(&first) { first } else { Naming::hugging_face(prefix) }
}

/// The projection of a slot under the names of a checkpoint.
///
/// # Errors
/// If a tensor is missing or has another type or shape.
pub(super) fn projection(
    tensors: &Tensors<'_>,
    rule: Option<ScaleRule>,
    config_file: &str,
    slot: &Slot,
) -> Result<Projection> {
    let tensor = tensors.require(&format!("{}.weight", slot.name))?;
    let scale_name = format!("{}.weight_scale", slot.name);
    let multiplier = match tensors.scalar(&scale_name)? {
        None => None,
        Some(stored) => Some(match rule {
            Some(ScaleRule::Multiply) => stored,
            Some(ScaleRule::Divide) => 1.0 / stored,
            None => return Err(unknown_direction(config_file)),
        }),
    };
    let form = if tensor.stored == StoredType::U8 {
        check_packed(tensor, slot)?;
        let scale = multiplier.ok_or_else(|| LoadError::MissingTensor {
            file: tensors.place().to_owned(),
            tensor: scale_name,
            remedy: "packed weights need their scale; fetch the model again",
        })?;
        Form::Ternary(TritCodec::HfPacked, scale)
    } else {
        let remedy = "uint8 (packed) and f32, f16 or bf16 (masters) are supported for projections";
        let dtype = tensor.stored.dense().ok_or_else(|| unsupported_type(tensor, remedy))?;
        check_shape(tensor, &[slot.rows, slot.cols])?;
        Form::Masters { dtype: dtype.into(), factor: multiplier }
    };
    Ok(slot.filled(tensor, form, tensor.data.clone()))
}

/// Four output rows share a byte row.
fn check_packed(tensor: &StoredTensor, slot: &Slot) -> Result<()> {
    TritCodec::HfPacked.byte_len(slot.rows, slot.cols).map_err(|source| LoadError::Quant {
        file: tensor.origin.to_string(),
        tensor: tensor.name.clone(),
        source,
    })?;
    check_shape(tensor, &[slot.rows / 4, slot.cols])
}

fn unknown_direction(config_file: &str) -> LoadError {
    LoadError::MissingField {
        file: config_file.to_owned(),
        field: "quantization_config".to_owned(),
        remedy: "its linear_class tells whether weight_scale multiplies (autobitlinear) or divides (bitlinear)",
    }
}
