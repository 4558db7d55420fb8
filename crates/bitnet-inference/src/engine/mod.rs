//! [`InferenceEngine`]: a model that is ready to run.
//!
//! It owns the executor behind a lock that is held for one forward call and its sampling, so threads may share an engine
//! and take turns token by token, as does the scheduler's thread, which computes many requests in one call. It owns the
//! numbers of the KV blocks, never their memory.

mod builder;
mod constraints;
mod kv_budget;
mod lock;
mod step;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bitnet_core::memory_pool::MemoryPool;
use bitnet_core::{MemorySize, MemoryStats};
use bitnet_cpu::PackedWeights;
use bitnet_model::load::{EmbeddingDefaults, GenerationDefaults, LoadError, LoadedModel};
use bitnet_model::{Executor, ExecutorInfo, ModelSpec, Weights, fingerprint};
use bitnet_text::{ChatTemplate, Tokenizer};

pub use self::builder::EngineBuilder;
use self::lock::FairMutex;
pub(crate) use self::step::{Backend, Rows};
use crate::error::{EngineError, ParameterError};
use crate::grammar::{GrammarError, GrammarFactory};
use crate::kv::{BlockPool, PoolStats, Session};
use crate::scheduler::{Scheduler, SchedulerOptions};

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
    /// Tells it apart from other models, in whatever form it is stored: [`bitnet_model::fingerprint()`].
    pub fingerprint: u64,
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
            fingerprint: fingerprint(&loaded.spec, &loaded.weights),
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

/// A loaded model with its executor and its [`Scheduler`]. Clones are handles of one engine: when the last of them is
/// dropped, the scheduler ends what it runs, and the memory goes back. See the [crate's example](crate).
#[derive(Debug, Clone)]
pub struct InferenceEngine {
    core: Arc<Core>,
    scheduler: Arc<Scheduler>,
}

/// What an engine is; its handles and its scheduler's thread hold it.
#[derive(Debug)]
pub(crate) struct Core {
    model: EngineModel,
    spec: ModelSpec,
    info: ExecutorInfo,
    context: usize,
    load_time: Duration,
    /// Buffers of forward calls and results.
    memory: MemoryPool,
    options: SchedulerOptions,
    backend: FairMutex<Backend>,
    pool: Arc<Mutex<BlockPool>>,
    /// Its weights, for engines that share them.
    weights: Option<PackedWeights>,
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
        Self::from_executor_with(model, executor, context, sessions, SchedulerOptions::default())
    }

    /// As [`from_executor`](Self::from_executor), with options of the scheduler. A
    /// [`kv_budget`](SchedulerOptions::kv_budget) takes the place of `sessions`, and conversations are no longer than it
    /// holds.
    ///
    /// # Errors
    /// As [`from_executor`](Self::from_executor), and [`EngineError::Parameter`] if an option is not possible.
    pub fn from_executor_with(
        model: EngineModel,
        executor: Box<dyn Executor>,
        context: Option<usize>,
        sessions: usize,
        options: SchedulerOptions,
    ) -> Result<Self, EngineError> {
        Ok(Self::of_core(Core::new(model, executor, context, sessions, options)?))
    }

    fn of_core(core: Core) -> Self {
        let core = Arc::new(core);
        Self { scheduler: Arc::new(Scheduler::new(Arc::clone(&core))), core }
    }

    /// Starts to describe another engine of the same model that uses the same weights in memory: with other kernels, threads,
    /// keys and values, another context or output layer. `None` for engines of [`from_executor`](Self::from_executor).
    pub fn sibling(&self) -> Option<EngineBuilder> {
        let weights = self.core.weights.clone()?;
        // What people should know of the model is told by this engine.
        let model = EngineModel { warnings: Vec::new(), ..self.core.model.clone() };
        Some(EngineBuilder::sharing(weights, model))
    }

    /// The scheduler, which runs many requests together. Its thread starts with the first request.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The model: name, tokenizer, template, defaults, warnings.
    pub fn model(&self) -> &EngineModel {
        &self.core.model
    }

    /// The model's architecture.
    pub fn spec(&self) -> &ModelSpec {
        &self.core.spec
    }

    /// Facts about the executor.
    pub fn info(&self) -> &ExecutorInfo {
        &self.core.info
    }

    /// The model's sampling defaults and stop tokens.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.core.model.generation
    }

    /// Most tokens of one conversation, prompt and answer.
    pub fn context(&self) -> usize {
        self.core.context
    }

    /// How long loading the files and preparing the weights took.
    pub fn load_time(&self) -> Duration {
        self.core.load_time
    }

    /// Memory that the executor holds for keys and values now.
    pub fn kv_memory(&self) -> MemorySize {
        let blocks = crate::kv::lock(&self.core.pool).reserved() as u64;
        MemorySize::bytes(self.core.info.block_bytes.as_bytes() * blocks)
    }

    /// What the memory pool holds and has done: the buffers of forward calls, and results of [`infer`](Self::infer) that
    /// somebody still has. Weights, keys and values are not in it ([`kv_memory`](Self::kv_memory),
    /// [`ExecutorInfo::weight_bytes`]).
    pub fn memory_stats(&self) -> MemoryStats {
        self.core.memory.stats()
    }

    /// Where buffers and results come from.
    pub(crate) fn memory(&self) -> &MemoryPool {
        &self.core.memory
    }

    /// How the blocks for keys and values are used.
    pub fn pool_stats(&self) -> PoolStats {
        crate::kv::lock(self.pool()).stats()
    }

    /// Forgets what was computed of texts whose sessions have ended, and makes nothing of what is computed now known.
    /// Sessions go on as they are.
    pub fn forget_cached(&self) {
        crate::kv::lock(self.pool()).forget_cached();
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`LoadError::TokenizerMissing`] with the reason if the model came without one.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, EngineError> {
        self.core.tokenizer()
    }

    /// A new, empty conversation. It finds what others of this engine have computed of the same beginning, and they what it
    /// computes.
    pub fn session(&self) -> Session {
        self.core.session()
    }

    /// A new session that computes everything itself, for those who need what comes of every token, and for measuring.
    pub(crate) fn scratch_session(&self) -> Session {
        self.session().alone()
    }

    /// What all handles share.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The executor, for one forward call.
    pub(crate) fn backend(&self) -> MutexGuard<'_, Backend> {
        self.core.backend()
    }

    pub(crate) fn pool(&self) -> &Arc<Mutex<BlockPool>> {
        &self.core.pool
    }

    /// Lets the executor have memory for all blocks that are taken.
    pub(crate) fn reserve_memory(&self, backend: &mut Backend) -> Result<(), EngineError> {
        self.core.reserve_memory(backend)
    }
}

impl Core {
    fn new(
        model: EngineModel,
        executor: Box<dyn Executor>,
        context: Option<usize>,
        sessions: usize,
        options: SchedulerOptions,
    ) -> Result<Self, EngineError> {
        let (spec, info) = (executor.spec().clone(), executor.info());
        let mut context = checked_context(context, &spec, &model.name)?;
        if sessions == 0 {
            return Err(
                ParameterError { name: "sessions", value: "0".to_owned(), allowed: "1 or more" }.into()
            );
        }
        options.validate()?;
        let budget = match options.kv_budget {
            None => context.div_ceil(info.block_size).saturating_mul(sessions),
            Some(memory) => {
                let blocks = memory.as_bytes() / info.block_bytes.as_bytes().max(1);
                let blocks = usize::try_from(blocks).unwrap_or(usize::MAX).min(u32::MAX as usize);
                // A conversation that could never have its blocks would wait for ever.
                context = context.min(blocks.saturating_mul(info.block_size));
                if context < 2 {
                    let allowed = "at least one block of keys and values; `bitnet info` tells its size";
                    return Err(
                        ParameterError { name: "kv_budget", value: memory.to_string(), allowed }.into()
                    );
                }
                blocks
            }
        };
        let mut pool = BlockPool::new(budget, info.block_size);
        pool.set_prefix_cache(options.prefix_cache);
        Ok(Self {
            backend: FairMutex::new(Backend::new(executor)),
            pool: Arc::new(Mutex::new(pool)),
            model,
            spec,
            info,
            context,
            load_time: Duration::ZERO,
            memory: MemoryPool::unlimited(),
            weights: None,
            grammars: OnceLock::new(),
            options,
        })
    }

    pub(crate) fn model(&self) -> &EngineModel {
        &self.model
    }

    pub(crate) fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    pub(crate) fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    pub(crate) fn defaults(&self) -> &GenerationDefaults {
        &self.model.generation
    }

    pub(crate) fn context(&self) -> usize {
        self.context
    }

    pub(crate) fn options(&self) -> &SchedulerOptions {
        &self.options
    }

    pub(crate) fn tokenizer(&self) -> Result<&Arc<Tokenizer>, EngineError> {
        self.model.tokenizer.as_ref().ok_or_else(|| {
            let why =
                self.model.tokenizer_note.clone().unwrap_or_else(|| "none of the files is there".to_owned());
            LoadError::TokenizerMissing { place: self.model.place.clone(), why }.into()
        })
    }

    pub(crate) fn session(&self) -> Session {
        Session::new(Arc::clone(&self.pool), self.context)
    }

    /// The executor, for one forward call. After a panic in an executor its state cannot be trusted in theory, but all that
    /// it keeps between calls is written before it is read.
    pub(crate) fn backend(&self) -> MutexGuard<'_, Backend> {
        self.backend.lock()
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
