//! Where the files of a model are.

use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_hub::{Hub, HubConfig, ModelName};
use bitnet_inference::ModelSource;

use crate::config::ModelConfig;

/// Endings of single files that are models.
const FILES: [&str; 3] = ["gguf", "onnx", "safetensors"];

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The program itself.
    Bundled,
    /// A folder or a file.
    Path(PathBuf),
    /// A model on the Hub that must be in the cache.
    Cached(ModelName),
    /// An engine that the program made itself.
    Given {
        /// Name of its model.
        name: String,
        /// Bytes of its files.
        bytes: u64,
    },
}

impl Source {
    /// What was configured.
    ///
    /// # Errors
    /// A message, if there is nothing at the path and it is no name on the Hub.
    pub(super) fn new(config: &ModelConfig) -> Result<Self, String> {
        let Some(text) = config.path.as_deref() else { return Ok(Self::Bundled) };
        let path = Path::new(text);
        if !ModelName::is_explicit(text) && path.exists() {
            return Ok(Self::Path(path.to_owned()));
        }
        match ModelName::parse(text) {
            Ok(name) => Ok(Self::Cached(name)),
            Err(_) => Err(format!("{text}: no such file or folder, and not the name of a model on the Hub")),
        }
    }

    /// How the model is called if nobody says.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Bundled => bitnet_tiny::NAME.to_owned(),
            Self::Path(path) => name_of(path),
            Self::Cached(name) => name.repo.as_str().to_owned(),
            Self::Given { name, .. } => name.clone(),
        }
    }

    /// For people.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Bundled => "bundled with the program".to_owned(),
            Self::Path(path) => path.display().to_string(),
            Self::Cached(name) => name.to_string(),
            Self::Given { .. } => "given by the program".to_owned(),
        }
    }

    /// Bytes of its files, as far as they can be told without reading them.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bundled => bitnet_tiny::files().iter().map(|(_, bytes)| bytes.len() as u64).sum(),
            Self::Path(path) => size_of(path),
            Self::Cached(_) => self.path().map_or(0, |path| size_of(&path)),
            Self::Given { bytes, .. } => *bytes,
        }
    }

    /// The path of the model; none for the bundled one, nor for one that is not in the cache.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Bundled | Self::Given { .. } => None,
            Self::Path(path) => Some(path.clone()),
            Self::Cached(name) => {
                let hub = HubConfig::from_env().and_then(Hub::new).ok()?;
                let found = hub.find(name).ok()??;
                hub.cache().note_use(&found);
                Some(found.path)
            }
        }
    }

    /// What an engine is built from. Looks into the file system.
    ///
    /// # Errors
    /// A message, if a model of the Hub is not in the cache, or if there are no files to load again.
    pub(super) fn resolve(&self) -> Result<ModelSource, String> {
        if *self == Self::Bundled {
            let view = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), ByteView::from_static(bytes));
            let files = bitnet_tiny::files().into_iter().map(view).collect();
            return Ok(ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files });
        }
        if let Self::Given { name, .. } = self {
            return Err(format!("the engine of {name} was given by the program and is gone"));
        }
        let missing = || format!("{0} is not in the cache; `bitnet pull {0}` fetches it", self.place());
        self.path().map(ModelSource::Path).ok_or_else(missing)
    }
}

/// The name of a file without its ending, or of a folder.
fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = if is_model_file(&full) { full.file_stem() } else { full.file_name() };
    name.map_or_else(|| full.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn is_model_file(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    path.is_file() && ending.is_some_and(|ending| FILES.contains(&ending.as_str()))
}

/// Bytes of a file, or of the files of a folder (not of folders in it).
fn size_of(path: &Path) -> u64 {
    let length = |path: &Path| {
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map_or(0, |data| data.len())
    };
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| length(&entry.path())).sum(),
        Err(_) => length(path),
    }
}

/// The models in a folder, by name: folders with a `config.json` or a model file in them, and model files.
pub(super) fn models_in(folder: &Path) -> Vec<Source> {
    let is_model = |path: &PathBuf| {
        let holds_model = || {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            path.join("config.json").is_file()
                || entries.into_iter().any(|entry| is_model_file(&entry.path()))
        };
        is_model_file(path) || (path.is_dir() && holds_model())
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|p| !hidden(p) && is_model(p)).collect();
    paths.sort();
    paths.into_iter().map(Source::Path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_for_models() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"1234").unwrap();
        };
        for name in
            ["b.gguf", "a/config.json", "c/m.gguf", "notes.txt", "empty/readme.md", ".hidden/config.json"]
        {
            write(name);
        }
        let models = models_in(dir.path());
        let names: Vec<String> = models.iter().map(Source::name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(models[1].size(), 4);
        assert!(models_in(Path::new("/no/such/folder")).is_empty());
    }

    #[test]
    fn sources_are_told_apart() {
        let source = |path: &str| Source::new(&ModelConfig { name: None, path: Some(path.to_owned()) });
        assert_eq!(source("/").unwrap(), Source::Path("/".into()));
        assert!(matches!(source("org/name@v1:i2_s").unwrap(), Source::Cached(_)));
        assert!(source("/no/such/model").unwrap_err().contains("/no/such/model"));
        assert_eq!(Source::new(&ModelConfig::default()).unwrap(), Source::Bundled);
    }
}
