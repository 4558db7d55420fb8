//! [`AppState`]: what all handlers share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::config::ServerConfig;
use crate::error::{ApiError, ServerError};
use crate::metrics::Metrics;
use crate::middleware::Keys;
use crate::models::{ModelHandle, ModelSummary, Models};

/// What all handlers share. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: ServerConfig,
    models: Arc<Models>,
    metrics: Metrics,
    keys: Keys,
    started: Instant,
    /// Whether the models that are served from the start are still being loaded.
    starting: AtomicBool,
    /// Places for work that blocks a thread.
    places: Arc<Semaphore>,
    /// Places for encoding prompts.
    encoders: Arc<Semaphore>,
}

/// A state that may be gone.
#[derive(Debug, Clone)]
pub(crate) struct WeakState(Weak<Shared>);

impl WeakState {
    pub(crate) fn upgrade(&self) -> Option<AppState> {
        self.0.upgrade().map(AppState)
    }
}

impl AppState {
    pub(crate) fn new(config: ServerConfig) -> Result<Self, ServerError> {
        config.check()?;
        let models = Models::new(&config)?;
        Self::with_models(config, models)
    }

    /// The state of a server with these models.
    pub(crate) fn with_models(config: ServerConfig, models: Models) -> Result<Self, ServerError> {
        config.check()?;
        let keys = Keys::new(&config)?;
        let places = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        Ok(Self(Arc::new(Shared {
            models: Arc::new(models),
            metrics: Metrics::new()?,
            keys,
            config,
            started: Instant::now(),
            starting: AtomicBool::new(false),
            places: Arc::new(Semaphore::new(places)),
            encoders: Arc::new(Semaphore::new(places)),
        })))
    }

    /// The configuration.
    pub fn config(&self) -> &ServerConfig {
        &self.0.config
    }

    /// The model to answer with, loaded if need be. No name or an empty one: the default model. So are unknown names where
    /// there is only one model, unless `strict_models` is set.
    ///
    /// # Errors
    /// 404 `model_not_found`; 503 if it does not fit beside those in use; 500 if it cannot be loaded.
    pub async fn model(&self, name: Option<&str>) -> Result<ModelHandle, ApiError> {
        self.0.models.handle(name, self).await
    }

    /// The models there are, the default first.
    pub fn models(&self) -> Vec<ModelSummary> {
        self.0.models.summaries()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub(crate) fn registry(&self) -> &Arc<Models> {
        &self.0.models
    }

    /// The state, but without keeping it.
    pub(crate) fn downgrade(&self) -> WeakState {
        WeakState(Arc::downgrade(&self.0))
    }

    /// When the server was made.
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// Whether the models that are served from the start are still being loaded.
    pub fn is_starting(&self) -> bool {
        self.0.starting.load(Ordering::Acquire)
    }

    pub(crate) fn set_starting(&self, starting: bool) {
        self.0.starting.store(starting, Ordering::Release);
    }

    /// Runs what takes time on a thread for blocking work, at most as many at a time as the machine has threads.
    ///
    /// # Errors
    /// What `work` fails with; 500 if it panics.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        run_in(&self.0.places, work).await
    }

    /// As [`blocking`](Self::blocking), but only for encoding prompts, which does not wait behind longer work.
    pub(crate) async fn encoding<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        run_in(&self.0.encoders, work).await
    }
}

async fn run_in<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let place = Arc::clone(places).acquire_owned().await;
    let run = move || {
        let result = work();
        drop(place);
        result
    };
    let joined = tokio::task::spawn_blocking(run).await;
    joined.unwrap_or_else(|_| {
        Err(ApiError::internal("the request failed inside the server; its log says more"))
    })
}
