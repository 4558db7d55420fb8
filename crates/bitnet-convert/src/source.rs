//! [`Source`]: a loaded model with the small files, or the metadata, that it came with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_formats::{Container, GgufMetadata, detect, read_gguf};
use bitnet_model::load::{LoadedModel, load};
use bitnet_model::{LayerWeights, LoadOptions, ModelSource};

use crate::error::Result;

/// Small files that go with the weights of a folder.
const SIDE_FILES: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
];

/// A model to convert.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) model: LoadedModel,
    /// The small files of a folder; none of a GGUF file.
    pub(crate) files: BTreeMap<&'static str, ByteView>,
    /// The metadata of a GGUF file.
    pub(crate) metadata: Option<GgufMetadata>,
    /// Whether a tokenizer was given to be used instead of the model's own.
    pub(crate) tokenizer_given: bool,
}

impl Source {
    /// Loads a model and finds what is beside its weights.
    pub(crate) fn open(source: &ModelSource, options: &LoadOptions) -> Result<Self> {
        let model = load(source, options)?;
        let tokenizer_given = options.tokenizer.is_some();
        // What was read to find out about the model goes back before the work begins.
        bitnet_core::process::trim_heap();
        if model.spec.architecture.starts_with("gguf ") {
            let metadata = gguf_view(source, &model)?
                .map(|view| read_gguf(view, &model.place).map(|file| file.metadata))
                .transpose()?;
            return Ok(Self { model, files: BTreeMap::new(), metadata, tokenizer_given });
        }
        let mut files = BTreeMap::new();
        for name in SIDE_FILES {
            if let Some(view) = side_file(source, name)? {
                files.insert(name, view);
            }
        }
        Ok(Self { model, files, metadata: None, tokenizer_given })
    }

    /// Bytes that are read when all weights are.
    pub(crate) fn ternary_bytes(&self) -> u64 {
        let layers = self.model.weights.layers.iter();
        layers.flat_map(LayerWeights::projections).map(|(_, matrix)| matrix.data().len() as u64).sum()
    }
}

fn gguf_view(source: &ModelSource, model: &LoadedModel) -> Result<Option<ByteView>> {
    match source {
        ModelSource::Memory { files, .. } => {
            let is_gguf = |view: &ByteView| detect(view.as_slice()) == Container::Gguf;
            Ok(files.iter().map(|(_, view)| view).find(|view| is_gguf(view)).cloned())
        }
        // A loaded GGUF model says in which file it is, whatever folder was named.
        ModelSource::Path(_) => Ok(Some(ByteView::map_file(Path::new(&model.place))?)),
    }
}

fn side_file(source: &ModelSource, name: &str) -> Result<Option<ByteView>> {
    match source {
        ModelSource::Memory { files, .. } => {
            Ok(files.iter().find(|(other, _)| other == name).map(|(_, view)| view.clone()))
        }
        ModelSource::Path(path) => {
            let file = folder_of(path).join(name);
            if file.is_file() { Ok(Some(ByteView::map_file(&file)?)) } else { Ok(None) }
        }
    }
}

/// The folder that a model is in.
fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
