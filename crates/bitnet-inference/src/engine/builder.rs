//! [`EngineBuilder`]: from a model source to an engine on the CPU.

use std::time::Instant;

use bitnet_core::MemorySize;
use bitnet_core::memory_pool::MemoryPool;
use bitnet_cpu::{CpuExecutor, CpuOptions, Form, OutputStorage, PackedWeights};
use bitnet_model::load::{LoadOptions, ModelSource, load};
use bitnet_model::{Executor, KvType};
use bitnet_quant::{QuantizationConfig, TritStorage};

use super::{Core, EngineModel, InferenceEngine, checked_context};
use crate::device::{Device, DeviceSelector};
use crate::error::{EngineError, ParameterError};
use crate::optimization::OptimizationLevel;
use crate::scheduler::SchedulerOptions;

/// How many full conversations an engine keeps in memory unless told otherwise.
const SESSIONS: usize = 4;

/// Describes an engine; [`build`](Self::build) makes it. Only the model is required.
pub struct EngineBuilder {
    model: Option<ModelSource>,
    /// Weights that are in memory already, with what is known of their model.
    shared: Option<(PackedWeights, EngineModel)>,
    load: LoadOptions,
    cpu: CpuOptions,
    level: OptimizationLevel,
    /// What counts more than the level.
    kv_type: Option<KvType>,
    output: Option<OutputStorage>,
    scheduler: Option<SchedulerOptions>,
    batch_size: Option<usize>,
    device: Device,
    gpu: bool,
    quantization: Option<QuantizationConfig>,
    memory_pool: Option<MemorySize>,
    /// Most memory of keys and values, where it is less than full conversations take.
    kv_limit: Option<MemorySize>,
    context: Option<usize>,
    sessions: usize,
    progress: Box<dyn FnMut(u64, u64)>,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            model: None,
            shared: None,
            load: LoadOptions::default(),
            cpu: CpuOptions::default(),
            level: OptimizationLevel::default(),
            kv_type: None,
            output: None,
            scheduler: None,
            batch_size: None,
            device: Device::default(),
            gpu: false,
            quantization: None,
            memory_pool: None,
            kv_limit: None,
            context: None,
            sessions: SESSIONS,
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
    /// An engine over weights that are in memory already.
    pub(super) fn sharing(weights: PackedWeights, model: EngineModel) -> Self {
        Self { shared: Some((weights, model)), ..Self::default() }
    }

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
        self.output = Some(storage);
        self
    }

    /// How keys and values are kept: `f16` by default. `int8` halves their memory and the time that long contexts take,
    /// `f32` is the arithmetic of the original models.
    #[must_use]
    pub fn kv_type(mut self, kv_type: KvType) -> Self {
        self.kv_type = Some(kv_type);
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
        self.scheduler = Some(options);
        self
    }

    /// Settings that go together, for what is not set by itself; balanced by default.
    #[must_use]
    pub fn optimization_level(mut self, level: OptimizationLevel) -> Self {
        self.level = level;
        self
    }

    /// Most requests that are computed together, which the scheduler calls
    /// [`max_running`](SchedulerOptions::max_running).
    #[must_use]
    pub fn batch_size(mut self, requests: usize) -> Self {
        self.batch_size = Some(requests);
        self
    }

    /// Memory that the engine may take beside its weights: a quarter of it for the buffers of forward calls and for results
    /// ([`memory_stats`](InferenceEngine::memory_stats)), the rest for keys and values, unless full
    /// [`sessions`](Self::sessions) take less or a [`kv_budget`](SchedulerOptions::kv_budget) is set. What does not fit is an
    /// error. By default half of the memory that is free when the engine is built is for buffers and results.
    #[must_use]
    pub fn memory_pool_size(mut self, size: MemorySize) -> Self {
        self.memory_pool = Some(size);
        self.kv_limit = Some(MemorySize::bytes(size.as_bytes() / 4 * 3));
        self
    }

    /// Keys and values take at most so much memory, though full sessions would take more.
    pub(crate) fn kv_limit(mut self, size: MemorySize) -> Self {
        self.kv_limit = Some(size);
        self
    }

    /// What to run on; the fastest that is available by default. A device that is not available is an error; see
    /// [`DeviceSelector`] for what there is.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Prefers a GPU, if no [`device`](Self::device) was named. Without a usable one the engine runs on the processor, and
    /// its model's [`warnings`](EngineModel::warnings) say why.
    #[must_use]
    pub fn enable_gpu_acceleration(mut self, prefer: bool) -> Self {
        self.gpu = prefer;
        self
    }

    /// How the model is to be quantised. There is one way, and two ways to keep trits in memory: what is not supported is
    /// an error when the engine is built. A [`weight_form`](Self::weight_form) counts more.
    #[must_use]
    pub fn quantization(mut self, config: QuantizationConfig) -> Self {
        self.quantization = Some(config);
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
        let mut options = self.options()?;
        let fallback = self.choose_device()?;
        let memory = MemoryPool::new(self.buffers());
        self.cpu.memory = Some(memory.clone());
        let (executor, mut model) = self.executor()?;
        let context = checked_context(self.context, executor.spec(), &model.name)?;
        let packed = executor.packed_weights();
        model.warnings.extend(fallback);
        model.warnings.extend_from_slice(executor.warnings());
        if options.kv_budget.is_none() {
            let per_token = executor.info().kv_bytes_per_token().as_bytes();
            let full = per_token.saturating_mul(context as u64).saturating_mul(self.sessions as u64);
            options.kv_budget = self.kv_limit.filter(|limit| limit.as_bytes() < full);
        }
        let mut core = Core::new(model, Box::new(executor), Some(context), self.sessions, options)?;
        (core.load_time, core.memory, core.weights) = (start.elapsed(), memory, Some(packed));
        Ok(InferenceEngine::of_core(core))
    }

    /// The executor and its model: loaded, or over weights that are in memory.
    fn executor(&mut self) -> Result<(CpuExecutor, EngineModel), EngineError> {
        if let Some((weights, model)) = self.shared.take() {
            return Ok((CpuExecutor::sharing(&weights, &self.cpu)?, model));
        }
        let source = self.model.take().ok_or(EngineError::NoModel)?;
        let (spec, weights, model) = EngineModel::split(load(&source, &self.load)?);
        // What reading the files took goes back before the weights take theirs, which is when memory peaks.
        bitnet_core::process::trim_heap();
        // Refused before the weights are prepared, which takes seconds for a large model.
        checked_context(self.context, &spec, &model.name)?;
        Ok((CpuExecutor::new(spec, &weights, &self.cpu, &mut self.progress)?, model))
    }

    /// Puts what was set explicitly and what the level says together, and checks it.
    fn options(&mut self) -> Result<SchedulerOptions, EngineError> {
        self.cpu.kv_type = self.kv_type.unwrap_or(self.level.kv_type());
        self.cpu.output = self.output.unwrap_or(self.level.output_storage());
        if let Some(config) = self.quantization {
            let form = match config.check()? {
                TritStorage::Any => None,
                TritStorage::FiveTrits => Some(Form::FiveTrits),
                TritStorage::TwoBit => Some(Form::TwoBit),
            };
            self.cpu.form = self.cpu.form.or(form);
        }
        let mut options = self.scheduler.clone().unwrap_or_else(|| self.level.scheduler());
        if let Some(requests) = self.batch_size {
            if requests == 0 {
                let allowed = "1 or more requests";
                return Err(ParameterError { name: "batch_size", value: "0".to_owned(), allowed }.into());
            }
            options.max_running = requests;
        }
        options.validate()?;
        Ok(options)
    }

    /// Looks whether there is a backend for what was asked for; why there is none, if the processor does it as well.
    fn choose_device(&self) -> Result<Option<String>, EngineError> {
        let selector = DeviceSelector::new();
        if self.device != Device::Auto {
            selector.require(self.device)?;
            return Ok(None);
        }
        let why = self.gpu.then(|| selector.select_gpu().fallback).flatten();
        Ok(why.map(|why| format!("no GPU can be used, the model runs on the processor ({why})")))
    }

    /// Memory for buffers and results.
    fn buffers(&self) -> MemorySize {
        match self.memory_pool {
            Some(size) => MemorySize::bytes(size.as_bytes() / 4),
            None => {
                let free = bitnet_core::process::available_memory().unwrap_or(MemorySize::GB(8));
                MemorySize::bytes((free.as_bytes() / 2).max(MemorySize::MB(256).as_bytes()))
            }
        }
    }
}
