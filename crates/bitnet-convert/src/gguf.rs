//! Metadata of the GGUF files that are written.

use bitnet_formats::{GgufMetadata, GgufValue};
use bitnet_model::export::gguf_shape;
use bitnet_model::{Activation, ModelSpec};

use crate::error::{ConvertError, Result};
use crate::source::Source;
use crate::{Target, text};

/// A vocabulary above this size tells readers that the architecture `bitnet` means the activation of
/// bitnet-b1.58-2B-4T.
const LARGE_VOCABULARY: usize = 100_000;

/// All metadata of a model.
///
/// # Errors
/// [`ConvertError::Unsupported`] if no architecture name stands for the model or its tokenizer cannot be put so.
pub(crate) fn metadata(
    source: &Source,
    target: Target,
    notes: &mut Vec<String>,
) -> Result<Vec<(String, GgufValue)>> {
    let spec = &source.model.spec;
    let arch = architecture(spec, target)?;
    let mut all = general(source, target, arch);
    all.extend(gguf_shape(spec, arch));
    all.extend(text::gguf(source, notes)?);
    Ok(all)
}

/// The architecture that stands for activation and sub-norms.
fn architecture(spec: &ModelSpec, target: Target) -> Result<&'static str> {
    match (spec.activation, spec.sub_norms) {
        (Activation::Relu2, true) => Ok("bitnet-b1.58"),
        (Activation::Silu, true) if spec.vocab_size <= LARGE_VOCABULARY => Ok("bitnet"),
        (Activation::Silu, false) => Ok("llama"),
        (activation, sub_norms) => Err(ConvertError::Unsupported {
            target: target.name(),
            what: format!(
                "no architecture name stands for {activation} {} sub-norms and {} tokens",
                if sub_norms { "with" } else { "without" },
                spec.vocab_size
            ),
            remedy: "write a safetensors folder",
        }),
    }
}

/// Names and the like: those of a source that is a GGUF file itself, but for what the new form changes.
fn general(source: &Source, target: Target, arch: &str) -> Vec<(String, GgufValue)> {
    const OWN: [&str; 4] =
        ["general.architecture", "general.file_type", "general.alignment", "general.quantization_version"];
    // Numbers of llama.cpp; that of I2_S is of bitnet.cpp.
    let file_type = match target {
        Target::GgufTq1 => 36,
        Target::GgufTq2 => 37,
        _ => 40,
    };
    let mut all = vec![
        (OWN[0].to_owned(), GgufValue::String(arch.to_owned())),
        (OWN[1].to_owned(), GgufValue::U32(file_type)),
        (OWN[3].to_owned(), GgufValue::U32(2)),
    ];
    let kept = source.metadata.iter().flat_map(GgufMetadata::iter);
    all.extend(
        kept.filter(|(key, _)| key.starts_with("general.") && !OWN.contains(key))
            .map(|(key, value)| (key.to_owned(), value.clone())),
    );
    if !all.iter().any(|(key, _)| key == "general.name") {
        all.push(("general.name".to_owned(), GgufValue::String(source.model.name.clone())));
    }
    all
}
