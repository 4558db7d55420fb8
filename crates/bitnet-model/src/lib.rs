//! BitNet models as data, and the seam between them and what computes them.
//!
//! * [`spec`]: [`ModelSpec`], the architecture as data.
//! * [`weights`]: [`Weights`], the tensors as views into model files.
//! * [`executor`]: the [`Executor`] trait that every backend implements, with its batch types.
//! * [`export`]: from a loaded model to formats that other programs run.
//! * [`kv`]: how keys and values are kept, [`KvType`].
//! * [`kv_rows`]: the form in which they leave an executor and come back, [`KvRows`](kv_rows::KvRows).
//! * [`load`](mod@load): from model files of any published form to spec and weights.
//! * [`reference`](mod@reference): the forward pass in plain scalar Rust, the oracle that executors are tested against.
//! * [`select`](mod@select): which logits each row of a batch is to give, [`RowWant`].
//! * [`synth`]: shape-true models with random weights.
//! * [`want`]: what a forward call gives, [`Want`].
//!
//! Nothing here is fast on purpose.
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod draw;
pub mod executor;
pub mod export;
mod fingerprint;
pub mod kv;
pub mod kv_rows;
pub mod load;
pub mod reference;
pub mod select;
pub mod spec;
pub mod synth;
pub mod want;
pub mod weights;

pub use draw::{Draw, DrawStep};
pub use executor::{Batch, ExecError, Executor, ExecutorInfo, Give, LogitRows, Sequence, TopLogits, Traffic};
pub use fingerprint::fingerprint;
pub use kv::KvType;
pub use load::{
    EmbeddingDefaults, GenerationDefaults, LoadError, LoadOptions, LoadedModel, ModelSource, Pooling,
    TensorSummary, load,
};
pub use select::{RowWant, TokenSet, TopWant};
pub use spec::{Activation, Extras, ModelSpec, RopeScaling, SlidingWindow, SpecError};
pub use want::{RowWants, Want};
pub use weights::{DenseTensor, LayerExtras, LayerWeights, PlainRows, Weights};
