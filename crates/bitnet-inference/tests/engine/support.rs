//! The bundled model and its reference outputs, for the tests of this crate.

use bitnet_core::bytes::ByteView;
use bitnet_cpu::{CpuExecutor, CpuOptions, OutputStorage};
use bitnet_inference::{
    EngineBuilder, EngineModel, InferenceEngine, KvType, LoadOptions, ModelSource, SchedulerOptions,
};
use bitnet_model::{Batch, ExecError, Executor, ExecutorInfo, ModelSpec, TopLogits};

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

/// Sees each batch before the executor does, and may refuse it, wait or panic.
pub(crate) type Watch = Box<dyn FnMut(&Batch<'_>) -> Result<(), ExecError> + Send>;

/// Changes the logits of each batch's rows behind the executor.
pub(crate) type Spoil = fn(&Batch<'_>, &mut [TopLogits]);

/// The CPU's executor behind a watch.
struct Watched {
    inner: CpuExecutor,
    watch: Watch,
    spoil: Spoil,
}

impl Executor for Watched {
    fn spec(&self) -> &ModelSpec {
        self.inner.spec()
    }

    fn info(&self) -> ExecutorInfo {
        self.inner.info()
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        self.inner.reserve_blocks(count)
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        (self.watch)(batch)?;
        self.inner.forward(batch, logits)
    }

    fn forward_top(&mut self, batch: &Batch<'_>, k: usize, top: &mut [TopLogits]) -> Result<(), ExecError> {
        (self.watch)(batch)?;
        self.inner.forward_top(batch, k, top)?;
        (self.spoil)(batch, top);
        Ok(())
    }
}

/// An engine of the bundled model whose batches are watched.
pub(crate) fn watched(options: SchedulerOptions, watch: Watch) -> InferenceEngine {
    spoiled(options, watch, |_, _| {})
}

/// The same, and something happens to its logits.
pub(crate) fn spoiled(options: SchedulerOptions, watch: Watch, spoil: Spoil) -> InferenceEngine {
    let loaded = bitnet_model::load::load(&source(), &LoadOptions::default()).unwrap();
    let (spec, weights, model) = EngineModel::split(loaded);
    let cpu = CpuOptions { threads: Some(1), output: OutputStorage::Scan, ..CpuOptions::default() };
    let inner = CpuExecutor::new(spec, &weights, &cpu, &mut |_, _| {}).unwrap();
    let executor = Box::new(Watched { inner, watch, spoil });
    InferenceEngine::from_executor_with(model, executor, None, 4, options).unwrap()
}
