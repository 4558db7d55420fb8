//! Loading: from model files of any published form to a [`ModelSpec`] and [`Weights`].
//!
//! * [`load`] takes a [`ModelSource`] (a folder, a file, or files in memory) and gives a [`LoadedModel`].
//! * [`LoadOptions`] says what the files cannot tell or tell wrongly.
//! * [`outline`] tells what a model is and whether it loads, without reading its weights.
//! * [`GenerationDefaults`]: how the model wants to be sampled and where it stops.
//! * [`EmbeddingDefaults`]: how it wants its embeddings to be made.
//!
//! Read are Hugging Face folders (packed ternary weights or float masters, one safetensors or PyTorch file or several),
//! GGUF, in one file or several, with every ternary type that a scale for the whole tensor can be had from, ONNX graphs of
//! such models, and the checkpoints of microsoft/BitNet's GPU programs. Tensor data stays in the mapped files; only norms are decoded, and float masters are scanned once for
//! their scale. Configuration is checked before anything is sized by it, and every tensor's type and shape before it is
//! used. Not here: downloading, and the layouts that executors compute with.

mod assemble;
mod config;
#[cfg(test)]
mod config_tests;
mod directory;
mod embedding;
mod error;
mod folder;
mod generation;
mod gguf;
mod gguf_spec;
mod gguf_weights;
mod hugging;
mod json;
mod microsoft;
pub(crate) mod naming;
mod onnx;
mod outline;
mod projection;
mod pytorch;
mod rope;
mod tensors;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitnet_core::bytes::ByteView;
use bitnet_formats::{Container, StoredTensor, TensorSet, detect, read_gguf, read_pytorch, read_safetensors};
use bitnet_quant::I2sLayout;
use bitnet_text::{ChatTemplate, Tokenizer};

use crate::{Activation, ModelSpec, Weights};
pub use embedding::{EmbeddingDefaults, Pooling, UnknownPooling};
use error::Result;
pub use error::{LoadError, ShapeText};
use folder::Folder;
pub use generation::GenerationDefaults;
pub use outline::{Outline, outline};

/// Where a model is.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A model folder, a `.gguf` file, or a safetensors, PyTorch or ONNX file with its configuration beside it.
    Path(PathBuf),
    /// The files of a model folder, or one GGUF file, in memory.
    Memory {
        /// What the model is called.
        name: String,
        /// Name and content of each file.
        files: Vec<(String, ByteView)>,
    },
}

/// What the files of a model cannot tell, or tell wrongly.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Byte order of I2_S tensors.
    pub i2s_layout: I2sLayout,
    /// Activation of GGUF files of the architecture `bitnet`, which stands for two different ones.
    pub activation: Option<Activation>,
    /// A `tokenizer.json` or tiktoken file instead of the model's own tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Source of a chat template instead of the model's own.
    pub chat_template: Option<String>,
    /// Takes float projections for masters to be rounded to trits, whatever the configuration says. A model that was not
    /// trained for it loses its wits.
    pub dense_as_masters: bool,
}

/// A tensor of the model files, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSummary {
    /// Its name in the file.
    pub name: String,
    /// Type of its elements or blocks.
    pub stored: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Bytes it takes in the file.
    pub bytes: u64,
    /// The file.
    pub file: String,
    /// Where it begins in the file; `None` if it does not lie there as it is used.
    pub offset: Option<u64>,
}

/// A model ready for an executor, with what is needed to talk to it.
#[derive(Debug)]
pub struct LoadedModel {
    /// What the model calls itself, or the folder or file.
    pub name: String,
    /// Folder or file it was loaded from.
    pub place: String,
    /// Form of the weights: `safetensors, packed (autobitlinear)`, `safetensors, bf16 masters`, `GGUF v3, I2_S`.
    pub format: String,
    /// The architecture.
    pub spec: ModelSpec,
    /// The tensors.
    pub weights: Weights,
    /// The tokenizer, if there is a usable one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Why there is no tokenizer.
    pub tokenizer_note: Option<String>,
    /// The chat template, if the model has one.
    pub chat_template: Option<ChatTemplate>,
    /// Sampling defaults and stop tokens.
    pub generation: GenerationDefaults,
    /// How it wants its embeddings to be made.
    pub embedding: EmbeddingDefaults,
    /// What people should know about this model, one line each.
    pub warnings: Vec<String>,
    /// All tensors of the files, in their order.
    pub tensors: Vec<TensorSummary>,
    /// Bytes of the weight files.
    pub file_bytes: u64,
}

impl LoadedModel {
    /// The tokenizer.
    ///
    /// # Errors
    /// [`LoadError::TokenizerMissing`] with the reason and the remedy if there is none.
    pub fn require_tokenizer(&self) -> Result<&Arc<Tokenizer>, LoadError> {
        self.tokenizer.as_ref().ok_or_else(|| LoadError::TokenizerMissing {
            place: self.place.clone(),
            why: self.tokenizer_note.clone().unwrap_or_else(|| "none of the files is there".to_owned()),
        })
    }
}

/// Loads a model.
///
/// # Errors
/// [`LoadError`] if the files are missing, malformed, contradict each other or need what the engine does not do.
pub fn load(source: &ModelSource, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    match source {
        ModelSource::Memory { name, files } => directory::load(&Folder::Memory(name, files), None, options),
        ModelSource::Path(path) => {
            let meta = std::fs::metadata(path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => LoadError::NotFound { path: path.clone() },
                _ => LoadError::Folder { path: path.clone(), source },
            })?;
            if meta.is_dir() {
                return directory::load(&Folder::Disk(path.clone()), None, options);
            }
            load_file(path, options)
        }
    }
}

fn load_file(path: &Path, options: &LoadOptions) -> Result<LoadedModel> {
    let view = ByteView::map_file(path)?;
    let origin = path.display().to_string();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match detect(view.as_slice()) {
        Container::Gguf => gguf::load(&Folder::Disk(folder_of(path)), view, &name, options),
        Container::Safetensors | Container::PytorchZip | Container::PytorchLegacy => {
            directory::load(&Folder::Disk(folder_of(path)), Some(&name), options)
        }
        Container::Onnx => onnx::load(&Folder::Disk(folder_of(path)), &name, options),
        found @ Container::OldGgml => {
            Err(no_model(origin, format!("this is {}, which is not read", found.name())))
        }
        // The readers know best why a file is not one of theirs.
        found => {
            let error = if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
                read_gguf(view, &origin).err()
            } else if pytorch::has_ending(&name) {
                read_pytorch(view, &origin).err()
            } else {
                read_safetensors(view, &origin).err()
            };
            Err(error.map_or_else(|| no_model(origin, format!("this is {}", found.name())), LoadError::from))
        }
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn no_model(place: String, found: String) -> LoadError {
    LoadError::NoModel { place, found }
}

fn summaries(set: &TensorSet) -> Vec<TensorSummary> {
    let summary = |tensor: &StoredTensor| TensorSummary {
        name: tensor.name.clone(),
        stored: tensor.stored.to_string(),
        shape: tensor.shape.clone(),
        bytes: tensor.data.len() as u64,
        file: tensor.origin.to_string(),
        offset: tensor.data.offset(),
    };
    set.iter().map(summary).collect()
}
