//! GGUF models: ternary weights as I2_S, or float masters in a BitNet architecture.

use bitnet_core::bytes::ByteView;
use bitnet_formats::{StoredType, read_gguf};
use bitnet_quant::{I2sLayout, TritCodec};

use super::assemble::{Slot, assemble};
use super::error::{LoadError, Result};
use super::gguf_spec::{self, Arch};
use super::naming::Naming;
use super::projection::{Form, MasterRule, Projection};
use super::tensors::{Tensors, check_shape, unsupported_type};
use super::{GenerationDefaults, LoadOptions, LoadedModel, embedding, summaries, text};
use crate::{LayerWeights, ModelSpec, RopeScaling, Weights};

/// Loads a GGUF file; `file_name` is what the model is called if it does not name itself.
///
/// # Errors
/// If the file is malformed or the model cannot be run.
pub(super) fn load(
    view: &ByteView,
    origin: &str,
    file_name: &str,
    options: &LoadOptions,
) -> Result<LoadedModel> {
    let file = read_gguf(view.clone(), origin)?;
    let arch = Arch::read(&file, origin)?;
    let tensors = Tensors::new(&file.tensors, origin);
    if arch == Arch::Llama {
        refuse_plain_llama(&tensors, origin)?;
    }
    let mut naming = Naming::gguf();
    let projection_norms = tensors.has_projection_norms(&naming);
    if projection_norms {
        naming = naming.with_projection_norms();
    }
    let mut warnings = Vec::new();
    let mut spec = gguf_spec::read(&file, arch, &tensors, options, &mut warnings)?;
    spec.sub_norms = tensors.has_sub_norms(&naming);
    spec.extras.projection_norms = projection_norms;
    read_rope_factors(&tensors, &mut spec)?;
    let read = |slot: &Slot| projection(&tensors, options.i2s_layout, slot);
    let order = arch.qk_order(spec.head_dim);
    let rule = if projection_norms { MasterRule::Quantise } else { arch.master_rule() };
    let weights = assemble(&tensors, &spec, &naming, order, rule, &read)?;

    let mut generation = GenerationDefaults::default();
    let embedding = embedding::from_gguf(&file, origin, arch.name(), projection_norms, &mut warnings)?;
    let text = text::from_gguf(&file, origin, spec.vocab_size, options, &mut generation, &mut warnings)?;
    generation.finish(spec.vocab_size, text.tokenizer.as_deref(), &mut warnings);
    let stem = file_name.strip_suffix(".gguf").unwrap_or(file_name);
    let name = file.metadata.string("general.name")?.filter(|name| !name.trim().is_empty()).unwrap_or(stem);
    Ok(LoadedModel {
        name: name.to_owned(),
        place: origin.to_owned(),
        format: format!("GGUF v{}, {}", file.version, describe(&weights)),
        spec,
        weights,
        tokenizer: text.tokenizer,
        tokenizer_note: text.note,
        chat_template: text.template,
        generation,
        embedding,
        warnings,
        tensors: summaries(&file.tensors),
        file_bytes: view.len() as u64,
    })
}

/// A llama file without ternary weights would only lead to an error about its first odd tensor type.
fn refuse_plain_llama(tensors: &Tensors<'_>, origin: &str) -> Result<()> {
    let Some(first) = tensors.find("blk.0.attn_q.weight") else { return Ok(()) };
    if first.stored == StoredType::I2S || first.stored.dense().is_some() {
        return Ok(());
    }
    let why = format!("tensor {} has the type {}, ternary weights have i2_s", first.name, first.stored);
    Err(LoadError::NotBitNet { file: origin.to_owned(), why })
}

/// Llama 3.1 and later stretch the rotary frequencies by factors in a tensor of their own.
fn read_rope_factors(tensors: &Tensors<'_>, spec: &mut ModelSpec) -> Result<()> {
    let name = "rope_freqs.weight";
    if !tensors.contains(name) {
        return Ok(());
    }
    let factors = tensors.norm(name, spec.head_dim / 2)?;
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(());
    }
    if spec.extras.rope_scaling != RopeScaling::None {
        return Err(LoadError::Unsupported {
            file: tensors.place().to_owned(),
            what: format!("tensor {name} together with rope.scaling"),
            remedy: "either of them alone is",
        });
    }
    spec.extras.rope_scaling = RopeScaling::Factors(factors);
    spec.validate().map_err(|source| LoadError::Spec { file: tensors.place().to_owned(), source })
}

fn projection(tensors: &Tensors<'_>, layout: I2sLayout, slot: &Slot) -> Result<Projection> {
    let tensor = tensors.require(&format!("{}.weight", slot.name))?;
    let factor = tensors.scalar(&format!("{}.scale", slot.name))?;
    let mut data = tensor.data.clone();
    let form = if tensor.stored == StoredType::I2S {
        check_shape(tensor, &[slot.rows, slot.cols])?;
        let trits = tensor.elements().unwrap_or(0) / 4;
        let scale = tail_scale(&data, trits, &tensor.origin)?;
        data = data.slice(0, trits, &tensor.origin)?;
        Form::Ternary(TritCodec::I2S(layout), scale * factor.unwrap_or(1.0))
    } else {
        let remedy = "i2_s and f32, f16 or bf16 (masters) are supported for projections";
        let dtype = tensor.stored.dense().ok_or_else(|| unsupported_type(tensor, remedy))?;
        check_shape(tensor, &[slot.rows, slot.cols])?;
        Form::Masters { dtype, factor }
    };
    Ok(slot.filled(tensor, form, data))
}

/// The scale of an I2_S tensor, which stands behind its trits.
fn tail_scale(data: &ByteView, trits: u64, origin: &str) -> Result<f32> {
    let tail = data.slice(trits, trits + 4, origin)?;
    let mut scale = [0u8; 4];
    scale.copy_from_slice(tail.as_slice());
    Ok(f32::from_le_bytes(scale))
}

/// How the projections are stored, for people.
fn describe(weights: &Weights) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for (_, matrix) in weights.layers.iter().flat_map(LayerWeights::projections) {
        let kind = match matrix.codec() {
            TritCodec::Dense { dtype, .. } => format!("{dtype} masters"),
            codec => codec.name().to_owned(),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(" and ")
}
