//! Inputs in, numbers out: logits, hidden states or embeddings of tokens, texts or rows of values.
//!
//! Inputs of a batch are computed together: their tokens fill forward calls of the size that the executor likes, long
//! inputs are cut. That changes no bit of a result.
//!
//! ```
//! use bitnet_inference::InferRequest;
//! # use bitnet_inference::{EngineError, InferenceEngine};
//!
//! # fn main() -> Result<(), EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! // Which token would follow?
//! let tokens = engine.tokenizer()?.encode("Once upon a", Default::default())?;
//! let logits = engine.infer_blocking(tokens.clone())?;
//! assert_eq!((logits.rows(), logits.width()), (1, engine.spec().vocab_size));
//!
//! // The same from rows of values in place of tokens: here those of the model's own embedding.
//! let rows = engine.embedding_rows(&tokens)?;
//! assert_eq!(engine.infer_blocking(rows)?.values(), logits.values());
//!
//! // The hidden states of all tokens, of two inputs at once.
//! let both = [InferRequest::new(tokens).hidden().all_rows(), InferRequest::new("A text").hidden().all_rows()];
//! for states in engine.infer_batch_blocking(&both) {
//!     assert_eq!(states?.width(), engine.spec().hidden_size);
//! }
//! # Ok(())
//! # }
//! ```

mod run;

use bitnet_core::memory_pool::PoolBuf;

use crate::background;
use crate::engine::InferenceEngine;
use crate::error::EngineError;

/// What is computed from.
#[derive(Debug, Clone, PartialEq)]
pub enum InferInput {
    /// A text, encoded as a prompt; for embeddings as [`embed`](InferenceEngine::embed) does it.
    Text(String),
    /// Tokens, as they are.
    Tokens(Vec<u32>),
    /// Rows in place of those that the embedding gives for tokens, `[rows, hidden_size]`: soft prompts, mixtures of tokens,
    /// vectors from elsewhere.
    Rows(Vec<f32>),
}

impl From<&str> for InferInput {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for InferInput {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u32>> for InferInput {
    fn from(tokens: Vec<u32>) -> Self {
        Self::Tokens(tokens)
    }
}

impl From<&[u32]> for InferInput {
    fn from(tokens: &[u32]) -> Self {
        Self::Tokens(tokens.to_vec())
    }
}

impl From<Vec<f32>> for InferInput {
    fn from(rows: Vec<f32>) -> Self {
        Self::Rows(rows)
    }
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum InferOutput {
    /// Logits of the next token, `vocab_size` a row.
    #[default]
    Logits,
    /// Hidden states behind the final norm, `hidden_size` a row.
    Hidden,
    /// One vector of length one for the whole input, `hidden_size`, pooled as the model says.
    Embedding,
}

/// One input and what is wanted of it.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// What is computed from.
    pub input: InferInput,
    /// What is computed.
    pub output: InferOutput,
    /// Whether every token or row of the input gets a row of the result; else the last one only. An embedding is one row
    /// in any case.
    pub all_rows: bool,
}

impl InferRequest {
    /// The logits behind the last token of `input`.
    pub fn new(input: impl Into<InferInput>) -> Self {
        Self { input: input.into(), output: InferOutput::Logits, all_rows: false }
    }

    /// Hidden states instead of logits.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.output = InferOutput::Hidden;
        self
    }

    /// An embedding instead of logits.
    #[must_use]
    pub fn embedding(mut self) -> Self {
        self.output = InferOutput::Embedding;
        self
    }

    /// A row for every token.
    #[must_use]
    pub fn all_rows(mut self) -> Self {
        self.all_rows = true;
        self
    }
}

impl<T: Into<InferInput>> From<T> for InferRequest {
    fn from(input: T) -> Self {
        Self::new(input)
    }
}

/// What came out of one input. Its memory is the engine's, and goes back to the pool when this is dropped.
#[derive(Debug)]
pub struct Inference {
    values: PoolBuf<f32>,
    width: usize,
    tokens: usize,
    output: InferOutput,
}

impl Inference {
    /// All values, `[rows, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens or rows of the input.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// What the values are.
    pub fn output(&self) -> InferOutput {
        self.output
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// The last row: what the next token depends on.
    pub fn last(&self) -> &[f32] {
        self.row(self.rows() - 1)
    }

    /// Place of the greatest value of the last row, the first of equals: of logits, the most probable token.
    pub fn best(&self) -> usize {
        let mut best = 0;
        for (place, value) in self.last().iter().enumerate() {
            if *value > self.last()[best] {
                best = place;
            }
        }
        best
    }
}

impl InferenceEngine {
    /// Computes one input on a thread of its own.
    ///
    /// # Errors
    /// As [`infer_blocking`](Self::infer_blocking); if the system starts no thread.
    pub async fn infer(&self, request: impl Into<InferRequest>) -> Result<Inference, EngineError> {
        let (engine, request) = (self.clone(), request.into());
        background::run(move |_| engine.infer_blocking(request)).await
    }

    /// Computes several inputs together, on a thread of its own; one result each, in their order.
    ///
    /// # Errors
    /// If the system starts no thread. What is wrong with one input is the error of that input.
    pub async fn infer_batch(
        &self,
        requests: Vec<InferRequest>,
    ) -> Result<Vec<Result<Inference, EngineError>>, EngineError> {
        let engine = self.clone();
        background::run(move |_| Ok(engine.infer_batch_blocking(&requests))).await
    }

    /// Computes one input.
    ///
    /// # Errors
    /// [`EngineError`]: an input that is empty, longer than the context or of another width than the model's; a result that
    /// does not fit the memory pool; a failing executor.
    pub fn infer_blocking(&self, request: impl Into<InferRequest>) -> Result<Inference, EngineError> {
        let mut results = self.infer_all(&[&request.into()]);
        results.pop().unwrap_or(Err(EngineError::EmptyPrompt))
    }

    /// Computes several inputs together; one result each, in their order.
    pub fn infer_batch_blocking(&self, requests: &[InferRequest]) -> Vec<Result<Inference, EngineError>> {
        self.infer_all(&requests.iter().collect::<Vec<_>>())
    }

    /// The rows of the model's embedding for `tokens`, `[tokens, hidden_size]`: an input for
    /// [`infer`](Self::infer).
    ///
    /// # Errors
    /// [`EngineError::Exec`]: tokens outside the vocabulary, a backend that does not give them.
    pub fn embedding_rows(&self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let mut rows = vec![0.0; tokens.len() * self.spec().hidden_size];
        self.backend().executor().embedding_rows(tokens, &mut rows)?;
        Ok(rows)
    }
}
