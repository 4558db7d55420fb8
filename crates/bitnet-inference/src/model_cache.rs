//! [`ModelCache`]: several models in one process under a byte budget.
//!
//! Users get handles ([`CachedModel`]) that share one engine. A model is loaded once, however many ask for it at the same
//! time; the others wait and get the same. When memory is short, models that nobody holds a handle to are dropped, the
//! one that was used least recently first. A model in use is never dropped. Weights come from mapped files, so loading
//! one again after it was dropped costs no more than repacking.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bitnet_core::MemorySize;

use crate::engine::InferenceEngine;
use crate::error::EngineError;

/// Why a model cannot be had from a cache.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It could not be loaded. All who waited for it get this.
    #[error("the model {name} could not be loaded: {source}")]
    Load {
        /// Name of the model.
        name: String,
        /// Why.
        source: Arc<EngineError>,
    },
    /// It does not fit beside the models in use.
    #[error(
        "the model {name} takes {needed}, but of the budget of {budget} other models in use hold {in_use}; raise the \
         budget, or give back a model"
    )]
    OverBudget {
        /// Name of the model.
        name: String,
        /// Memory that it takes.
        needed: MemorySize,
        /// Memory of the models that cannot be dropped.
        in_use: MemorySize,
        /// The budget.
        budget: MemorySize,
    },
}

/// What a cache did and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Requests for models that were there, or being loaded by another.
    pub hits: u64,
    /// Requests for models that were not.
    pub misses: u64,
    /// Models loaded.
    pub loads: u64,
    /// Loads that failed, or whose model did not fit.
    pub failures: u64,
    /// Models dropped to make room, or because it was asked for.
    pub evictions: u64,
    /// Models held.
    pub models: usize,
    /// Of these, those in use.
    pub in_use: usize,
    /// Bytes that all models held take, keys and values included.
    pub resident_bytes: u64,
    /// The budget in bytes.
    pub budget_bytes: u64,
}

/// A place for one model. Whoever loads it fills the cell; all others wait at it.
#[derive(Debug)]
struct Slot {
    name: String,
    engine: OnceLock<Result<InferenceEngine, CacheError>>,
}

#[derive(Debug)]
struct Held {
    slot: Arc<Slot>,
    /// Number of the request that used it last.
    used: u64,
    /// Bytes of its weights, once it was let in.
    admitted: Option<u64>,
}

impl Held {
    /// Whether only the cache knows it, so that it may be dropped.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.slot) == 1
    }

    /// What it takes now, keys and values included.
    fn bytes(&self) -> u64 {
        match (self.admitted, self.slot.engine.get()) {
            (Some(weights), Some(Ok(engine))) => weights.saturating_add(engine.kv_memory().as_bytes()),
            (weights, _) => weights.unwrap_or(0),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<String, Held>,
    clock: u64,
    stats: CacheStats,
}

/// Models under a byte budget. Cloning gives the same cache; threads may share it.
///
/// ```
/// use bitnet_core::MemorySize;
/// use bitnet_core::bytes::ByteView;
/// use bitnet_inference::model_cache::ModelCache;
/// use bitnet_inference::{GenerateRequest, InferenceEngine, ModelSource, Prompt};
///
/// let load = || {
///     let view = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), ByteView::from_static(bytes));
///     let files = bitnet_tiny::files().into_iter().map(view).collect();
///     let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
///     InferenceEngine::builder().model(source).threads(1).build()
/// };
/// let cache = ModelCache::new(MemorySize::GB(2));
/// let model = cache.get("tiny", load)?;
/// let same = cache.get("tiny", || unreachable!("it is there"))?;
/// let request = GenerateRequest::new(Prompt::text("Once")).max_tokens(2).seed(1);
/// assert_eq!(model.generate_blocking(&request)?.text, same.generate_blocking(&request)?.text);
/// let stats = cache.stats();
/// assert_eq!((stats.hits, stats.misses, stats.loads, stats.in_use), (1, 1, 1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ModelCache {
    state: Arc<Mutex<State>>,
    budget: u64,
}

/// A model of a cache, in use as long as this lives. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct CachedModel {
    slot: Arc<Slot>,
}

impl CachedModel {
    /// The name under which it was asked for.
    pub fn name(&self) -> &str {
        &self.slot.name
    }
}

impl Deref for CachedModel {
    type Target = InferenceEngine;

    fn deref(&self) -> &InferenceEngine {
        match self.slot.engine.get() {
            Some(Ok(engine)) => engine,
            _ => unreachable!("handles are made of loaded models only"),
        }
    }
}

impl ModelCache {
    /// An empty cache that keeps models of at most `budget` together.
    pub fn new(budget: MemorySize) -> Self {
        Self { state: Arc::default(), budget: budget.as_bytes() }
    }

    /// The model of this name. If it is not there, `load` makes it, on the calling thread, without any lock that others
    /// need: meanwhile they get other models, and wait for this one if they ask for it.
    ///
    /// The size of a model is known when it is loaded: for a moment there may be more than the budget.
    ///
    /// # Errors
    /// [`CacheError::Load`] if `load` fails (the next request tries again), [`CacheError::OverBudget`] if the model does
    /// not fit even when all idle ones are dropped.
    pub fn get(
        &self,
        name: &str,
        load: impl FnOnce() -> Result<InferenceEngine, EngineError>,
    ) -> Result<CachedModel, CacheError> {
        let slot = self.slot(name);
        let result = slot.engine.get_or_init(|| {
            let loaded =
                load().map_err(|source| CacheError::Load { name: name.to_owned(), source: source.into() });
            let result = loaded.and_then(|engine| {
                self.admit(&slot, engine.info().weight_bytes.as_bytes())?;
                Ok(engine)
            });
            if result.is_err() {
                self.lock().stats.failures += 1;
            }
            result
        });
        match result {
            Ok(_) => Ok(CachedModel { slot }),
            Err(error) => {
                let error = error.clone();
                self.forget(&slot);
                Err(error)
            }
        }
    }

    /// The model of this name if it is loaded; never waits, and does not count as a use.
    pub fn peek(&self, name: &str) -> Option<CachedModel> {
        let state = self.lock();
        let held = state.held.get(name)?;
        // One that is loaded but not let in may be refused yet.
        let is_ready = held.admitted.is_some() && matches!(held.slot.engine.get(), Some(Ok(_)));
        is_ready.then(|| CachedModel { slot: Arc::clone(&held.slot) })
    }

    /// Counts a use of a model that was had by [`peek`](Self::peek).
    pub fn note_use(&self, model: &CachedModel) {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        if let Some(held) = state.held.get_mut(model.name()) {
            held.used = now;
        }
    }

    /// Makes room before a model of about `bytes` is loaded: drops idle models until it fits, as far as that helps.
    pub fn make_room(&self, bytes: MemorySize) {
        let mut state = self.lock();
        let limit = self.budget.saturating_sub(bytes.as_bytes());
        let dropped = drop_idle(&mut state, limit);
        drop(state);
        drop(dropped);
    }

    /// Drops a model unless it is in use; says whether it did.
    pub fn evict(&self, name: &str) -> bool {
        let mut state = self.lock();
        if !state.held.get(name).is_some_and(Held::is_idle) {
            return false;
        }
        let dropped = state.held.remove(name);
        state.stats.evictions += 1;
        drop(state);
        dropped.is_some()
    }

    /// Names of the models held, the one used last first.
    pub fn names(&self) -> Vec<String> {
        let state = self.lock();
        let mut all: Vec<(u64, &String)> = state.held.iter().map(|(name, held)| (held.used, name)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// What the cache did and holds.
    pub fn stats(&self) -> CacheStats {
        let state = self.lock();
        CacheStats {
            models: state.held.len(),
            in_use: state.held.values().filter(|held| !held.is_idle()).count(),
            resident_bytes: resident(&state),
            budget_bytes: self.budget,
            ..state.stats
        }
    }

    /// State is whole between any two statements that change it, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a model, an empty one if it is not there.
    fn slot(&self, name: &str) -> Arc<Slot> {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        if let Some(held) = state.held.get_mut(name) {
            held.used = now;
            let slot = Arc::clone(&held.slot);
            state.stats.hits += 1;
            return slot;
        }
        state.stats.misses += 1;
        let slot = Arc::new(Slot { name: name.to_owned(), engine: OnceLock::new() });
        state.held.insert(name.to_owned(), Held { slot: Arc::clone(&slot), used: now, admitted: None });
        slot
    }

    /// Takes a place away, so that the next request begins anew. Another thread may have put a new one there already.
    fn forget(&self, slot: &Arc<Slot>) {
        let mut state = self.lock();
        if state.held.get(&slot.name).is_some_and(|held| Arc::ptr_eq(&held.slot, slot)) {
            state.held.remove(&slot.name);
        }
    }

    /// Makes room for a model just loaded, or refuses it.
    fn admit(&self, slot: &Arc<Slot>, needed: u64) -> Result<(), CacheError> {
        let mut state = self.lock();
        state.stats.loads += 1;
        // What is idle goes only if that is enough.
        let in_use: u64 = state.held.values().filter(|held| !held.is_idle()).map(Held::bytes).sum();
        let fits = in_use.saturating_add(needed) <= self.budget;
        let limit = if fits { self.budget - needed } else { u64::MAX };
        let dropped = drop_idle(&mut state, limit);
        if fits && let Some(held) = state.held.get_mut(&slot.name) {
            held.admitted = Some(needed);
        }
        drop(state);
        // Memory goes back without the lock, which others need.
        drop(dropped);
        if fits {
            return Ok(());
        }
        Err(CacheError::OverBudget {
            name: slot.name.clone(),
            needed: MemorySize::bytes(needed),
            in_use: MemorySize::bytes(in_use),
            budget: MemorySize::bytes(self.budget),
        })
    }
}

fn resident(state: &State) -> u64 {
    state.held.values().map(Held::bytes).sum()
}

/// Takes idle models out, the one used least recently first, until at most `limit` bytes are left. What is being loaded
/// is not idle.
fn drop_idle(state: &mut State, limit: u64) -> Vec<Held> {
    let mut dropped = Vec::new();
    while resident(state) > limit {
        let idle = state.held.iter().filter(|(_, held)| held.is_idle());
        let Some(name) = idle.min_by_key(|(_, held)| held.used).map(|(name, _)| name.clone()) else { break };
        dropped.extend(state.held.remove(&name));
        state.stats.evictions += 1;
    }
    dropped
}
