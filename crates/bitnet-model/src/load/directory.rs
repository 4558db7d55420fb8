//! Model folders of Hugging Face: which files hold the weights, and the model in them.

use bitnet_core::CoreError;
use bitnet_core::bytes::ByteView;
use bitnet_formats::{ShardIndex, TensorSet, gguf_part_of, read_pytorch_shards, read_shards};
use bitnet_quant::TritCodec;

use super::config::{HfConfig, ScaleRule};
use super::error::{LoadError, Result};
use super::folder::Folder;
use super::json::JsonFile;
use super::projection::MasterRule;
use super::{
    GenerationDefaults, LoadOptions, LoadedModel, embedding, gguf, hugging, microsoft, onnx, pytorch,
    summaries, text,
};
use crate::{LayerWeights, Weights};

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Which file holds the weights.
#[derive(Debug, PartialEq)]
enum WeightFile {
    /// One safetensors or PyTorch file.
    Single(String),
    /// Several, listed in the index of this name.
    Sharded(&'static str),
    /// A GGUF file.
    Gguf(String),
    /// An ONNX file, with others for its data.
    Onnx(String),
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
    let mut warnings = Vec::new();
    let (set, kind, place, file_bytes) = match &file {
        WeightFile::Gguf(name) => {
            return gguf::load(folder, open(folder, name)?, name, options);
        }
        WeightFile::Onnx(name) => return onnx::load(folder, name, options),
        WeightFile::Single(name) => {
            let view = open(folder, name)?;
            let origin = folder.origin(name);
            let bytes = view.len() as u64;
            let (set, kind) = pytorch::read_either(view, name, &origin, &mut warnings)?;
            (set, kind, origin, bytes)
        }
        WeightFile::Sharded(index) => read_sharded(folder, index)?,
    };
    let config_file = folder.origin(CONFIG);
    let is_microsoft = microsoft::is_microsoft(&set);
    let json = match folder.open(CONFIG)? {
        None if is_microsoft => microsoft::config(&set, &place)?,
        _ => JsonFile::parse(open(folder, CONFIG)?.as_slice(), &config_file)?,
    };
    let config = HfConfig::read(&json.root())?;
    let rule = match config.says_bitnet || options.dense_as_masters {
        true => MasterRule::Quantise,
        false => MasterRule::TernaryOnly,
    };
    let model = if is_microsoft {
        microsoft::build(&set, &place, &config)?
    } else {
        hugging::build(&set, &place, &config, &config_file, rule)?
    };
    let mut generation = match folder.open("generation_config.json")? {
        None => GenerationDefaults::default(),
        Some(view) => {
            let json = JsonFile::parse(view.as_slice(), &folder.origin("generation_config.json"))?;
            GenerationDefaults::read(&json.root())?
        }
    };
    generation.bos = generation.bos.or(config.bos);
    generation.stop_tokens.splice(0..0, config.eos.iter().copied());
    warnings.extend(model.warnings);
    let embedding = embedding::from_folder(folder, &mut warnings)?;
    let is_embedding = model.spec.extras.projection_norms;
    let text = text::from_folder(folder, &config, is_embedding, options, &mut generation, &mut warnings)?;
    generation.finish(model.spec.vocab_size, text.tokenizer.as_deref(), &mut warnings);
    Ok(LoadedModel {
        name: folder.model_name(),
        format: format!("{kind}, {}", describe(&model.weights, config.scale_rule)),
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
    for index in [INDEX, pytorch::INDEX] {
        if has(names, index) && shard_index(folder, index)?.files.iter().any(|file| file == name) {
            return Ok(WeightFile::Sharded(index));
        }
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
        return Ok(WeightFile::Sharded(INDEX));
    }
    let ending = |end: &str| -> Vec<String> {
        names.iter().filter(|n| n.to_ascii_lowercase().ends_with(end)).cloned().collect()
    };
    let mut safetensors = ending(".safetensors");
    if safetensors.len() == 1 {
        return Ok(WeightFile::Single(safetensors.remove(0)));
    }
    let missing_index = |file: &str| {
        let remedy =
            "it tells which of the files holds which tensor; fetch it from where the weights came from";
        Err(LoadError::MissingFile { place: folder.place(), file: file.to_owned(), remedy })
    };
    let is_shard = |name: &String| name.contains("-of-");
    if safetensors.iter().any(is_shard) {
        return missing_index(INDEX);
    }
    if !safetensors.is_empty() {
        return Err(LoadError::Ambiguous { place: folder.place(), names: safetensors });
    }
    let torch = match pytorch::find(names) {
        pytorch::Found::Named(name) => return Ok(WeightFile::Single(name)),
        pytorch::Found::Sharded => return Ok(WeightFile::Sharded(pytorch::INDEX)),
        pytorch::Found::Others(others) => others,
        pytorch::Found::Nothing => Vec::new(),
    };
    let mut ggufs = ending(".gguf");
    // The first part that is there stands for all of a model.
    ggufs.dedup_by(|next, kept| gguf_part_of(next).is_some_and(|(stem, _)| is_part_of(kept, stem)));
    let mut graphs = ending(".onnx");
    match (ggufs.len(), &torch[..], graphs.len()) {
        (1, ..) => Ok(WeightFile::Gguf(ggufs.remove(0))),
        // Other files may be its data, whatever they are called.
        (0, _, 1) => Ok(WeightFile::Onnx(graphs.remove(0))),
        (0, [one], _) => Ok(WeightFile::Single(one.clone())),
        (0, [], 0) => Err(LoadError::NoModel { place: folder.place(), found: what_is_there(names, &ending) }),
        (0, [], _) => Err(LoadError::Ambiguous { place: folder.place(), names: graphs }),
        (0, several, _) if several.iter().any(is_shard) => missing_index(pytorch::INDEX),
        (0, several, _) => Err(LoadError::Ambiguous { place: folder.place(), names: several.to_vec() }),
        _ => Err(LoadError::Ambiguous { place: folder.place(), names: ggufs }),
    }
}

/// Whether a file is a part of the model that is called `stem`.
fn is_part_of(name: &str, stem: &str) -> bool {
    gguf_part_of(name).is_some_and(|(its, _)| its == stem)
}

/// Says what a folder without a usable model holds.
fn what_is_there(names: &[String], ending: &dyn Fn(&str) -> Vec<String>) -> String {
    if names.is_empty() {
        return "the folder holds no files".to_owned();
    }
    if let Some(name) = [".msgpack", ".h5", ".ot"].iter().find_map(|end| ending(end).into_iter().next()) {
        return format!("the folder holds weights of another framework ({name}), which are not read");
    }
    match names {
        [one] => format!("the folder holds only {one}"),
        [first, ..] => format!("the folder holds {} files ({first}, ...) but no weights", names.len()),
        [] => "the folder holds no files".to_owned(),
    }
}

fn shard_index(folder: &Folder<'_>, index: &str) -> Result<ShardIndex> {
    Ok(ShardIndex::from_json(open(folder, index)?.as_slice(), &folder.origin(index))?)
}

/// Reads all files of an index: tensors, their kind, the folder and the bytes of all files.
fn read_sharded(folder: &Folder<'_>, index_file: &str) -> Result<(TensorSet, &'static str, String, u64)> {
    let index = shard_index(folder, index_file)?;
    let mut bytes = 0;
    let mut missing = None;
    let mut open = |name: &str| {
        let Some(view) = folder.open(name)? else {
            missing = Some(name.to_owned());
            let path = folder.origin(name).into();
            return Err(CoreError::Io { path, source: std::io::ErrorKind::NotFound.into() }.into());
        };
        bytes += view.len() as u64;
        Ok(view)
    };
    let (result, kind) = if index_file == pytorch::INDEX {
        (read_pytorch_shards(&index, &folder.origin(index_file), &mut open), "PyTorch")
    } else {
        (read_shards(&index, &folder.origin(index_file), &mut open), "safetensors")
    };
    match (result, missing) {
        (_, Some(file)) => {
            let remedy = "the index lists it; fetch all files of the model";
            Err(LoadError::MissingFile { place: folder.place(), file, remedy })
        }
        (result, None) => Ok((result?, kind, folder.place(), bytes)),
    }
}

/// How the projections are stored, for people.
fn describe(weights: &Weights, rule: Option<ScaleRule>) -> String {
    let codecs = weights.layers.iter().flat_map(LayerWeights::projections).map(|(_, matrix)| matrix.codec());
    let mut kinds: Vec<String> = Vec::new();
    for codec in codecs {
        let kind = match (codec, rule) {
            (TritCodec::Dense { dtype, .. }, _) => format!("{dtype} masters"),
            (TritCodec::Int2Tiles, _) => TritCodec::Int2Tiles.name().to_owned(),
            (_, Some(ScaleRule::Multiply)) => "packed (autobitlinear)".to_owned(),
            _ => "packed (bitlinear)".to_owned(),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(" and ")
}
