//! The shortest ways: an engine or an answer in one call.
//!
//! * [`InferenceEngine::balanced`]: the bundled model, ready to run.
//! * [`InferenceEngine::load_model`]: a model by its path, or by its name in the cache of the Hub.
//! * [`InferenceEngine::quick_infer`]: a text that continues another.
//! * [`InferenceEngine::smart_infer`]: an answer, of the best model that this machine has and can hold.

use std::path::Path;

use bitnet_core::{MemorySize, process};
use bitnet_model::load::ModelSource;

use crate::background;
use crate::device::{Device, DeviceSelector};
use crate::engine::{EngineBuilder, InferenceEngine};
use crate::error::EngineError;
use crate::generate::{GenerateRequest, Generation, Prompt};
use bitnet_text::ChatMessage;

/// Most tokens of a quick answer.
const QUICK_TOKENS: usize = 128;
/// Most tokens of a smart answer.
const SMART_TOKENS: usize = 256;
/// The variable that names the model for [`InferenceEngine::smart_infer`].
const MODEL_VARIABLE: &str = "BITNET_MODEL";
/// The part of the memory that is free which weights may take.
#[cfg(feature = "hub")]
const WEIGHTS_SHARE: f64 = 0.6;
/// The part of the memory that is free which keys and values of one conversation may take.
const KV_SHARE: f64 = 0.2;

/// What [`InferenceEngine::smart_infer`] gives.
#[derive(Debug)]
pub struct SmartAnswer {
    /// The answer.
    pub text: String,
    /// The answer with its tokens and figures.
    pub generation: Generation,
    /// The engine that gave it, for more of them.
    pub engine: InferenceEngine,
    /// What was chosen and why, one sentence each: model, device, context, form of the prompt.
    pub reasons: Vec<String>,
}

/// The bundled model.
#[cfg(feature = "tiny")]
fn bundled_source() -> ModelSource {
    let view = |(name, bytes): (&str, &'static [u8])| {
        (name.to_owned(), bitnet_core::bytes::ByteView::from_static(bytes))
    };
    let files = bitnet_tiny::files().into_iter().map(view).collect();
    ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files }
}

impl InferenceEngine {
    /// Describes an engine of the bundled model, which needs no file and no network.
    #[cfg(feature = "tiny")]
    pub fn bundled() -> EngineBuilder {
        Self::builder().model(bundled_source())
    }

    /// The bundled model with balanced settings, on all cores.
    ///
    /// ```
    /// use bitnet_inference::InferenceEngine;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bitnet_inference::EngineError> {
    /// let engine = InferenceEngine::balanced().await?;
    /// let text = engine.quick_infer("Once upon a time").await?;
    /// assert!(!text.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EngineError`]: no memory or no threads.
    #[cfg(feature = "tiny")]
    pub async fn balanced() -> Result<Self, EngineError> {
        background::run(|_| Self::balanced_blocking()).await
    }

    /// As [`balanced`](Self::balanced), blocking this thread.
    ///
    /// # Errors
    /// As [`balanced`](Self::balanced).
    #[cfg(feature = "tiny")]
    pub fn balanced_blocking() -> Result<Self, EngineError> {
        Self::bundled().optimization_level(crate::OptimizationLevel::Balanced).build()
    }

    /// The model at a path (a folder, a GGUF, safetensors, ONNX or PyTorch file), else the one of that name in the cache of
    /// the Hub (`org/name`, `org/name:variant`), with balanced settings. Downloads nothing.
    ///
    /// # Errors
    /// [`EngineError::ModelNotFound`], or what is wrong with the model.
    pub async fn load_model(model: impl Into<String>) -> Result<Self, EngineError> {
        let model = model.into();
        background::run(move |_| Self::load_model_blocking(&model)).await
    }

    /// As [`load_model`](Self::load_model), blocking this thread.
    ///
    /// # Errors
    /// As [`load_model`](Self::load_model).
    pub fn load_model_blocking(model: &str) -> Result<Self, EngineError> {
        Self::builder().model(find(model)?).build()
    }

    /// Continues a text: as it is, whatever kind of model this is, with the model's sampling defaults, always with the same
    /// seed, up to 128 tokens. The same engine gives the same text for the same prompt.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub async fn quick_infer(&self, prompt: &str) -> Result<String, EngineError> {
        Ok(self.generate(quick_request(prompt)).await?.text)
    }

    /// As [`quick_infer`](Self::quick_infer), blocking this thread.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn quick_infer_blocking(&self, prompt: &str) -> Result<String, EngineError> {
        Ok(self.generate_blocking(&quick_request(prompt))?.text)
    }

    /// Answers a prompt with what this machine has:
    ///
    /// * model: what the variable `BITNET_MODEL` names (a path or a name as for [`load_model`](Self::load_model)); else of the
    ///   models in the cache of the Hub the largest that this engine loads and whose weights fit 60 % of the memory that is
    ///   free; else the bundled one;
    /// * device: the fastest that is available;
    /// * context: as long as the model allows, but its keys and values take at most a fifth of the memory that is free;
    /// * prompt: as a message of a chat if the model has a chat template, else as a text to continue;
    /// * answer: the model's sampling defaults, up to 256 tokens.
    ///
    /// [`SmartAnswer::reasons`] says what was chosen, [`SmartAnswer::engine`] answers more.
    ///
    /// # Errors
    /// What is wrong with the model that the variable names; a failing engine; without the bundled model,
    /// [`EngineError::NoModel`] if there is none.
    pub async fn smart_infer(prompt: &str) -> Result<SmartAnswer, EngineError> {
        let prompt = prompt.to_owned();
        background::run(move |_| Self::smart_infer_blocking(&prompt)).await
    }

    /// As [`smart_infer`](Self::smart_infer), blocking this thread.
    ///
    /// # Errors
    /// As [`smart_infer`](Self::smart_infer).
    pub fn smart_infer_blocking(prompt: &str) -> Result<SmartAnswer, EngineError> {
        let mut reasons = Vec::new();
        let engine = smart_engine(&mut reasons)?;
        let is_chat = engine.model().chat_template.is_some();
        let (prompt, form) = match is_chat {
            true => (
                Prompt::Chat(vec![ChatMessage::user(prompt)]),
                "the model has a chat template: the prompt is a message",
            ),
            false => (Prompt::text(prompt), "the model has no chat template: the prompt is continued"),
        };
        reasons.push(form.to_owned());
        let generation = engine.generate_blocking(&GenerateRequest::new(prompt).max_tokens(SMART_TOKENS))?;
        Ok(SmartAnswer { text: generation.text.clone(), generation, engine, reasons })
    }
}

fn quick_request(prompt: &str) -> GenerateRequest {
    GenerateRequest::new(Prompt::text(prompt)).max_tokens(QUICK_TOKENS).seed(0)
}

/// Free memory, a great deal where the system does not tell.
fn free() -> f64 {
    process::available_memory().map_or(f64::MAX, |free| free.as_bytes() as f64)
}

/// The engine of the best model there is.
fn smart_engine(reasons: &mut Vec<String>) -> Result<InferenceEngine, EngineError> {
    let selection = DeviceSelector::new().select(Device::Auto);
    let found = match std::env::var(MODEL_VARIABLE) {
        Ok(name) if !name.is_empty() => {
            let engine = build(find(&name)?)?;
            reasons.push(format!("the model is {name}, which {MODEL_VARIABLE} names"));
            Some(engine)
        }
        _ => best_cached(reasons),
    };
    let engine = match found {
        Some(engine) => engine,
        None => fallback(reasons)?,
    };
    reasons.push(format!("the device is {}: {}", selection.device, engine.info().description));
    reasons.push(format!("the context is {} tokens", engine.context()));
    Ok(engine)
}

#[cfg(feature = "tiny")]
fn fallback(reasons: &mut Vec<String>) -> Result<InferenceEngine, EngineError> {
    reasons.push(format!("the model is the bundled {}: the cache has none that fits", bitnet_tiny::NAME));
    build(bundled_source())
}

#[cfg(not(feature = "tiny"))]
fn fallback(_: &mut Vec<String>) -> Result<InferenceEngine, EngineError> {
    Err(EngineError::NoModel)
}

/// An engine whose context leaves memory to others.
fn build(source: ModelSource) -> Result<InferenceEngine, EngineError> {
    InferenceEngine::builder().model(source).kv_limit(MemorySize::bytes((free() * KV_SHARE) as u64)).build()
}

/// Where a model is: a path that exists, else a name in the cache.
fn find(given: &str) -> Result<ModelSource, EngineError> {
    let path = Path::new(given);
    if path.exists() {
        return Ok(ModelSource::Path(path.to_owned()));
    }
    match cached(given)? {
        Some(path) => Ok(ModelSource::Path(path)),
        None => Err(EngineError::ModelNotFound { given: given.to_owned() }),
    }
}

#[cfg(feature = "hub")]
fn cached(given: &str) -> Result<Option<std::path::PathBuf>, EngineError> {
    use bitnet_hub::{Cache, HubConfig, ModelName};
    // What is no name was meant to be a path.
    let Ok(name) = ModelName::parse(given) else { return Ok(None) };
    let cache = Cache::new(HubConfig::from_env()?.cache);
    let found = cache.find(&name)?;
    Ok(found.map(|found| {
        cache.note_use(&found);
        found.path
    }))
}

#[cfg(not(feature = "hub"))]
fn cached(_: &str) -> Result<Option<std::path::PathBuf>, EngineError> {
    Ok(None)
}

/// The largest model of the cache that loads and fits. What does not is passed over, with the reason.
#[cfg(feature = "hub")]
fn best_cached(reasons: &mut Vec<String>) -> Option<InferenceEngine> {
    use bitnet_hub::{Cache, HubConfig};
    let cache = Cache::new(HubConfig::from_env().ok()?.cache);
    let mut models = Vec::new();
    for repo in cache.repos().ok()? {
        // The snapshot that was used last stands for the repository.
        let Some(revision) = repo.revisions.first() else { continue };
        for model in revision.models(&repo.repo) {
            if let (Ok(path), Some(_)) = (model.path, model.kind) {
                models.push((model.size, repo.repo.to_string(), path));
            }
        }
    }
    models.sort_by(|a, b| b.cmp(a));
    for (size, name, path) in models {
        if size as f64 > free() * WEIGHTS_SHARE {
            reasons.push(format!("{name} is passed over: {} do not fit the memory", MemorySize::bytes(size)));
            continue;
        }
        match build(ModelSource::Path(path)) {
            Ok(engine) => {
                reasons.push(format!("the model is {name}: the largest of the cache that fits"));
                return Some(engine);
            }
            Err(error) => reasons.push(format!("{name} is passed over: {error}")),
        }
    }
    None
}

#[cfg(not(feature = "hub"))]
fn best_cached(_: &mut Vec<String>) -> Option<InferenceEngine> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_path_nor_name_is_told() {
        for given in ["/no/such/model.gguf", "", "no such/na me"] {
            let error = find(given).unwrap_err();
            assert!(matches!(error, EngineError::ModelNotFound { .. }), "{given:?}: {error}");
        }
        assert!(matches!(find(env!("CARGO_MANIFEST_DIR")), Ok(ModelSource::Path(_))));
    }

    #[test]
    fn quick_answers_are_the_same_each_time() {
        let engine = InferenceEngine::bundled().threads(1).build().unwrap();
        let first = engine.quick_infer_blocking("The little dog").unwrap();
        assert_eq!(first, engine.quick_infer_blocking("The little dog").unwrap());
        assert!(first.len() > 20, "{first}");
    }
}
