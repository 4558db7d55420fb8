//! [`EngineBuilder`]: from a model source to an engine on the CPU.

use std::time::Instant;

use bitnet_cpu::{CpuExecutor, CpuOptions, Form, OutputStorage};
use bitnet_model::KvType;
use bitnet_model::load::{LoadOptions, ModelSource, load};

use super::{Core, EngineModel, InferenceEngine, checked_context};
use crate::error::{EngineError, ParameterError};
use crate::scheduler::SchedulerOptions;

/// How many full conversations an engine keeps in memory unless told otherwise.
const SESSIONS: usize = 4;

/// Describes an engine; [`build`](Self::build) makes it. Only the model is required.
pub struct EngineBuilder {
    model: Option<ModelSource>,
    load: LoadOptions,
    cpu: CpuOptions,
    context: Option<usize>,
    sessions: usize,
    scheduler: SchedulerOptions,
    progress: Box<dyn FnMut(u64, u64)>,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            model: None,
            load: LoadOptions::default(),
            cpu: CpuOptions::default(),
            context: None,
            sessions: SESSIONS,
            scheduler: SchedulerOptions::default(),
            progress: Box::new(|_, _| {}),
        }
    }
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { model, cpu, context, .. } = self;
        let mut out = f.debug_struct("EngineBuilder");
        out.field("model", model).field("cpu", cpu).field("context", context).finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Where the model is.
    #[must_use]
    pub fn model(mut self, source: ModelSource) -> Self {
        self.model = Some(source);
        self
    }

    /// How to read it, where its files leave that open or are wrong.
    #[must_use]
    pub fn load_options(mut self, options: LoadOptions) -> Self {
        self.load = options;
        self
    }

    /// Threads that compute; by default one for each physical core.
    #[must_use]
    pub fn threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.cpu.threads = threads.into();
        self
    }

    /// Name of the kernel set to use; by default the fastest that the processor can run.
    #[must_use]
    pub fn kernels(mut self, name: impl Into<Option<String>>) -> Self {
        self.cpu.kernels = name.into();
        self
    }

    /// How ternary weights are kept in memory; by default the form that a short measurement finds faster. Results are
    /// the same bits.
    #[must_use]
    pub fn weight_form(mut self, form: Option<Form>) -> Self {
        self.cpu.form = form;
        self
    }

    /// How the output layer is kept; by default so that the logits are exact and little of it is read.
    #[must_use]
    pub fn output_storage(mut self, storage: OutputStorage) -> Self {
        self.cpu.output = storage;
        self
    }

    /// How keys and values are kept: `f16` by default. `int8` halves their memory and the time that long contexts take,
    /// `f32` is the arithmetic of the original models.
    #[must_use]
    pub fn kv_type(mut self, kv_type: KvType) -> Self {
        self.cpu.kv_type = kv_type;
        self
    }

    /// Most tokens of one conversation; by default as many as the model was made for. Memory is taken as it is needed.
    #[must_use]
    pub fn context_size(mut self, tokens: impl Into<Option<usize>>) -> Self {
        self.context = tokens.into();
        self
    }

    /// How many full conversations may be in memory at a time; 4 by default.
    #[must_use]
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions;
        self
    }

    /// How many requests run together, and how. A [`kv_budget`](SchedulerOptions::kv_budget) takes the place of
    /// [`sessions`](Self::sessions).
    #[must_use]
    pub fn scheduler(mut self, options: SchedulerOptions) -> Self {
        self.scheduler = options;
        self
    }

    /// Called while weights are prepared, with the layers done and those there are.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(u64, u64) + 'static) -> Self {
        self.progress = Box::new(callback);
        self
    }

    /// Loads the model and prepares it for this machine's processor.
    ///
    /// # Errors
    /// [`EngineError`]: the model cannot be loaded, the processor lacks what the kernels need, or a parameter is not possible.
    pub fn build(mut self) -> Result<InferenceEngine, EngineError> {
        let start = Instant::now();
        if self.cpu.threads == Some(0) {
            return Err(
                ParameterError { name: "threads", value: "0".to_owned(), allowed: "1 or more" }.into()
            );
        }
        let source = self.model.take().ok_or(EngineError::NoModel)?;
        let (spec, weights, mut model) = EngineModel::split(load(&source, &self.load)?);
        // What reading the files took goes back before the weights take theirs, which is when memory peaks.
        bitnet_core::process::trim_heap();
        // Refused before the weights are prepared, which takes seconds for a large model.
        let context = checked_context(self.context, &spec, &model.name)?;
        self.scheduler.validate()?;
        let executor = CpuExecutor::new(spec, &weights, &self.cpu, &mut self.progress)?;
        drop(weights);
        model.warnings.extend_from_slice(executor.warnings());
        let mut core = Core::new(model, Box::new(executor), Some(context), self.sessions, self.scheduler)?;
        core.load_time = start.elapsed();
        Ok(InferenceEngine::of_core(core))
    }
}
