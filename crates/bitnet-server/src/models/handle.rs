//! [`ModelHandle`]: a model in use.

use std::sync::Arc;
use std::time::Duration;

use bitnet_inference::model_cache::CachedModel;
use bitnet_inference::{EngineError, InferenceEngine};

use super::registry::{Entry, ModelSummary};
use crate::error::ApiError;
use crate::state::AppState;

/// A loaded model that stays loaded as long as this lives. Cloning is cheap.
#[derive(Clone)]
pub struct ModelHandle {
    entry: Arc<Entry>,
    model: CachedModel,
    state: AppState,
}

impl std::fmt::Debug for ModelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ModelHandle").field(&self.entry.id).finish()
    }
}

impl ModelHandle {
    pub(super) fn new(entry: Arc<Entry>, model: CachedModel, state: AppState) -> Self {
        Self { entry, model, state }
    }

    /// Its name, as responses tell it.
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    pub(crate) fn shared_id(&self) -> &Arc<str> {
        &self.entry.id
    }

    /// When the server got to know it, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.entry.created
    }

    /// Its engine. Calls that compute belong on [`blocking`](Self::blocking)'s threads, not on those of the runtime.
    pub fn engine(&self) -> &InferenceEngine {
        &self.model
    }

    /// What there is to tell of it.
    pub fn summary(&self) -> ModelSummary {
        self.state.registry().summary(&self.entry)
    }

    /// How long it stays loaded when nobody uses it; None: for ever. Until it is said anew.
    pub fn keep_for(&self, time: Option<Duration>) {
        self.entry.keep_for(time);
    }

    /// Notes that it was used now.
    pub(crate) fn touch(&self) {
        self.entry.touch();
    }

    pub(crate) fn state(&self) -> &AppState {
        &self.state
    }

    /// Runs what takes time (encoding long texts, embeddings) on a thread for blocking work. Of these there run at most as
    /// many as the machine has threads; others wait, and those that wait when their client goes away are not run.
    ///
    /// # Errors
    /// What `work` fails with; 500 if it panics.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&InferenceEngine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let model = self.clone();
        self.state
            .blocking(move || {
                let result = work(model.engine()).map_err(ApiError::from);
                model.touch();
                result
            })
            .await
    }
}
