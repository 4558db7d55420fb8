//! [`InferenceEngine`]: a model that is ready to run.
//!
//! It owns the executor behind a lock that is held for one forward call and its sampling, so threads may share an engine
//! and take turns token by token. It owns the numbers of the KV blocks, never their memory.

mod builder;
mod constraints;
mod step;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bitnet_core::MemorySize;
use bitnet_model::load::{EmbeddingDefaults, GenerationDefaults, LoadError, LoadedModel};
use bitnet_model::{Executor, ExecutorInfo, ModelSpec, Weights};
use bitnet_text::{ChatTemplate, Tokenizer};

pub use self::builder::EngineBuilder;
pub(crate) use self::step::Backend;
use crate::error::{EngineError, ParameterError};
use crate::grammar::{GrammarError, GrammarFactory};
use crate::kv::{BlockPool, PoolStats, Session};

/// What the engine keeps of a loaded model beside its executor.
#[derive(Debug, Clone)]
pub struct EngineModel {
    /// Name, for people.
    pub name: String,
    /// Folder or file it was loaded from.
    pub place: String,
    /// Form in which it was stored, for people.
    pub format: String,
    /// Bytes of its weight files.
    pub file_bytes: u64,
    /// Its tokenizer, if it came with one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Why there is no tokenizer, or what is special about it.
    pub tokenizer_note: Option<String>,
    /// Its chat template, if it has one.
    pub chat_template: Option<ChatTemplate>,
    /// Its sampling defaults and stop tokens.
    pub generation: GenerationDefaults,
    /// How it wants its embeddings to be made.
    pub embedding: EmbeddingDefaults,
    /// What people should know about the files.
    pub warnings: Vec<String>,
}

impl EngineModel {
    /// Splits a loaded model into what an executor is made from and what the engine keeps.
    pub fn split(loaded: LoadedModel) -> (ModelSpec, Weights, Self) {
        let model = Self {
            name: loaded.name,
            place: loaded.place,
            format: loaded.format,
            file_bytes: loaded.file_bytes,
            tokenizer: loaded.tokenizer,
            tokenizer_note: loaded.tokenizer_note,
            chat_template: loaded.chat_template,
            generation: loaded.generation,
            embedding: loaded.embedding,
            warnings: loaded.warnings,
        };
        (loaded.spec, loaded.weights, model)
    }
}

/// A loaded model with its executor. See the [crate's example](crate).
#[derive(Debug)]
pub struct InferenceEngine {
    model: EngineModel,
    spec: ModelSpec,
    info: ExecutorInfo,
    context: usize,
    load_time: Duration,
    backend: Mutex<Backend>,
    pool: Arc<Mutex<BlockPool>>,
    /// Made when the first constraint comes, as it takes time and memory.
    grammars: OnceLock<Result<GrammarFactory, GrammarError>>,
}

impl InferenceEngine {
    /// Starts to describe an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Makes an engine of any executor. `context` is the most tokens of one conversation (`None`: as many as the model
    /// was made for), `sessions` how many full conversations may have their keys and values in memory at a time.
    ///
    /// # Errors
    /// [`EngineError::ContextTooLong`] or [`EngineError::Parameter`] if `context` or `sessions` is not possible.
    pub fn from_executor(
        model: EngineModel,
        executor: Box<dyn Executor>,
        context: Option<usize>,
        sessions: usize,
    ) -> Result<Self, EngineError> {
        let (spec, info) = (executor.spec().clone(), executor.info());
        let context = checked_context(context, &spec, &model.name)?;
        if sessions == 0 {
            return Err(
                ParameterError { name: "sessions", value: "0".to_owned(), allowed: "1 or more" }.into()
            );
        }
        let budget = context.div_ceil(info.block_size).saturating_mul(sessions);
        Ok(Self {
            backend: Mutex::new(Backend::new(executor)),
            pool: Arc::new(Mutex::new(BlockPool::new(budget, info.block_size))),
            model,
            spec,
            info,
            context,
            load_time: Duration::ZERO,
            grammars: OnceLock::new(),
        })
    }

    /// The model: name, tokenizer, template, defaults, warnings.
    pub fn model(&self) -> &EngineModel {
        &self.model
    }

    /// The model's architecture.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Facts about the executor.
    pub fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    /// The model's sampling defaults and stop tokens.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.model.generation
    }

    /// Most tokens of one conversation, prompt and answer.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How long loading the files and preparing the weights took.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// Memory that the executor holds for keys and values now.
    pub fn kv_memory(&self) -> MemorySize {
        let blocks = crate::kv::lock(&self.pool).reserved() as u64;
        MemorySize::bytes(self.info.block_bytes.as_bytes() * blocks)
    }

    /// How the blocks for keys and values are used.
    pub fn pool_stats(&self) -> PoolStats {
        crate::kv::lock(&self.pool).stats()
    }

    /// Forgets what was computed of texts whose sessions have ended, and makes nothing of what is computed now known.
    /// Sessions go on as they are.
    pub fn forget_cached(&self) {
        crate::kv::lock(&self.pool).forget_cached();
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`LoadError::TokenizerMissing`] with the reason if the model came without one.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, EngineError> {
        self.model.tokenizer.as_ref().ok_or_else(|| {
            let why =
                self.model.tokenizer_note.clone().unwrap_or_else(|| "none of the files is there".to_owned());
            LoadError::TokenizerMissing { place: self.model.place.clone(), why }.into()
        })
    }

    /// A new, empty conversation. It finds what others of this engine have computed of the same beginning, and they what it
    /// computes.
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.pool), self.context)
    }

    /// A new session that computes everything itself, for those who need what comes of every token, and for measuring.
    pub(crate) fn scratch_session(&self) -> Session {
        self.session().alone()
    }

    /// The executor, for one forward call. After a panic in an executor its state cannot be trusted in theory, but all that
    /// it keeps between calls is written before it is read.
    pub(crate) fn backend(&self) -> MutexGuard<'_, Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool(&self) -> &Arc<Mutex<BlockPool>> {
        &self.pool
    }
}

/// The context to use, if the model allows it.
fn checked_context(asked: Option<usize>, spec: &ModelSpec, model: &str) -> Result<usize, EngineError> {
    let limit = spec.context_length;
    match asked {
        None => Ok(limit),
        Some(asked) if asked > limit => {
            Err(EngineError::ContextTooLong { asked, limit, model: model.to_owned() })
        }
        Some(asked) if asked < 2 => {
            let allowed = "at least 2 tokens, one of the prompt and one of the answer";
            Err(ParameterError { name: "context_size", value: asked.to_string(), allowed }.into())
        }
        Some(asked) => Ok(asked),
    }
}
