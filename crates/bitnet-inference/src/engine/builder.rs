//! [`EngineBuilder`]: from a model source to an engine on the processor or a GPU.

use std::collections::VecDeque;
use std::time::Instant;

use bitnet_core::memory_pool::MemoryPool;
use bitnet_core::{MemorySize, MemoryStats};
use bitnet_cpu::{CpuExecutor, CpuOptions, Form, OutputStorage, PackedWeights};
use bitnet_model::load::{LoadOptions, ModelSource, load};
use bitnet_model::{ExecError, Executor, KvType, ModelSpec, Weights};
use bitnet_quant::{QuantizationConfig, TritStorage};

use super::kv_budget::Room;
use super::{Core, EngineModel, InferenceEngine, checked_context};
use crate::device::{Device, DeviceSelector, GpuOptions, OnDeviceFailure, Reserve, Standby, open};
use crate::error::{EngineError, ParameterError};
use crate::optimization::OptimizationLevel;
use crate::scheduler::SchedulerOptions;

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
    gpu_memory: Option<MemorySize>,
    on_device_failure: OnDeviceFailure,
    quantization: Option<QuantizationConfig>,
    memory_pool: Option<MemorySize>,
    /// Most memory of keys and values, where it is less than full conversations take.
    kv_limit: Option<MemorySize>,
    context: Option<usize>,
    sessions: Option<usize>,
    progress: Box<dyn FnMut(u64, u64)>,
}

/// An executor with its model.
struct Ready {
    executor: Box<dyn Executor>,
    model: EngineModel,
    /// Its weights, for others on the processor.
    packed: Option<PackedWeights>,
    /// What people should know.
    warnings: Vec<String>,
}

impl Ready {
    fn on_processor(executor: CpuExecutor, model: EngineModel) -> Self {
        let (packed, warnings) = (Some(executor.packed_weights()), executor.warnings().to_vec());
        Self { executor: Box::new(executor), model, packed, warnings }
    }
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
            gpu_memory: None,
            on_device_failure: OnDeviceFailure::default(),
            quantization: None,
            memory_pool: None,
            kv_limit: None,
            context: None,
            sessions: None,
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

    /// How many full conversations may be in memory at a time. By default 4; on a GPU as many as requests run together, if half
    /// of its free memory holds them.
    #[must_use]
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = Some(sessions);
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

    /// Says that a GPU is expected, if no [`device`](Self::device) was named. Without a usable one the engine runs on the
    /// processor all the same, but its model's [`warnings`](EngineModel::warnings) say why.
    #[must_use]
    pub fn enable_gpu_acceleration(mut self, prefer: bool) -> Self {
        self.gpu = prefer;
        self
    }

    /// Most memory of a GPU that the engine may take for weights, keys and values and buffers; nearly all that is free by
    /// default.
    #[must_use]
    pub fn gpu_memory(mut self, size: impl Into<Option<MemorySize>>) -> Self {
        self.gpu_memory = size.into();
        self
    }

    /// What happens when a GPU fails while the engine runs: by default the processor goes on, and no request is lost.
    #[must_use]
    pub fn on_device_failure(mut self, what: OnDeviceFailure) -> Self {
        self.on_device_failure = what;
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

    /// Loads the model and prepares it for the device.
    ///
    /// # Errors
    /// [`EngineError`]: the model cannot be loaded, the device is not there or lacks what the kernels need, or a parameter is
    /// not possible.
    pub fn build(mut self) -> Result<InferenceEngine, EngineError> {
        let start = Instant::now();
        if self.cpu.threads == Some(0) {
            return Err(
                ParameterError { name: "threads", value: "0".to_owned(), allowed: "1 or more" }.into()
            );
        }
        let mut options = self.options()?;
        let memory = MemoryPool::new(self.buffers());
        self.cpu.memory = Some(memory.clone());
        let Ready { executor, mut model, packed, warnings } = self.executor()?;
        let context = checked_context(self.context, executor.spec(), &model.name)?;
        model.warnings.extend(warnings);
        let room = self.room(&*executor, context, options.max_running);
        options.kv_budget = options.kv_budget.or_else(|| room.budget());
        let mut core = Core::new(model, executor, Some(context), room.sessions(), options)?;
        (core.load_time, core.memory, core.weights) = (start.elapsed(), memory, packed);
        Ok(InferenceEngine::of_core(core))
    }

    /// What decides how much memory keys and values may take.
    fn room(&self, executor: &dyn Executor, context: usize, max_running: usize) -> Room {
        let known = |stats: &MemoryStats| stats.budget.as_bytes() < u64::MAX;
        let falls_back = self.on_device_failure == OnDeviceFailure::FallBack;
        let device = executor.device_memory().filter(known).map(|stats| stats.free().as_bytes());
        let free = |_| bitnet_core::process::available_memory().map(MemorySize::as_bytes);
        Room {
            conversation: executor.info().kv_bytes_per_token().as_bytes().saturating_mul(context as u64),
            sessions: self.sessions,
            max_running,
            limit: self.kv_limit.map(MemorySize::as_bytes),
            device,
            standby: device.filter(|_| falls_back).and_then(free),
        }
    }

    /// The executor and its model: loaded, or over weights that are in memory.
    fn executor(&mut self) -> Result<Ready, EngineError> {
        if let Some((weights, model)) = self.shared.take() {
            // They are the processor's.
            if !matches!(self.device, Device::Auto | Device::Cpu) {
                let what = format!("running weights of the processor on the device {}", self.device);
                let why = "load the model for it".to_owned();
                return Err(EngineError::Unsupported { what, why });
            }
            return Ok(Ready::on_processor(CpuExecutor::sharing(&weights, &self.cpu)?, model));
        }
        let (mut devices, mut warnings) = self.devices()?;
        let source = self.model.take().ok_or(EngineError::NoModel)?;
        let (spec, weights, model) = EngineModel::split(load(&source, &self.load)?);
        // What reading the files took goes back before the weights take theirs, which is when memory peaks.
        bitnet_core::process::trim_heap();
        // Refused before the weights are prepared, which takes seconds for a large model.
        checked_context(self.context, &spec, &model.name)?;
        while let Some(device) = devices.pop_front().filter(|&device| device != Device::Cpu) {
            match self.on_gpu(device, &spec, &weights) {
                Ok(executor) => return Ok(Ready { executor, model, packed: None, warnings }),
                Err(error) if devices.is_empty() => return Err(error.into()),
                Err(error) => warnings.push(format!("{device} cannot be used: {error}")),
            }
        }
        let executor = CpuExecutor::new(spec, &weights, &self.cpu, &mut self.progress)?;
        let mut ready = Ready::on_processor(executor, model);
        ready.warnings.splice(0..0, warnings);
        Ok(ready)
    }

    /// An executor on a GPU, with one on the processor in reserve.
    fn on_gpu(
        &mut self,
        device: Device,
        spec: &ModelSpec,
        weights: &Weights,
    ) -> Result<Box<dyn Executor>, ExecError> {
        let options = GpuOptions { kv_type: self.cpu.kv_type, memory: self.gpu_memory };
        let executor = open(device, spec.clone(), weights, &options, &mut self.progress)?;
        if self.on_device_failure == OnDeviceFailure::Fail {
            return Ok(executor);
        }
        let (spec, weights, cpu) = (spec.clone(), weights.clone(), self.cpu.clone());
        let reserve: Reserve =
            Box::new(move || Ok(Box::new(CpuExecutor::new(spec, &weights, &cpu, &mut |_, _| {})?)));
        Ok(Box::new(Standby::new(executor, reserve)))
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

    /// The devices to try, in this order, and what is to be said of those that are not there. What was named alone is tried
    /// alone.
    fn devices(&self) -> Result<(VecDeque<Device>, Vec<String>), EngineError> {
        // Whoever names kernels means the processor.
        let wanted =
            if self.cpu.kernels.is_some() && self.device == Device::Auto { Device::Cpu } else { self.device };
        if wanted != Device::Auto {
            let device = match wanted {
                Device::Cpu => Device::Cpu,
                device => DeviceSelector::only(device).require(device)?,
            };
            return Ok((VecDeque::from([device]), Vec::new()));
        }
        let selector = if self.gpu { DeviceSelector::new() } else { DeviceSelector::quick() };
        let why = self.gpu.then(|| selector.select_gpu().fallback).flatten();
        let note = why.map(|why| format!("no GPU can be used, the model runs on the processor ({why})"));
        Ok((selector.automatic().into(), Vec::from_iter(note)))
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
