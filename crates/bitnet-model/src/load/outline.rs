//! [`outline`]: what a model is and whether it loads, without reading its weights.
//!
//! It runs the loader itself, so that it tells what the loader would, but for three things that take long: of float
//! weights and of weights with scales to compare only the first tensor of each form and shape is scanned, and neither
//! tokenizer files nor vocabularies are read. Which readers these are is up to the format, so that loading is told by its
//! thread and not by a parameter of each of them.

use std::cell::Cell;
use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_formats::{Container, detect, read_gguf};

use super::{LoadError, LoadOptions, ModelSource, load};
use crate::ModelSpec;

/// What can be told of a model at a glance.
#[derive(Debug)]
pub struct Outline {
    /// What the model calls itself, or the folder or file.
    pub name: String,
    /// Form of the weights, as [`LoadedModel::format`](super::LoadedModel::format).
    pub format: String,
    /// The architecture.
    pub spec: ModelSpec,
    /// Source of the chat template, if the model has one.
    pub chat_template: Option<String>,
    /// Why there is no tokenizer, if there is none; one that is there may still be damaged.
    pub tokenizer_note: Option<String>,
    /// The licence that a GGUF file names.
    pub license: Option<String>,
    /// What people should know about the model.
    pub warnings: Vec<String>,
    /// Bytes of the weight files.
    pub file_bytes: u64,
}

thread_local! {
    static GLANCING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread loads for an outline.
pub(super) fn is_glancing() -> bool {
    GLANCING.get()
}

/// Loading for an outline, until dropped.
struct Glance(());

impl Glance {
    fn begin() -> Self {
        GLANCING.set(true);
        Self(())
    }
}

impl Drop for Glance {
    fn drop(&mut self) {
        GLANCING.set(false);
    }
}

/// Tells what the model at `path` is.
///
/// # Errors
/// As [`load`], for all that shows without reading the weights.
pub fn outline(path: &Path) -> Result<Outline, LoadError> {
    let _glance = Glance::begin();
    let model = load(&ModelSource::Path(path.to_owned()), &LoadOptions::default())?;
    Ok(Outline {
        name: model.name,
        format: model.format,
        spec: model.spec,
        chat_template: model.chat_template.map(|template| template.source().to_owned()),
        license: gguf_license(path),
        tokenizer_note: model.tokenizer_note.filter(|note| note != NOT_READ),
        warnings: model.warnings,
        file_bytes: model.file_bytes,
    })
}

fn gguf_license(path: &Path) -> Option<String> {
    let view = ByteView::map_file(path).ok().filter(|view| detect(view.as_slice()) == Container::Gguf)?;
    let file = read_gguf(view, &path.display().to_string()).ok()?;
    file.metadata.string("general.license").ok()?.map(str::to_owned)
}

/// The note of a tokenizer that is there and was not read.
pub(super) const NOT_READ: &str = "not read for an outline";
