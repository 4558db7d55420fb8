//! Text from BitNet models: what stands between an [`Executor`](bitnet_model::Executor) and a person.
//!
//! # The shortest way
//!
//! The bundled model needs no file and no network. All asynchronous functions run on threads of their own: any runtime will
//! do, and each has a blocking twin.
//!
//! ```
//! use bitnet_inference::InferenceEngine;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bitnet_inference::EngineError> {
//! let engine = InferenceEngine::balanced().await?;
//! println!("{}", engine.quick_infer("Once upon a time").await?);
//! # Ok(())
//! # }
//! ```
//!
//! [`InferenceEngine::load_model`] takes a path or a name in the cache of the Hub, [`InferenceEngine::smart_infer`] chooses
//! model, device and settings by itself.
//!
//! # The builder
//!
//! [`InferenceEngine::builder`] has a setting for everything; an engine is a handle that is cheap to clone.
//!
//! ```
//! use bitnet_inference::{GenerateRequest, InferenceEngine, MemorySize, OptimizationLevel, Prompt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bitnet_inference::EngineError> {
//! let engine = InferenceEngine::bundled() // or builder().model(ModelSource::Path("model.gguf".into()))
//!     .optimization_level(OptimizationLevel::Aggressive)
//!     .memory_pool_size(MemorySize::GB(1))
//!     .batch_size(16)
//!     .threads(1)
//!     .build()?;
//! let request = GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(4).seed(7);
//! let answer = engine.generate(request.clone()).await?;
//! assert_eq!(answer.text, engine.generate_blocking(&request)?.text, "a seed gives one text, alone or in company");
//! # Ok(())
//! # }
//! ```
//!
//! # Streaming
//!
//! The tokens of one request, or the results of a whole source of inputs. Dropping a stream cancels it.
//!
//! ```
//! use bitnet_inference::stream::{InferenceStream, StreamingConfig, sources};
//! use bitnet_inference::{GenerateRequest, InferRequest, InferenceEngine, Prompt, StreamEvent};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bitnet_inference::EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! let request = GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(4).seed(7);
//! let mut tokens = engine.generate_stream(request)?;
//! while let Some(event) = tokens.next().await {
//!     if let StreamEvent::Token { text, .. } = event? {
//!         print!("{text}");
//!     }
//! }
//!
//! let texts = sources::from_iter(["A cat", "A dog"].map(InferRequest::new));
//! let mut results = InferenceStream::parallel(engine, texts, 2, StreamingConfig::default())?;
//! while let Some(item) = results.next().await {
//!     println!("{}: token {}", item.index, item.result?.best());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Batches
//!
//! [`InferenceEngine::generate_batch`] and [`InferenceEngine::infer_batch`] compute a list together. [`BatchProcessor`] cuts
//! a long one into batches that fit memory, [`ParallelInferenceProcessor`] puts worker threads behind a bounded queue.
//!
//! ```
//! use bitnet_inference::{BatchConfig, BatchProcessor, InferRequest, InferenceEngine};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bitnet_inference::EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! let texts = ["One", "Two", "Three"].map(|text| InferRequest::new(text).embedding()).to_vec();
//! let processor = BatchProcessor::new(engine, BatchConfig::default())?;
//! for vector in processor.process(texts).await? {
//!     assert_eq!(vector?.rows(), 1);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # A server
//!
//! `bitnet serve` serves the APIs that clients know. The crate `bitnet-server` is the same as a library: its `Server` gives
//! an axum router that other applications can embed; `crates/bitnet-server/examples/` shows how.
//!
//! # Where things are
//!
//! * [`InferenceEngine`], [`EngineBuilder`]: loads a model, owns its executor, answers requests.
//! * [`GenerateRequest`], [`Event`], [`Generation`]: one request, what happens meanwhile, its result.
//! * [`scheduler`]: many requests at once, each a [`GenerationStream`]: what [`InferenceEngine::generate`] runs on.
//! * [`Session`]: a conversation whose keys and values stay in memory, so that the next turn computes only what is new;
//!   [`InferenceEngine::save_session`] and [`InferenceEngine::load_session`] keep them over the end of the program.
//! * [`grammar`]: texts that a JSON schema, a regular expression or a grammar accepts.
//! * [`mod@infer`]: logits, hidden states and embeddings of tokens, texts or rows of values.
//! * [`stream`], [`mod@batch`], [`mod@parallel`]: many inputs; [`Process`] is what is done with them.
//! * [`sampling`]: from logits to a token, the same on every machine for the same seed; [`CustomSampler`] is your own.
//! * [`EmbedOptions`], [`Embeddings`]: vectors of texts.
//! * [`evaluate`]: perplexity, log-likelihoods of continuations, accuracy on tasks, and how two models differ.
//! * [`device`], [`OptimizationLevel`], [`QuantizationConfig`], [`MemoryStats`]: what runs where, how, and in what memory.
//! * [`model_cache`]: several models under a byte budget.
//! * [`anatomy`]: what is in the layers of a model, weights and activations.
//! * [`benchmark`]: how fast a model runs, beside what the machine could do.
//!
//! Kernels, file formats and tokenizers live in the crates below; terminals and HTTP in the crates above. Nothing here
//! prints. Features, both on by default: `tiny` (the bundled model) and `hub` (names of models in the Hub's cache).
#![forbid(unsafe_code)]

pub mod anatomy;
mod background;
pub mod batch;
pub mod benchmark;
pub mod device;
mod embed;
mod engine;
mod error;
pub mod evaluate;
mod generate;
pub mod grammar;
pub mod infer;
pub mod kv;
pub mod model_cache;
mod optimization;
pub mod parallel;
mod process;
pub mod sampling;
pub mod scheduler;
mod simple;
pub mod stream;

pub use background::Cancel;
pub use batch::{BatchConfig, BatchProcessor, BatchStats};
pub use bitnet_core::memory_pool::MemoryPool;
pub use bitnet_core::{MemorySize, MemoryStats};
pub use bitnet_cpu::{Form, OutputStorage};
pub use bitnet_model::KvType;
pub use bitnet_model::load::{LoadOptions, ModelSource, Pooling};
pub use bitnet_quant::QuantizationConfig;
pub use bitnet_text::{ChatMessage, ChatPrompt, ToolCall};
pub use device::{Device, DeviceSelector, DeviceStatus, GpuMemoryManager, OnDeviceFailure, Selection};
pub use embed::{EmbedOptions, Embeddings, cosine_similarity};
pub use engine::{EngineBuilder, EngineModel, InferenceEngine};
pub use error::{EngineError, ParameterError};
pub use evaluate::{LogLikelihood, LogLikelihoods, Perplexity, ScoredText, TextStart, TextWindows};
pub use generate::{Event, FinishReason, GenerateRequest, Generation, GenerationStats, Prompt};
pub use grammar::{Constraint, GrammarError};
pub use infer::{InferInput, InferOutput, InferRequest, Inference};
pub use kv::{PoolStats, Session, SessionFileError};
pub use optimization::OptimizationLevel;
pub use parallel::{
    Completed, ParallelConfig, ParallelInferenceProcessor, ParallelStats, RejectReason, Rejected,
    ShutdownMode, ShutdownReport,
};
pub use process::Process;
pub use sampling::{
    CustomSampler, LogitBias, Mirostat, PenaltyWindow, SamplerOrder, SamplingOverrides, SamplingParams,
};
pub use scheduler::{GenerationStream, SchedulerOptions, Shutdown, Speculation, StreamEvent, SubmitOptions};
pub use simple::SmartAnswer;
pub use stream::{InferenceStream, StreamItem, StreamingConfig};
