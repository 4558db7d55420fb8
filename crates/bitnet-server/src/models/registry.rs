//! [`Models`]: the entries, and the engines of those that are loaded.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitnet_core::MemorySize;
use bitnet_inference::model_cache::{CacheError, CacheStats, CachedModel, ModelCache};
use bitnet_inference::{EngineError, InferenceEngine, LoadOptions};

use super::handle::ModelHandle;
use super::source::{Source, models_in};
use crate::config::ServerConfig;
use crate::error::{ApiError, ServerError};
use crate::state::AppState;

/// How often unloading is tried.
const UNLOAD_ATTEMPTS: u32 = 10;

/// What a model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Its files lie there.
    Unloaded,
    /// It is being loaded.
    Loading,
    /// It answers.
    Loaded,
    /// Loading it failed; the next request tries again.
    Failed,
}

impl ModelState {
    /// A short name for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

/// What can be told about a model without loading it, and more if it is loaded.
#[derive(Debug, Clone)]
pub struct ModelSummary {
    /// Its name in requests.
    pub id: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// When the server got to know it, in seconds since 1970.
    pub created: u64,
    /// What it is doing.
    pub state: ModelState,
    /// Whether it is loaded.
    pub loaded: bool,
    /// Why loading it failed.
    pub failure: Option<String>,
    /// Bytes of its files.
    pub size: u64,
    /// Where it is, for people.
    pub path: String,
    /// Form in which it is stored, for people; once it is loaded.
    pub format: Option<String>,
    /// Most tokens of prompt and answer; once it is loaded.
    pub context: Option<usize>,
    /// Tokens it was made for; once it is loaded.
    pub trained_context: Option<usize>,
    /// Rows of its embedding; once it is loaded.
    pub vocab_size: Option<usize>,
    /// Width of its states; once it is loaded.
    pub hidden_size: Option<usize>,
    /// Memory of its weights; once it is loaded.
    pub weight_bytes: Option<u64>,
    /// Weights and other numbers; once it is loaded.
    pub parameters: Option<u64>,
    /// For how long it has been loaded.
    pub loaded_for: Option<Duration>,
}

/// A model that may be asked for.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: Arc<str>,
    aliases: Vec<String>,
    source: Source,
    pub(super) created: u64,
    /// Whether it came from the folder, and goes when it is not there any more.
    from_folder: bool,
    /// Held by the one who loads it.
    loading: tokio::sync::Mutex<()>,
    changing: Mutex<Changing>,
}

/// What changes about an entry.
#[derive(Debug)]
struct Changing {
    used: Instant,
    /// When it was last loaded.
    loaded: Option<Instant>,
    /// How long it stays without being used; None: for ever.
    keep_alive: Option<Duration>,
    failure: Option<String>,
}

impl Entry {
    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn touch(&self) {
        self.changing().used = Instant::now();
    }

    pub(super) fn keep_for(&self, time: Option<Duration>) {
        self.changing().keep_alive = time;
    }

    fn is_called(&self, name: &str) -> bool {
        &*self.id == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// How engines are built.
#[derive(Debug)]
struct Settings {
    config: ServerConfig,
}

impl Settings {
    fn new(config: &ServerConfig) -> Self {
        Self { config: config.clone() }
    }

    /// Builds the engine of a model. Takes seconds.
    fn build(&self, source: &Source) -> Result<InferenceEngine, String> {
        let config = &self.config;
        let template = config.chat_template.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        });
        let options = LoadOptions {
            tokenizer: config.tokenizer.clone(),
            chat_template: template.transpose()?,
            ..LoadOptions::default()
        };
        let builder = InferenceEngine::builder()
            .model(source.resolve()?)
            .load_options(options)
            .threads(config.threads)
            .device(config.device)
            .gpu_memory(config.gpu_memory.map(|size| size.0))
            .on_device_failure(config.on_device_error)
            .kernels(config.kernels.clone())
            .weight_form(config.weight_form.form())
            .kv_type(config.kv_type)
            .context_size(config.ctx_size)
            .scheduler(config.scheduler());
        builder.build().map_err(|error| error.to_string())
    }
}

/// All models of a server.
#[derive(Debug)]
pub(crate) struct Models {
    entries: RwLock<Vec<Arc<Entry>>>,
    cache: ModelCache,
    settings: Settings,
    folder: Option<PathBuf>,
    strict: bool,
    keep_alive: Option<Duration>,
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Models {
    /// The models that are configured, none of them loaded.
    ///
    /// # Errors
    /// [`ServerError::Model`] for a model that is not there.
    pub(crate) fn new(config: &ServerConfig) -> Result<Self, ServerError> {
        let models = Self::empty(config);
        let mut configured = config.models.clone();
        if configured.is_empty() && config.models_dir.is_none() {
            configured.push(Default::default());
        }
        for (at, model) in configured.iter().enumerate() {
            let wrong = |message: String| {
                let name = model.name.clone().or(model.path.clone()).unwrap_or_default();
                ServerError::Model { name, message }
            };
            let source = Source::new(model).map_err(wrong)?;
            let own = model.name.clone().unwrap_or_else(|| source.name());
            let mut names: Vec<String> = if at == 0 { config.alias.clone() } else { Vec::new() };
            if !names.contains(&own) {
                names.push(own);
            }
            let id = names.remove(0);
            if models.known(&id).is_some() {
                return Err(wrong(format!(
                    "another model is called {id} already; give it a name: NAME=PATH"
                )));
            }
            models.add(id, names, source, false);
        }
        models.search_folder();
        Ok(models)
    }

    /// Serves this engine and nothing else. A budget holds for it as for any model.
    ///
    /// # Errors
    /// [`ServerError::Model`] if it does not fit into the budget.
    pub(crate) fn of_engine(config: &ServerConfig, engine: &InferenceEngine) -> Result<Self, ServerError> {
        let models = Self::empty(config);
        let model = engine.model();
        let source = Source::Given { name: model.name.clone(), bytes: model.file_bytes };
        let wrong =
            |error: CacheError| ServerError::Model { name: model.name.clone(), message: error.to_string() };
        models.cache.get(&model.name, || Ok(engine.clone())).map_err(wrong)?;
        models.add(model.name.clone(), config.alias.clone(), source, false);
        Ok(models)
    }

    /// No models yet.
    fn empty(config: &ServerConfig) -> Self {
        let budget = config.memory_budget.map(|size| size.0);
        let budget = budget.or_else(bitnet_core::process::total_memory);
        Self {
            entries: RwLock::default(),
            cache: ModelCache::new(budget.unwrap_or(MemorySize::bytes(u64::MAX / 2))),
            settings: Settings::new(config),
            folder: config.models_dir.clone(),
            strict: config.strict_models,
            keep_alive: (config.keep_alive > 0).then(|| Duration::from_secs(config.keep_alive)),
        }
    }

    fn add(&self, id: String, aliases: Vec<String>, source: Source, from_folder: bool) {
        let changing = Mutex::new(Changing {
            used: Instant::now(),
            loaded: None,
            keep_alive: self.keep_alive,
            failure: None,
        });
        let entry = Entry {
            id: Arc::from(id),
            aliases,
            source,
            created: unix_time(),
            from_folder,
            loading: tokio::sync::Mutex::default(),
            changing,
        };
        self.entries.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(entry));
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries().into_iter().find(|entry| entry.is_called(name))
    }

    /// Looks which models the folder has now.
    fn search_folder(&self) {
        let Some(folder) = &self.folder else { return };
        let found = models_in(folder);
        let gone = |entry: &Arc<Entry>| entry.from_folder && !found.contains(&entry.source);
        self.entries.write().unwrap_or_else(PoisonError::into_inner).retain(|entry| !gone(entry));
        for source in found {
            let name = source.name();
            // A configured model of the same name, or the same file, comes first.
            let taken = self.entries().iter().any(|entry| entry.is_called(&name) || entry.source == source);
            if !taken {
                self.add(name, Vec::new(), source, true);
            }
        }
    }

    /// The entry of a name, or the default for none. Looks into the folder for names it does not know.
    fn entry(&self, name: Option<&str>) -> Result<Arc<Entry>, ApiError> {
        let name = name.map(str::trim).filter(|name| !name.is_empty());
        let Some(name) = name else {
            let first = self.entries().into_iter().next();
            return first.ok_or_else(|| ApiError::not_found("this server has no model"));
        };
        match (self.entry_of(name), self.entries().as_slice()) {
            (Err(_), [only]) if !self.strict => Ok(Arc::clone(only)),
            (found, _) => found,
        }
    }

    /// The entry of exactly this name. Looks into the folder for names it does not know.
    fn entry_of(&self, name: &str) -> Result<Arc<Entry>, ApiError> {
        // Clients of ollama add the tag to every name.
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        let find = || self.known(name).or_else(|| self.known(bare));
        if let Some(entry) = find() {
            return Ok(entry);
        }
        self.search_folder();
        find().ok_or_else(|| {
            let names: Vec<String> = self.entries().iter().map(|entry| entry.id.to_string()).collect();
            ApiError::model_not_found(name, &names)
        })
    }

    /// See [`AppState::model`].
    pub(crate) async fn handle(
        self: &Arc<Self>,
        name: Option<&str>,
        state: &AppState,
    ) -> Result<ModelHandle, ApiError> {
        let entry = self.entry(name)?;
        let model = self.load(&entry).await?;
        Ok(ModelHandle::new(entry, model, state.clone()))
    }

    /// Loads the models that are configured by name, the first of them first. A model that does not
    /// fit beside the others is left to be loaded when it is asked for.
    pub(crate) async fn load_configured(self: &Arc<Self>) -> Result<(), ServerError> {
        let configured = self.entries().into_iter().filter(|entry| !entry.from_folder);
        // Held, so that a later model does not push out an earlier one.
        let mut held = Vec::new();
        for (at, entry) in configured.enumerate() {
            match self.load(&entry).await {
                Ok(model) => held.push(model),
                Err(error) if at == 0 => {
                    return Err(ServerError::Model { name: entry.id.to_string(), message: error.message });
                }
                // Told in the log.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Unloads everything, on a thread for blocking work: what engines still do is cancelled.
    pub(crate) async fn close(&self) {
        let names = self.cache.names();
        let cache = self.cache.clone();
        let unload = move || names.iter().filter(|name| cache.evict(name)).count();
        let _ = tokio::task::spawn_blocking(unload).await;
    }

    /// Loads the model of this name.
    pub(crate) async fn load_named(self: &Arc<Self>, name: &str) -> Result<ModelSummary, ApiError> {
        let entry = self.entry_of(name)?;
        self.load(&entry).await?;
        Ok(self.summary(&entry))
    }

    /// Unloads the model of this name.
    pub(crate) async fn unload_named(&self, name: &str) -> Result<ModelSummary, ApiError> {
        let entry = self.entry_of(name)?;
        self.unload(&entry).await?;
        Ok(self.summary(&entry))
    }

    /// The engine of an entry, loaded if need be.
    async fn load(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<CachedModel, ApiError> {
        entry.touch();
        if let Some(model) = self.cache.peek(&entry.id) {
            self.cache.note_use(&model);
            return Ok(model);
        }
        let guard = entry.loading.lock().await;
        if let Some(model) = self.cache.peek(&entry.id) {
            return Ok(model);
        }
        let (models, entry) = (Arc::clone(self), Arc::clone(entry));
        // A client that goes away does not stop what others will want.
        let loading = tokio::task::spawn_blocking(move || models.load_here(&entry));
        let result = loading.await;
        drop(guard);
        result.unwrap_or_else(|_| Err(ApiError::internal("loading the model panicked")))
    }

    /// Loads on the calling thread.
    fn load_here(&self, entry: &Entry) -> Result<CachedModel, ApiError> {
        tracing::info!(model = %entry.id, "loading");
        self.cache.make_room(MemorySize::bytes(entry.source.size()));
        let mut told = None;
        let loaded = self.cache.get(&entry.id, || {
            self.settings.build(&entry.source).map_err(|message| {
                told = Some(message);
                EngineError::NoModel
            })
        });
        let failure = match (&loaded, told) {
            (Err(CacheError::Load { .. }), Some(message)) => {
                Some(ApiError::internal(format!("the model {} could not be loaded: {message}", entry.id)))
                    .map(|error| error.code("model_load_failed"))
            }
            (Err(error), _) => Some(ApiError::from(error.clone())),
            (Ok(_), _) => None,
        };
        {
            let mut changing = entry.changing();
            changing.failure = failure.as_ref().map(|error| error.message.clone());
            changing.loaded = loaded.is_ok().then(Instant::now);
        }
        entry.touch();
        match (loaded, failure) {
            (Ok(model), _) => {
                for warning in &model.model().warnings {
                    tracing::warn!(model = %entry.id, "{warning}");
                }
                let (context, on) = (model.context(), &model.info().description);
                let ms = model.load_time().as_millis() as u64;
                tracing::info!(model = %entry.id, context, on, ms, "loaded");
                Ok(model)
            }
            (Err(error), failure) => {
                tracing::error!(model = %entry.id, "{error}");
                Err(failure.unwrap_or_else(|| error.into()))
            }
        }
    }

    /// Unloads a model that nobody uses; says whether it was loaded. Its memory goes back on a thread for blocking work.
    ///
    /// # Errors
    /// 409 if it is in use.
    async fn unload(&self, entry: &Entry) -> Result<bool, ApiError> {
        let mut evicted = false;
        for _ in 0..UNLOAD_ATTEMPTS {
            let (cache, id) = (self.cache.clone(), Arc::clone(&entry.id));
            evicted = tokio::task::spawn_blocking(move || cache.evict(&id)).await.unwrap_or(false);
            if evicted || self.cache.peek(&entry.id).is_none() {
                break;
            }
            // Who asks what the model is doing uses it for a moment.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !evicted && self.cache.peek(&entry.id).is_some() {
            let message =
                format!("the model {} is answering requests; try again when they are done", entry.id);
            return Err(ApiError::conflict(message).code("model_in_use"));
        }
        if evicted {
            tracing::info!(model = %entry.id, "unloaded");
        }
        Ok(evicted)
    }

    /// Unloads what was not used for as long as it may stay.
    pub(crate) async fn unload_idle(&self) {
        for entry in self.entries() {
            let is_due = {
                let changing = entry.changing();
                changing.keep_alive.is_some_and(|time| changing.used.elapsed() >= time)
            };
            if is_due && self.cache.names().iter().any(|name| **name == *entry.id) {
                // One in use answers, and is due again when it is done.
                let _ = self.unload(&entry).await;
            }
        }
    }

    /// The engines that are loaded, with their names.
    pub(crate) fn loaded(&self) -> Vec<(Arc<str>, CachedModel)> {
        let entries = self.entries();
        let loaded =
            entries.iter().filter_map(|e| self.cache.peek(&e.id).map(|model| (Arc::clone(&e.id), model)));
        loaded.collect()
    }

    pub(crate) fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// What there is, the default first.
    pub(crate) fn summaries(&self) -> Vec<ModelSummary> {
        self.search_folder();
        self.entries().iter().map(|entry| self.summary(entry)).collect()
    }

    pub(super) fn summary(&self, entry: &Entry) -> ModelSummary {
        let model = self.cache.peek(&entry.id);
        let (failure, loaded) = {
            let changing = entry.changing();
            (changing.failure.clone(), changing.loaded)
        };
        let state = match (&model, &failure) {
            (Some(_), _) => ModelState::Loaded,
            _ if entry.loading.try_lock().is_err() => ModelState::Loading,
            (None, Some(_)) => ModelState::Failed,
            (None, None) => ModelState::Unloaded,
        };
        let spec = model.as_ref().map(|model| model.spec());
        ModelSummary {
            id: entry.id.to_string(),
            aliases: entry.aliases.clone(),
            created: entry.created,
            state,
            loaded: model.is_some(),
            failure,
            size: model.as_ref().map_or_else(|| entry.source.size(), |model| model.model().file_bytes),
            path: entry.source.place(),
            format: model.as_ref().map(|model| model.model().format.clone()),
            context: model.as_ref().map(|model| model.context()),
            trained_context: spec.map(|spec| spec.context_length),
            vocab_size: spec.map(|spec| spec.vocab_size),
            hidden_size: spec.map(|spec| spec.hidden_size),
            parameters: spec.map(bitnet_model::ModelSpec::parameters),
            weight_bytes: model.as_ref().map(|model| model.info().weight_bytes.as_bytes()),
            loaded_for: model.as_ref().and(loaded).map(|loaded| loaded.elapsed()),
        }
    }
}
