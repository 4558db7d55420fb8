//! Model folders of Hugging Face: which files hold the weights, and the model in them.

use bitnet_core::CoreError;
use bitnet_core::bytes::ByteView;
use bitnet_formats::{ShardIndex, TensorSet, read_safetensors, read_shards};
use bitnet_quant::TritCodec;

use super::config::{HfConfig, ScaleRule};
use super::error::{LoadError, Result};
use super::folder::Folder;
use super::json::JsonFile;
use super::{GenerationDefaults, LoadOptions, LoadedModel, embedding, gguf, hugging, summaries, text};
use crate::{LayerWeights, Weights};

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Which file holds the weights.
#[derive(Debug, PartialEq)]
enum WeightFile {
    /// One safetensors file.
    Single(String),
    /// Several, listed in the index.
    Sharded,
    /// A GGUF file.
    Gguf(String),
}

/// Loads the model of a folder; `only` names the weight file if the person did.
///
/// # Errors
/// If files are missing or malformed, or the model cannot be run.
pub(super) fn load(folder: &Folder<'_>, only: Option<&str>, options: &LoadOptions) -> Result<LoadedModel> {
    let names = folder.names()?;
    let file = match only {
        Some(name) => named_file(folder, &names, name)?,
        None => find_weights(folder, &names)?,
    };
    let (set, place, file_bytes) = match &file {
        WeightFile::Gguf(name) => {
            let view = open(folder, name)?;
            return gguf::load(&view, &folder.origin(name), name, options);
        }
        WeightFile::Single(name) => {
            let view = open(folder, name)?;
            let origin = folder.origin(name);
            let bytes = view.len() as u64;
            (read_safetensors(view, &origin)?.tensors, origin, bytes)
        }
        WeightFile::Sharded => read_sharded(folder)?,
    };
    let config_file = folder.origin(CONFIG);
    let json = JsonFile::parse(open(folder, CONFIG)?.as_slice(), &config_file)?;
    let config = HfConfig::read(&json.root())?;
    let model = hugging::build(&set, &place, &config, &config_file)?;
    let mut generation = match folder.open("generation_config.json")? {
        None => GenerationDefaults::default(),
        Some(view) => {
            let json = JsonFile::parse(view.as_slice(), &folder.origin("generation_config.json"))?;
            GenerationDefaults::read(&json.root())?
        }
    };
    generation.bos = generation.bos.or(config.bos);
    generation.stop_tokens.splice(0..0, config.eos.iter().copied());
    let mut warnings = model.warnings;
    let embedding = embedding::from_folder(folder, &mut warnings)?;
    let is_embedding = model.spec.extras.projection_norms;
    let text = text::from_folder(folder, &config, is_embedding, options, &mut generation, &mut warnings)?;
    generation.finish(model.spec.vocab_size, text.tokenizer.as_deref(), &mut warnings);
    Ok(LoadedModel {
        name: folder.model_name(),
        format: format!("safetensors, {}", describe(&model.weights, config.scale_rule)),
        place: folder.place(),
        spec: model.spec,
        weights: model.weights,
        tokenizer: text.tokenizer,
        tokenizer_note: text.note,
        chat_template: text.template,
        generation,
        embedding,
        warnings,
        tensors: summaries(&set),
        file_bytes,
    })
}

fn open(folder: &Folder<'_>, name: &str) -> Result<ByteView> {
    folder.open(name)?.ok_or_else(|| LoadError::MissingFile {
        place: folder.place(),
        file: name.to_owned(),
        remedy: "take all files of the model from where the weights came from",
    })
}

/// A file that was named: one shard of several stands for all of them.
fn named_file(folder: &Folder<'_>, names: &[String], name: &str) -> Result<WeightFile> {
    if has(names, INDEX) && shard_index(folder)?.files.iter().any(|file| file == name) {
        return Ok(WeightFile::Sharded);
    }
    Ok(WeightFile::Single(name.to_owned()))
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n == name)
}

/// As transformers does: the single file goes before the index.
fn find_weights(folder: &Folder<'_>, names: &[String]) -> Result<WeightFile> {
    if has(names, SINGLE) {
        return Ok(WeightFile::Single(SINGLE.to_owned()));
    }
    if has(names, INDEX) {
        return Ok(WeightFile::Sharded);
    }
    let ending = |end: &str| -> Vec<String> {
        names.iter().filter(|n| n.to_ascii_lowercase().ends_with(end)).cloned().collect()
    };
    let mut safetensors = ending(".safetensors");
    if safetensors.len() == 1 {
        return Ok(WeightFile::Single(safetensors.remove(0)));
    }
    if safetensors.iter().any(|name| name.contains("-of-")) {
        let remedy =
            "it tells which of the files holds which tensor; fetch it from where the weights came from";
        return Err(LoadError::MissingFile { place: folder.place(), file: INDEX.to_owned(), remedy });
    }
    let mut ggufs = ending(".gguf");
    match (safetensors.len(), ggufs.len()) {
        (0, 1) => Ok(WeightFile::Gguf(ggufs.remove(0))),
        (0, 0) => Err(LoadError::NoModel { place: folder.place(), found: what_is_there(names, &ending) }),
        (0, _) => Err(LoadError::Ambiguous { place: folder.place(), names: ggufs }),
        _ => Err(LoadError::Ambiguous { place: folder.place(), names: safetensors }),
    }
}

/// Says what a folder without a usable model holds.
fn what_is_there(names: &[String], ending: &dyn Fn(&str) -> Vec<String>) -> String {
    if names.is_empty() {
        return "the folder holds no files".to_owned();
    }
    for (ends, kind) in [
        (&[".bin", ".pt", ".pth", ".ckpt"][..], "PyTorch weights"),
        (&[".onnx"][..], "an ONNX model"),
        (&[".msgpack", ".h5", ".ot"][..], "weights of another framework"),
    ] {
        if let Some(name) = ends.iter().find_map(|end| ending(end).into_iter().next()) {
            return format!("the folder holds {kind} ({name}), which are not read");
        }
    }
    match names {
        [one] => format!("the folder holds only {one}"),
        [first, ..] => format!("the folder holds {} files ({first}, ...) but no weights", names.len()),
        [] => "the folder holds no files".to_owned(),
    }
}

fn shard_index(folder: &Folder<'_>) -> Result<ShardIndex> {
    Ok(ShardIndex::from_json(open(folder, INDEX)?.as_slice(), &folder.origin(INDEX))?)
}

fn read_sharded(folder: &Folder<'_>) -> Result<(TensorSet, String, u64)> {
    let index = shard_index(folder)?;
    let mut bytes = 0;
    let mut missing = None;
    let result = read_shards(&index, &folder.origin(INDEX), &mut |name| {
        let Some(view) = folder.open(name)? else {
            missing = Some(name.to_owned());
            let path = folder.origin(name).into();
            return Err(CoreError::Io { path, source: std::io::ErrorKind::NotFound.into() }.into());
        };
        bytes += view.len() as u64;
        Ok(view)
    });
    match (result, missing) {
        (_, Some(file)) => {
            let remedy = "the index lists it; fetch all files of the model";
            Err(LoadError::MissingFile { place: folder.place(), file, remedy })
        }
        (result, None) => Ok((result?, folder.place(), bytes)),
    }
}

/// How the projections are stored, for people.
fn describe(weights: &Weights, rule: Option<ScaleRule>) -> String {
    let codecs = weights.layers.iter().flat_map(LayerWeights::projections).map(|(_, matrix)| matrix.codec());
    let mut kinds: Vec<String> = Vec::new();
    for codec in codecs {
        let kind = match (codec, rule) {
            (TritCodec::Dense { dtype, .. }, _) => format!("{dtype} masters"),
            (_, Some(ScaleRule::Multiply)) => "packed (autobitlinear)".to_owned(),
            _ => "packed (bitlinear)".to_owned(),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(" and ")
}
