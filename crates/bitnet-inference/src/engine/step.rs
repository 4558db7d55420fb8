//! One forward call of one session: blocks, memory, executor.

use bitnet_model::{Batch, Executor, LogitRows, Sequence, TopLogits};

use super::InferenceEngine;
use crate::error::EngineError;
use crate::kv::{Session, lock};
use crate::sampling::Sampler;

/// The executor and the logits of its last call.
pub(crate) struct Backend {
    executor: Box<dyn Executor>,
    /// `[vocab_size]` once they were needed.
    logits: Vec<f32>,
    top: TopLogits,
    /// Whether asking for the largest logits alone spares the executor anything; assumed until it shows.
    selects: bool,
}

/// Which logits a call gives, and where to.
enum Output<'a> {
    None,
    /// Those of every token.
    All(&'a mut [f32]),
    /// Those of the last token.
    Last,
    /// At least so many of the largest of the last token.
    Top(usize),
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("executor", &self.executor.info().description).finish_non_exhaustive()
    }
}

impl Backend {
    pub(crate) fn new(executor: Box<dyn Executor>) -> Self {
        Self { executor, logits: Vec::new(), top: TopLogits::default(), selects: true }
    }

    /// The executor, for calls of more than one session. The engine's bookkeeping of blocks is the caller's business.
    pub(crate) fn executor(&mut self) -> &mut dyn Executor {
        &mut *self.executor
    }

    /// Runs the executor over `session.tokens()[computed..end]`, for which the block table has room.
    fn forward(&mut self, session: &Session, end: usize, output: Output<'_>) -> Result<(), EngineError> {
        let position = session.computed();
        let logits = match &output {
            Output::None => LogitRows::None,
            Output::All(_) => LogitRows::All,
            Output::Last | Output::Top(_) => LogitRows::Last,
        };
        let tokens = &session.tokens()[position..end];
        let sequences = [Sequence { tokens, position, blocks: session.blocks(), logits }];
        let batch = Batch { sequences: &sequences };
        match output {
            Output::None => self.executor.forward(&batch, &mut [])?,
            Output::All(logits) => self.executor.forward(&batch, logits)?,
            Output::Last => {
                self.logits.resize(self.executor.spec().vocab_size, 0.0);
                self.executor.forward(&batch, &mut self.logits)?;
            }
            Output::Top(k) => self.executor.forward_top(&batch, k, std::slice::from_mut(&mut self.top))?,
        }
        Ok(())
    }
}

impl InferenceEngine {
    /// Computes a session's waiting tokens up to `end` without logits.
    pub(crate) fn prefill(&self, session: &mut Session, end: usize) -> Result<(), EngineError> {
        self.compute(&mut self.backend(), session, end, Output::None)
    }

    /// Computes a session's waiting tokens up to `end` with the logits of each, `[tokens, vocab_size]`.
    pub(crate) fn score(
        &self,
        session: &mut Session,
        end: usize,
        logits: &mut [f32],
    ) -> Result<(), EngineError> {
        self.compute(&mut self.backend(), session, end, Output::All(logits))
    }

    /// Computes all waiting tokens of a session and draws the token that follows.
    pub(crate) fn next_token(
        &self,
        session: &mut Session,
        sampler: &mut Sampler,
    ) -> Result<u32, EngineError> {
        let (vocab_size, end) = (self.spec().vocab_size, session.tokens().len());
        let backend = &mut *self.backend();
        if let Some(k) = sampler.decisive(session.tokens(), vocab_size).filter(|_| backend.selects) {
            self.compute(backend, session, end, Output::Top(k))?;
            let token = sampler.sample_top(&mut backend.top, session.tokens())?;
            if backend.top.ids.len() == vocab_size {
                // The executor gave all there is: from now on without the copy.
                (backend.selects, backend.top) = (false, TopLogits::default());
            }
            return Ok(token);
        }
        self.compute(backend, session, end, Output::Last)?;
        Ok(sampler.sample(&mut backend.logits, session.tokens())?)
    }

    /// Finds blocks and their memory, then runs the executor.
    fn compute(
        &self,
        backend: &mut Backend,
        session: &mut Session,
        end: usize,
        output: Output<'_>,
    ) -> Result<(), EngineError> {
        session.cover(end)?;
        self.reserve_memory(backend)?;
        session.run_copy(backend.executor())?;
        backend.forward(session, end, output)?;
        session.set_computed(end);
        Ok(())
    }

    /// Lets the executor have memory for all blocks that sessions have taken.
    pub(crate) fn reserve_memory(&self, backend: &mut Backend) -> Result<(), EngineError> {
        let mut pool = lock(self.pool());
        if let Some(count) = pool.missing_memory() {
            backend.executor.reserve_blocks(count)?;
            pool.set_reserved(count);
        }
        Ok(())
    }
}
