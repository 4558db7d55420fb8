//! The seam between the engine and its backends.
//!
//! A backend is one [`Executor`]. It is coarse on purpose: it owns the whole forward pass, its weight layout and the
//! memory of the paged KV cache, so that it can fuse and choose layouts. The engine owns block *numbers*: a sequence's
//! token at position `p` has its keys and values in block `blocks[p / block_size]`, slot `p % block_size`.
//!
//! Prefill, decode, chunked prefill and continuous batching are one call with different batches.

use bitnet_core::{MemorySize, MemoryStats};

use crate::kv::KvType;
use crate::select::{RowWant, full_as_select};
use crate::{DenseTensor, ModelSpec};

/// Which rows of a sequence's new tokens need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// None: a prefill chunk that is not the last.
    None,
    /// The last new token: decode, or the last prefill chunk.
    Last,
    /// Every new token: perplexity and scoring.
    All,
}

/// The new tokens of one sequence in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// New tokens, at least one.
    pub tokens: &'a [u32],
    /// Position of the first new token; keys and values of all earlier positions are in `blocks` already.
    pub position: usize,
    /// KV block table; covers positions `0..position + tokens.len()`.
    pub blocks: &'a [u32],
    /// Which rows need logits.
    pub logits: LogitRows,
}

impl Sequence<'_> {
    /// Rows of logits this sequence gets.
    pub fn logit_rows(&self) -> usize {
        match self.logits {
            LogitRows::None => 0,
            LogitRows::Last => 1,
            LogitRows::All => self.tokens.len(),
        }
    }
}

/// What one forward call computes. Sequences are independent: no result depends on a neighbour.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The sequences; a KV block belongs to at most one of them unless it is only read.
    pub sequences: &'a [Sequence<'a>],
}

impl Batch<'_> {
    /// New tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.tokens.len()).sum()
    }

    /// Rows of logits of all sequences.
    pub fn logit_rows(&self) -> usize {
        self.sequences.iter().map(Sequence::logit_rows).sum()
    }

    /// Checks a batch against a model and a number of KV blocks, for executors to call first.
    ///
    /// # Errors
    /// [`ExecError`] naming the first thing that does not fit.
    pub fn validate(&self, spec: &ModelSpec, block_size: usize, block_count: usize) -> Result<(), ExecError> {
        for (index, s) in self.sequences.iter().enumerate() {
            if s.tokens.is_empty() {
                return Err(ExecError::EmptySequence { index });
            }
            if let Some(&token) = s.tokens.iter().find(|&&t| t as usize >= spec.vocab_size) {
                return Err(ExecError::TokenOutOfRange { token, vocab_size: spec.vocab_size });
            }
            let end = s.position + s.tokens.len();
            if end.div_ceil(block_size) > s.blocks.len() {
                return Err(ExecError::BlocksMissing {
                    index,
                    needed: end.div_ceil(block_size),
                    given: s.blocks.len(),
                });
            }
            check_blocks(s.blocks, block_count)?;
        }
        Ok(())
    }

    /// Checks that `logits` has room for exactly the rows the batch asks for.
    ///
    /// # Errors
    /// [`ExecError::OutputSize`].
    pub fn check_output(&self, spec: &ModelSpec, logits: &[f32]) -> Result<(), ExecError> {
        let needed = self.logit_rows() * spec.vocab_size;
        if logits.len() == needed {
            Ok(())
        } else {
            Err(ExecError::OutputSize { needed, given: logits.len() })
        }
    }

    /// Checks that `hidden` has room for exactly the rows the batch asks for.
    ///
    /// # Errors
    /// [`ExecError::OutputSize`].
    pub fn check_hidden(&self, spec: &ModelSpec, hidden: &[f32]) -> Result<(), ExecError> {
        let (needed, given) = (self.logit_rows() * spec.hidden_size, hidden.len());
        if needed == given { Ok(()) } else { Err(ExecError::OutputSize { needed, given }) }
    }

    /// Checks that `rows` has a row for each token of the batch.
    ///
    /// # Errors
    /// [`ExecError::InputSize`].
    pub fn check_rows(&self, spec: &ModelSpec, rows: &[f32]) -> Result<(), ExecError> {
        let (needed, given) = (self.tokens() * spec.hidden_size, rows.len());
        if needed == given { Ok(()) } else { Err(ExecError::InputSize { needed, given }) }
    }

    /// Checks that `top` has one element for each row the batch asks for.
    ///
    /// # Errors
    /// [`ExecError::OutputSize`].
    pub fn check_top(&self, top: &[TopLogits]) -> Result<(), ExecError> {
        let (needed, given) = (self.logit_rows(), top.len());
        if needed == given { Ok(()) } else { Err(ExecError::OutputSize { needed, given }) }
    }
}

/// Facts about an executor, for people and for the engine's planning.
#[derive(Debug, Clone)]
pub struct ExecutorInfo {
    /// Backend and device: `cpu (avx512vnni, 2 threads)`.
    pub description: String,
    /// Memory that the weights take on the device.
    pub weight_bytes: MemorySize,
    /// Weights that stay in the model's file, of which only the rows that are needed are read.
    pub file_bytes: MemorySize,
    /// Tokens in one KV block.
    pub block_size: usize,
    /// Memory of one KV block, all layers.
    pub block_bytes: MemorySize,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Most tokens that one call computes together efficiently; the engine cuts longer prompts into such chunks.
    pub max_batch_tokens: usize,
    /// Name of the kernels in use: `avx512vnni`.
    pub kernels: &'static str,
    /// Threads that compute.
    pub threads: usize,
    /// Weights that a call reads.
    pub traffic: Traffic,
}

/// Bytes of weights that one forward call reads at least, whatever the number of its rows. With the keys and values of
/// the context (`block_bytes / block_size` a token) this is what memory must deliver for one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Projections of all layers, as they are packed.
    pub layers: MemorySize,
    /// The output layer in [`Executor::forward`]; nothing if no row needs logits.
    pub output: MemorySize,
    /// The output layer in [`Executor::forward_top`], without the few rows that are computed in full.
    pub output_scan: MemorySize,
}

impl ExecutorInfo {
    /// Memory that the keys and values of one token take, all layers.
    pub fn kv_bytes_per_token(&self) -> MemorySize {
        MemorySize::bytes(self.block_bytes.as_bytes() / self.block_size as u64)
    }
}

/// What can go wrong in a forward call. Every error leaves the executor usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// A sequence brought no token.
    #[error("sequence {index} of the batch has no tokens")]
    EmptySequence {
        /// Which sequence.
        index: usize,
    },
    /// A token that the embedding does not have.
    #[error("token {token} is outside the vocabulary of {vocab_size}; the tokenizer does not fit the model")]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The block table is too short for the positions.
    #[error("sequence {index} needs {needed} KV blocks but brings {given}")]
    BlocksMissing {
        /// Which sequence.
        index: usize,
        /// Blocks its positions take.
        needed: usize,
        /// Blocks in its table.
        given: usize,
    },
    /// A block number that was not reserved.
    #[error("KV block {block} does not exist; {count} are reserved")]
    NoSuchBlock {
        /// The block.
        block: u32,
        /// Blocks there are.
        count: usize,
    },
    /// The output slice has the wrong size.
    #[error("the result needs room for {needed} values, {given} were given")]
    OutputSize {
        /// Rows that the batch asks for times the length of one.
        needed: usize,
        /// Length of the slice.
        given: usize,
    },
    /// Rows to compute from that do not fit the batch.
    #[error("the batch computes from {needed} values of rows, {given} were given")]
    InputSize {
        /// Tokens of the batch times the hidden size.
        needed: usize,
        /// Length of the slice.
        given: usize,
    },
    /// Bytes that are not the keys and values of so many positions of a block.
    #[error(
        "{needed} bytes are the keys and values of {positions} positions of a KV block; {given} were given"
    )]
    BlockBytes {
        /// Positions asked for.
        positions: usize,
        /// Bytes that they have.
        needed: usize,
        /// Length of the slice.
        given: usize,
    },
    /// The result is not a number: damaged weights or an impossible input.
    #[error("the model computed results that are not numbers; the model file is damaged")]
    NotFinite,
    /// Weights that cannot be decoded.
    #[error("{tensor}: {source}")]
    Weights {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        source: bitnet_quant::QuantError,
    },
    /// A model that this backend cannot run.
    #[error("{backend} cannot run this model: {what}")]
    Unsupported {
        /// The backend.
        backend: &'static str,
        /// What it lacks.
        what: String,
    },
    /// The device failed: it is gone, was reset, or refused what it should do.
    #[error("{backend}: {what}")]
    Device {
        /// The backend.
        backend: &'static str,
        /// What happened, in the words of the driver.
        what: String,
    },
    /// The device has not enough memory.
    #[error("{backend}: {needed} of device memory are needed{}", free_memory(*free))]
    OutOfDeviceMemory {
        /// The backend.
        backend: &'static str,
        /// What was asked for.
        needed: MemorySize,
        /// What there is, where that is known.
        free: Option<MemorySize>,
    },
    /// All keys and values are lost, since the device that held them failed. The next calls run on another one: what was
    /// computed of texts must be computed again.
    #[error("what was computed is lost ({why}); it must be computed again")]
    ContextLost {
        /// What failed, and where computing goes on.
        why: String,
    },
    /// Memory, threads or mapping failed.
    #[error(transparent)]
    Core(#[from] bitnet_core::CoreError),
}

/// The end of a sentence about memory that is not there.
fn free_memory(free: Option<MemorySize>) -> String {
    free.map_or_else(String::new, |free| format!(", {free} are free"))
}

/// Some logits of one row: at least the largest ones, values as [`Executor::forward`] gives them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopLogits {
    /// Tokens, ascending.
    pub ids: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f32>,
}

/// What a call that computes from rows gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Give {
    /// What [`Executor::forward`] gives.
    Logits,
    /// What [`Executor::forward_hidden`] gives.
    Hidden,
}

/// A backend: owns weights and KV memory, runs whole forward passes.
pub trait Executor: Send {
    /// The model it runs.
    fn spec(&self) -> &ModelSpec;

    /// Facts about itself.
    fn info(&self) -> ExecutorInfo;

    /// Makes blocks `0..count` usable; keeps the content of those that exist. Never shrinks.
    ///
    /// # Errors
    /// If the memory is not there; the blocks of before stay usable.
    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError>;

    /// Whether all keys and values were lost since this was asked the last time: some call gave
    /// [`ExecError::ContextLost`]. Blocks that are reserved stay so.
    fn take_loss(&mut self) -> bool {
        false
    }

    /// How the memory of a device that is not the processor is used: weights, keys and values, buffers.
    fn device_memory(&self) -> Option<MemoryStats> {
        None
    }

    /// Whether [`RowWant::Draw`] gives the token alone, so that it is worth asking for.
    fn draws(&self) -> bool {
        false
    }

    /// Copies the keys and values of all layers from one block to another, so that a text can go on from within a block that
    /// others read.
    ///
    /// # Errors
    /// [`ExecError::NoSuchBlock`]; [`ExecError::Unsupported`] from backends that cannot.
    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        let _ = (from, to);
        Err(cannot(self, "copy KV blocks"))
    }

    /// Gives the keys and values of the first `positions` of a block, in the form of [`KvRows`](crate::kv_rows::KvRows), so
    /// that they can be kept in a file.
    ///
    /// # Errors
    /// [`ExecError::NoSuchBlock`]; [`ExecError::BlockBytes`] if `out` has another size or the block fewer positions;
    /// [`ExecError::Unsupported`] from backends that cannot.
    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        let _ = (block, positions, out);
        Err(cannot(self, "give the content of KV blocks"))
    }

    /// Puts keys and values that [`read_block`](Self::read_block) of an executor of the same model gave into the first
    /// `positions` of a block. A text goes on from them with the same bits.
    ///
    /// # Errors
    /// As [`read_block`](Self::read_block).
    fn write_block(&mut self, block: u32, positions: usize, bytes: &[u8]) -> Result<(), ExecError> {
        let _ = (block, positions, bytes);
        Err(cannot(self, "take the content of KV blocks"))
    }

    /// Runs the batch: writes keys and values of the new tokens into their blocks and `logits`
    /// (`[batch.logit_rows(), vocab_size]`, row-major, in the order of sequences and tokens).
    ///
    /// # Errors
    /// [`ExecError`]; the KV content of the batch's new positions is then unspecified, all else is unchanged.
    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError>;

    /// Runs the batch like [`Executor::forward`], but gives for each logit row a set of tokens that contains the `k`
    /// with the largest logits, with the same bits. An executor that knows how need not read the whole output layer.
    ///
    /// # Errors
    /// As [`Executor::forward`]; `top` must have one element for each logit row.
    fn forward_top(&mut self, batch: &Batch<'_>, k: usize, top: &mut [TopLogits]) -> Result<(), ExecError> {
        let _ = k;
        full_as_top(self, batch, top)
    }

    /// Runs the batch like [`Executor::forward`], but gives of each logit row what its element of `wants` says, with the same
    /// bits: all logits, to `logits` (`[rows that want all, vocab_size]`), or a set of tokens that contains the `k` with the
    /// largest logits of those that count, to its element of `top`. Both are in the order of the rows that want such; no
    /// token that does not count is given. So one request that needs all logits does not let its neighbours pay for it.
    ///
    /// # Errors
    /// As [`Executor::forward`]; [`ExecError::OutputSize`] if the numbers of wants and results are not those of the rows.
    fn forward_select(
        &mut self,
        batch: &Batch<'_>,
        wants: &[RowWant<'_>],
        logits: &mut [f32],
        top: &mut [TopLogits],
    ) -> Result<(), ExecError> {
        full_as_select(self, batch, wants, logits, top)
    }

    /// Runs the batch like [`Executor::forward`], but gives the hidden states of the rows that [`Sequence::logits`] names,
    /// behind the final norm: what the output layer would multiply. `hidden` is `[batch.logit_rows(), hidden_size]`,
    /// row-major, in the order of sequences and tokens. The output layer is not read.
    ///
    /// # Errors
    /// As [`Executor::forward`]; [`ExecError::Unsupported`] from backends that cannot.
    fn forward_hidden(&mut self, batch: &Batch<'_>, hidden: &mut [f32]) -> Result<(), ExecError> {
        let _ = (batch, hidden);
        Err(cannot(self, "give hidden states"))
    }

    /// The rows of the embedding for `tokens`, `[tokens.len(), hidden_size]`, as the model's file has them: what
    /// [`forward_rows`](Self::forward_rows) takes.
    ///
    /// # Errors
    /// [`ExecError`]: tokens outside the vocabulary, a slice of another size, [`ExecError::Unsupported`] from backends that
    /// cannot.
    fn embedding_rows(&mut self, tokens: &[u32], rows: &mut [f32]) -> Result<(), ExecError> {
        let _ = (tokens, rows);
        Err(cannot(self, "give rows of the embedding"))
    }

    /// Runs the batch like [`Executor::forward`] or [`Executor::forward_hidden`], but takes `rows`, `[batch.tokens(),
    /// hidden_size]`, for what the embedding would give; the batch's tokens only count positions. With the rows of
    /// [`embedding_rows`](Self::embedding_rows) the results are those of the tokens, bit for bit.
    ///
    /// # Errors
    /// As [`Executor::forward`]; [`ExecError::InputSize`], [`ExecError::Unsupported`] from backends that cannot.
    fn forward_rows(
        &mut self,
        batch: &Batch<'_>,
        rows: &[f32],
        give: Give,
        out: &mut [f32],
    ) -> Result<(), ExecError> {
        let _ = (batch, rows, give, out);
        Err(cannot(self, "compute from rows"))
    }
}

/// What a backend answers to a call that it has not got.
fn cannot(executor: &(impl Executor + ?Sized), what: &str) -> ExecError {
    let what = format!("{} does not {what}", executor.info().description);
    ExecError::Unsupported { backend: "this backend", what }
}

/// [`Executor::embedding_rows`] from the table in the model's file.
///
/// # Errors
/// [`ExecError::TokenOutOfRange`], [`ExecError::OutputSize`]; if the file cannot be read.
pub fn read_embedding_rows(
    spec: &ModelSpec,
    embedding: &DenseTensor,
    tokens: &[u32],
    rows: &mut [f32],
) -> Result<(), ExecError> {
    if let Some(&token) = tokens.iter().find(|&&t| t as usize >= spec.vocab_size) {
        return Err(ExecError::TokenOutOfRange { token, vocab_size: spec.vocab_size });
    }
    let (needed, given) = (tokens.len() * spec.hidden_size, rows.len());
    if needed != given {
        return Err(ExecError::OutputSize { needed, given });
    }
    let mut buffer = Vec::new();
    for (&token, row) in tokens.iter().zip(rows.chunks_exact_mut(spec.hidden_size)) {
        embedding.read_row(token as usize, &mut buffer, row)?;
    }
    Ok(())
}

/// Checks that blocks exist, of which there are `count`.
///
/// # Errors
/// [`ExecError::NoSuchBlock`].
pub fn check_blocks(blocks: &[u32], count: usize) -> Result<(), ExecError> {
    match blocks.iter().find(|&&block| block as usize >= count) {
        Some(&block) => Err(ExecError::NoSuchBlock { block, count }),
        None => Ok(()),
    }
}

/// [`Executor::forward_top`] by way of all logits: the set is the whole vocabulary.
///
/// # Errors
/// As [`Executor::forward_top`].
pub fn full_as_top<E: Executor + ?Sized>(
    executor: &mut E,
    batch: &Batch<'_>,
    top: &mut [TopLogits],
) -> Result<(), ExecError> {
    batch.check_top(top)?;
    let vocab = executor.spec().vocab_size;
    let mut logits = vec![0.0; top.len() * vocab];
    executor.forward(batch, &mut logits)?;
    for (top, row) in top.iter_mut().zip(logits.chunks_exact(vocab)) {
        top.ids.clear();
        top.ids.extend(0..vocab as u32);
        top.logits.clear();
        top.logits.extend_from_slice(row);
    }
    Ok(())
}
