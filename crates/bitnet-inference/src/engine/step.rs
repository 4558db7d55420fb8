//! One forward call of one session: blocks, memory, executor.

use bitnet_model::{Batch, Executor, LogitRows, Sequence};

use crate::error::EngineError;
use crate::kv::{Session, lock};
use crate::sampling::Sampler;

use super::InferenceEngine;

/// The executor and the logits of its last call.
pub(crate) struct Backend {
    executor: Box<dyn Executor>,
    /// `[vocab_size]`.
    logits: Vec<f32>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("executor", &self.executor.info().description).finish_non_exhaustive()
    }
}

impl Backend {
    pub(crate) fn new(executor: Box<dyn Executor>, vocab_size: usize) -> Self {
        Self { executor, logits: vec![0.0; vocab_size] }
    }
}

impl InferenceEngine {
    /// Computes a session's waiting tokens up to `end` without logits.
    pub(crate) fn prefill(&self, session: &mut Session, end: usize) -> Result<(), EngineError> {
        self.compute(&mut self.backend(), session, end, LogitRows::None, None)
    }

    /// Computes all waiting tokens of a session and draws the token that follows.
    pub(crate) fn next_token(
        &self,
        session: &mut Session,
        sampler: &mut Sampler,
    ) -> Result<u32, EngineError> {
        let backend = &mut *self.backend();
        self.compute(backend, session, session.tokens().len(), LogitRows::Last, None)?;
        Ok(sampler.sample(&mut backend.logits, session.tokens())?)
    }

    /// Computes a session's waiting tokens up to `end` with the logits of each, `[tokens, vocab_size]`.
    pub(crate) fn score(
        &self,
        session: &mut Session,
        end: usize,
        logits: &mut [f32],
    ) -> Result<(), EngineError> {
        self.compute(&mut self.backend(), session, end, LogitRows::All, Some(logits))
    }

    /// Runs the executor over `session.tokens()[computed..end]`; logits go to `out` or to the backend's own row.
    fn compute(
        &self,
        backend: &mut Backend,
        session: &mut Session,
        end: usize,
        rows: LogitRows,
        out: Option<&mut [f32]>,
    ) -> Result<(), EngineError> {
        session.cover(end)?;
        {
            let mut pool = lock(self.pool());
            if let Some(count) = pool.missing_memory() {
                backend.executor.reserve_blocks(count)?;
                pool.set_reserved(count);
            }
        }
        let position = session.computed();
        let tokens = &session.tokens()[position..end];
        let sequence = Sequence { tokens, position, blocks: session.blocks(), logits: rows };
        let out = match (rows, out) {
            (LogitRows::None, _) => &mut [],
            (_, Some(out)) => out,
            (_, None) => &mut backend.logits[..],
        };
        backend.executor.forward(&Batch { sequences: &[sequence] }, out)?;
        session.set_computed(end);
        Ok(())
    }
}
