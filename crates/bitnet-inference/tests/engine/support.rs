//! The bundled model and its reference outputs, for the tests of this crate.

use bitnet_core::bytes::ByteView;
use bitnet_inference::{EngineBuilder, InferenceEngine, KvType, ModelSource};

/// Where the reference outputs of the bundled model are.
pub(crate) const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/bitnet-tiny");

/// The bundled model.
pub(crate) fn source() -> ModelSource {
    let view = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), ByteView::from_static(bytes));
    ModelSource::Memory {
        name: bitnet_tiny::NAME.to_owned(),
        files: bitnet_tiny::files().into_iter().map(view).collect(),
    }
}

/// An engine of the bundled model with this many threads, not built yet.
pub(crate) fn builder(threads: usize) -> EngineBuilder {
    InferenceEngine::builder().model(source()).threads(threads)
}

/// An engine of the bundled model with this many threads.
pub(crate) fn engine(threads: usize) -> InferenceEngine {
    builder(threads).build().unwrap()
}

/// An engine in the arithmetic of the reference outputs, whose keys and values are float32.
pub(crate) fn reference_engine(threads: usize) -> InferenceEngine {
    builder(threads).kv_type(KvType::F32).build().unwrap()
}
