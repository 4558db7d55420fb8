//! Text from BitNet models: what stands between an [`Executor`](bitnet_model::Executor) and a person.
//!
//! * [`InferenceEngine`]: loads a model, owns its executor, answers requests.
//! * [`GenerateRequest`], [`Event`], [`Generation`]: one request, what happens meanwhile, its result.
//! * [`scheduler`]: many requests at once, each a [`GenerationStream`]: what [`InferenceEngine::generate`] runs on.
//! * [`Session`]: a conversation whose keys and values stay in memory, so that the next turn computes only what is new.
//! * [`grammar`]: texts that a JSON schema, a regular expression or a grammar accepts.
//! * [`sampling`]: from logits to a token, the same on every machine for the same seed.
//! * [`EmbedOptions`], [`Embeddings`]: vectors of texts.
//! * [`Perplexity`]: how well a model predicts a text.
//! * [`model_cache`]: several models under a byte budget.
//! * [`benchmark`]: how fast a model runs, beside what the machine could do.
//!
//! Kernels, file formats and tokenizers live in the crates below; terminals and HTTP in the crates above. Nothing here
//! prints.
//!
//! ```
//! use bitnet_inference::{GenerateRequest, InferenceEngine, ModelSource, Prompt};
//!
//! let files = bitnet_tiny::files().into_iter();
//! let source = ModelSource::Memory {
//!     name: bitnet_tiny::NAME.to_owned(),
//!     files: files.map(|(name, bytes)| (name.to_owned(), bitnet_core::bytes::ByteView::from_static(bytes))).collect(),
//! };
//! let engine = InferenceEngine::builder().model(source).threads(1).build()?;
//! let request = GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(4).seed(7);
//! let answer = engine.generate_blocking(&request)?;
//! assert_eq!(answer.text, engine.generate_blocking(&request)?.text);
//! # Ok::<(), bitnet_inference::EngineError>(())
//! ```
//!
//! That blocks its thread. Many requests at once, each streamed, run on the [`scheduler`]:
//!
//! ```
//! # use bitnet_inference::{GenerateRequest, InferenceEngine, ModelSource, Prompt, StreamEvent};
//! # let files = bitnet_tiny::files().into_iter();
//! # let source = ModelSource::Memory {
//! #     name: bitnet_tiny::NAME.to_owned(),
//! #     files: files.map(|(name, bytes)| (name.to_owned(), bitnet_core::bytes::ByteView::from_static(bytes))).collect(),
//! # };
//! # let engine = InferenceEngine::builder().model(source).threads(1).build()?;
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let request = |seed| GenerateRequest::new(Prompt::text("Once upon a time")).max_tokens(4).seed(seed);
//! let mut stream = engine.generate_stream(request(7))?;
//! let other = engine.generate(request(8)).await?;
//! while let Some(event) = stream.next().await {
//!     if let StreamEvent::Finished { generation, .. } = event? {
//!         assert_ne!(generation.text, other.text);
//!     }
//! }
//! # Ok::<(), bitnet_inference::EngineError>(())
//! # })?;
//! # Ok::<(), bitnet_inference::EngineError>(())
//! ```
#![forbid(unsafe_code)]

pub mod benchmark;
mod embed;
mod engine;
mod error;
mod generate;
pub mod grammar;
pub mod kv;
pub mod model_cache;
mod perplexity;
pub mod sampling;
pub mod scheduler;

pub use bitnet_cpu::OutputStorage;
pub use bitnet_model::KvType;
pub use bitnet_model::load::{LoadOptions, ModelSource, Pooling};
pub use bitnet_text::{ChatMessage, ChatPrompt, ToolCall};
pub use embed::{EmbedOptions, Embeddings, cosine_similarity};
pub use engine::{EngineBuilder, EngineModel, InferenceEngine};
pub use error::{EngineError, ParameterError};
pub use generate::{Event, FinishReason, GenerateRequest, Generation, GenerationStats, Prompt};
pub use grammar::{Constraint, GrammarError};
pub use kv::{PoolStats, Session};
pub use perplexity::Perplexity;
pub use sampling::{LogitBias, Mirostat, PenaltyWindow, SamplerOrder, SamplingOverrides, SamplingParams};
pub use scheduler::{GenerationStream, SchedulerOptions, StreamEvent, SubmitOptions};
