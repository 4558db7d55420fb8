//! Constraints for the engine's model.

use super::{Core, InferenceEngine};
use crate::error::EngineError;
use crate::grammar::{Constraint, GrammarFactory};

impl InferenceEngine {
    /// Checks a constraint as a request with it would be checked. The request that follows finds it compiled, which may take
    /// from a millisecond to seconds.
    ///
    /// # Errors
    /// [`EngineError::Grammar`] if it cannot be used, and that of [`tokenizer`](Self::tokenizer).
    pub fn check_constraint(&self, constraint: &Constraint) -> Result<(), EngineError> {
        self.core().grammars()?.matcher(constraint, true)?;
        Ok(())
    }
}

impl Core {
    /// What compiles constraints; made when the first one comes, as it takes time and memory.
    pub(crate) fn grammars(&self) -> Result<&GrammarFactory, EngineError> {
        let tokenizer = self.tokenizer()?;
        let make = || GrammarFactory::new(tokenizer, self.spec.vocab_size, &self.defaults().stop_tokens);
        Ok(self.grammars.get_or_init(make).as_ref().map_err(Clone::clone)?)
    }
}
