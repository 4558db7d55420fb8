//! GGUF models: metadata and tensors put together.

use bitnet_core::bytes::ByteView;
use bitnet_formats::{gguf_part_of, read_gguf_parts};
use bitnet_quant::TritCodec;

use super::assemble::{Slot, assemble};
use super::error::{LoadError, Result};
use super::folder::Folder;
use super::gguf_spec::{self, Arch};
use super::gguf_weights::{self, TERNARY_TYPES, is_ternary};
use super::naming::Naming;
use super::projection::MasterRule;
use super::tensors::Tensors;
use super::{GenerationDefaults, LoadOptions, LoadedModel, embedding, summaries, text};
use crate::{LayerWeights, ModelSpec, RopeScaling, Weights};

/// Loads the GGUF file of this name, with the other parts if it is one of several. The model is called as the file if
/// it does not name itself.
///
/// # Errors
/// If the file is malformed or the model cannot be run.
pub(super) fn load(
    folder: &Folder<'_>,
    view: ByteView,
    file_name: &str,
    options: &LoadOptions,
) -> Result<LoadedModel> {
    let origin = &folder.origin(file_name);
    let file = read_gguf_parts(view, file_name, origin, &mut |name| {
        Ok(folder.open(name)?.map(|view| (view, folder.origin(name))))
    })?;
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
    let read = |slot: &Slot| gguf_weights::projection(&tensors, options.i2s_layout, slot);
    let order = arch.qk_order(spec.head_dim);
    let rule = match projection_norms || options.dense_as_masters {
        true => MasterRule::Quantise,
        false => arch.master_rule(),
    };
    let weights = assemble(&tensors, &spec, &naming, order, rule, &read)?;

    let mut generation = GenerationDefaults::default();
    let embedding = embedding::from_gguf(&file, origin, arch.name(), projection_norms, &mut warnings)?;
    let text = text::from_gguf(&file, origin, spec.vocab_size, options, &mut generation, &mut warnings)?;
    generation.finish(spec.vocab_size, text.tokenizer.as_deref(), &mut warnings);
    let stem = gguf_part_of(file_name).map_or(file_name, |(stem, _)| stem);
    let stem = stem.strip_suffix(".gguf").unwrap_or(stem);
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
        file_bytes: file.file_bytes,
    })
}

/// A llama file without ternary weights would only lead to an error about its first odd tensor type.
fn refuse_plain_llama(tensors: &Tensors<'_>, origin: &str) -> Result<()> {
    let Some(first) = tensors.find("blk.0.attn_q.weight") else { return Ok(()) };
    if is_ternary(first.stored) || first.stored.dense_type().is_some() {
        return Ok(());
    }
    let why =
        format!("tensor {} has the type {}, ternary weights have {TERNARY_TYPES}", first.name, first.stored);
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
