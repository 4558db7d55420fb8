//! [`Driver`]: a GPU through NVIDIA's driver, which is loaded when the first device is asked for.
//!
//! All calls go to one stream. The primary context of the device is made current in each call, since an executor may move
//! between threads.

mod compile;
mod devices;
mod launch;
mod shared;
mod staging;

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::ptr::NonNull;

use bitnet_core::MemorySize;
use cudarc::driver::{DriverError, result, sys};

use self::launch::Configured;
use self::staging::Staging;
use crate::CudaError;
use crate::args::{argument_sizes, is_attention_to_ranges, needs_tensor_cores};
use crate::gpu::{Address, Gpu, GpuFacts, GraphId, Launch, MOST_CLUSTER};

pub use self::devices::{CudaDevice, devices};
pub use self::shared::Shared;

/// From this CUDA version of the driver on, kernels that begin early can be recorded in graphs.
const OVERLAP_DRIVER: i32 = 12_030;

/// A GPU.
pub(crate) struct Driver {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    functions: HashMap<&'static str, sys::CUfunction>,
    staging: Option<Staging>,
    allocations: HashSet<Address>,
    /// Memory of the host that the device reaches.
    shared: Vec<NonNull<u8>>,
    /// Whether there can be such memory.
    maps: bool,
    graphs: HashMap<u64, (sys::CUgraph, sys::CUgraphExec)>,
    next_graph: u64,
    events: [sys::CUevent; 2],
    /// Whether a kernel may begin before the one ahead of it has ended.
    overlap: bool,
    facts: GpuFacts,
}

// SAFETY: handles of the driver may be used from any thread, one at a time; each call makes the context current.
unsafe impl Send for Driver {}

/// The driver's words for an error.
fn text(error: DriverError) -> String {
    let words = |text: Result<&std::ffi::CStr, DriverError>| text.map(|t| t.to_string_lossy().into_owned());
    match (words(error.error_name()), words(error.error_string())) {
        (Ok(name), Ok(words)) => format!("{words} ({name})"),
        _ => format!("{:?}", error.0),
    }
}

/// Turns an error of the driver into one of this crate.
fn failed(call: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { call, what: text(error) }
}

impl Driver {
    /// Opens a device and loads its kernels: the best ones, or those of a name.
    ///
    /// # Errors
    /// No driver, no such device, a device that is too old, kernels that do not load.
    pub(crate) fn open(index: usize, kernels: Option<&str>) -> Result<Self, CudaError> {
        let version = devices::start()?;
        let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?.unsigned_abs() as usize;
        if index >= count {
            return Err(CudaError::NoSuchDevice { index, count });
        }
        let described = devices::describe(index as i32, version)?;
        let (major, minor) = described.capability;
        if described.capability_number() < 75 {
            return Err(CudaError::TooOld { name: described.name, major, minor });
        }
        let target = compile::choose(described.capability_number(), kernels)?;
        let device = result::device::get(index as i32).map_err(failed("cuDeviceGet"))?;
        // On Windows the driver may hold work back until a call waits for it.
        let maps = devices::maps_host_memory(device)? && !cfg!(windows);
        let [most_shared, all_shared] = devices::shared_memory(device)?;
        // SAFETY: the device is one that the driver gave; it is released when this is dropped.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let facts = GpuFacts {
            name: described.name,
            kernels: target.name,
            tensor_cores: target.tensor_cores,
            multiprocessors: described.multiprocessors,
            row_threads: 256,
            // A block has a KiB for the system as well.
            shared_bytes: most_shared.min((all_shared / 2 - 1024).max(48 << 10)),
            // Some of it kernels have statically.
            most_shared_bytes: most_shared.saturating_sub(8 << 10),
            clusters: [0; MOST_CLUSTER + 1],
        };
        let null = std::ptr::null_mut::<c_void>();
        // From here on what was made so far is given back if a step fails.
        let mut driver = Self {
            device,
            context,
            stream: null.cast(),
            module: null.cast(),
            functions: HashMap::new(),
            staging: None,
            allocations: HashSet::new(),
            shared: Vec::new(),
            maps,
            graphs: HashMap::new(),
            next_graph: 0,
            events: [null.cast(), null.cast()],
            overlap: target.overlap && version >= OVERLAP_DRIVER,
            facts,
        };
        driver.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        driver.stream = stream.map_err(failed("cuStreamCreate"))?;
        for event in &mut driver.events {
            *event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(failed("cuEventCreate"))?;
        }
        driver.staging = Some(Staging::new()?);
        driver.module = compile::load(target)?;
        for (name, _) in argument_sizes() {
            if target.tensor_cores || !needs_tensor_cores(name) {
                let shared = driver.facts.shared_memory(name);
                driver.functions.insert(name, compile::function(driver.module, name, shared)?);
            }
        }
        if target.overlap {
            driver.facts.clusters = driver.clusters();
        }
        Ok(driver)
    }

    /// [`GpuFacts::clusters`]: what all kernels of attention to ranges can have.
    fn clusters(&self) -> [u32; MOST_CLUSTER + 1] {
        let kernels = self.functions.iter().filter(|(name, _)| is_attention_to_ranges(name));
        // With as much shared memory as two blocks have, beside what there is statically, one fits a multiprocessor.
        let counts = kernels.map(|(_, &function)| launch::clusters(function, 256, self.facts.shared_bytes));
        let least =
            |a: [u32; MOST_CLUSTER + 1], b: [u32; MOST_CLUSTER + 1]| std::array::from_fn(|i| a[i].min(b[i]));
        counts.reduce(least).unwrap_or_default()
    }

    /// Makes the context current on this thread.
    fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))
    }
}

impl Gpu for Driver {
    fn facts(&self) -> &GpuFacts {
        &self.facts
    }

    fn free_memory(&self) -> Option<MemorySize> {
        self.bind().ok()?;
        result::mem_get_info().ok().map(|(free, _)| MemorySize::bytes(free as u64))
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError> {
        self.bind()?;
        let out_of_memory = sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        // SAFETY: plain memory of the device.
        let address = unsafe { result::malloc_sync(bytes as usize) }.map_err(|e| {
            if e.0 == out_of_memory {
                CudaError::OutOfMemory { needed: MemorySize::bytes(bytes), free: self.free_memory() }
            } else {
                failed("cuMemAlloc")(e)
            }
        })?;
        self.allocations.insert(address);
        // SAFETY: all of it was just allocated.
        unsafe { result::memset_d8_async(address, 0, bytes as usize, self.stream) }
            .map_err(failed("cuMemsetD8Async"))?;
        Ok(address)
    }

    fn free(&mut self, address: Address) {
        if self.allocations.remove(&address) && self.bind().is_ok() {
            // SAFETY: allocated here; the call waits for work that uses it.
            unsafe {
                let _ = result::stream::synchronize(self.stream);
                let _ = result::free_sync(address);
            }
        }
    }

    fn share(&mut self, bytes: usize) -> Result<Option<Shared>, CudaError> {
        if !self.maps {
            return Ok(None);
        }
        self.bind()?;
        let flags = sys::CU_MEMHOSTALLOC_DEVICEMAP | sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: plain pinned memory of the current context.
        let memory = unsafe { result::malloc_host(bytes, flags) }.map_err(failed("cuMemHostAlloc"))?;
        let Some(host) = NonNull::new(memory.cast::<u8>()) else { return Ok(None) };
        self.shared.push(host);
        let mut device = 0;
        // SAFETY: allocated just now, as long as `bytes`, and to be mapped.
        unsafe {
            host.write_bytes(0, bytes);
            sys::cuMemHostGetDevicePointer_v2(&raw mut device, memory, 0)
        }
        .result()
        .map_err(failed("cuMemHostGetDevicePointer"))?;
        // SAFETY: all of it was just allocated and zeroed; it is freed when this is dropped, at its end.
        Ok(Some(unsafe { Shared::new(host, device, bytes) }))
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        self.bind()?;
        self.staging.as_mut().map_or(Ok(()), |staging| staging.upload(self.stream, to, bytes))
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.bind()?;
        self.staging.as_mut().map_or(Ok(()), |staging| staging.download(self.stream, from, bytes))
    }

    fn copy(&mut self, from: Address, to: Address, bytes: u64) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: both are memory of the device, by the contract of this trait.
        unsafe { result::memcpy_dtod_async(to, from, bytes as usize, self.stream) }
            .map_err(failed("cuMemcpyDtoDAsync"))
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let Some(&function) = self.functions.get(launch.kernel) else {
            return Err(CudaError::Kernels { what: format!("there is no kernel {}", launch.kernel) });
        };
        self.bind()?;
        let mut configured = Configured::new(launch, self.stream, self.overlap);
        let mut argument = launch.argument.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: the kernel takes one structure as long as the argument (the crate's tests compare sizes), which the
        // driver copies before it returns; what it points to are parts of buffers of this device.
        unsafe {
            sys::cuLaunchKernelEx(configured.config(), function, &raw mut argument, std::ptr::null_mut())
        }
        .result()
        .map_err(failed("cuLaunchKernelEx"))
    }

    fn begin_graph(&mut self) -> Result<(), CudaError> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: a stream of the current context that is not being captured.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(failed("cuStreamBeginCapture"))
    }

    fn end_graph(&mut self) -> Result<GraphId, CudaError> {
        self.bind()?;
        // SAFETY: the capture was begun by `begin_graph`.
        let graph =
            unsafe { result::stream::end_capture(self.stream) }.map_err(failed("cuStreamEndCapture"))?;
        let mut instance = std::ptr::null_mut();
        // SAFETY: the graph was just made.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut instance, graph, 0) }.result();
        if let Err(error) = made {
            // SAFETY: nothing else refers to it.
            unsafe {
                let _ = result::graph::destroy(graph);
            }
            return Err(failed("cuGraphInstantiateWithFlags")(error));
        }
        self.next_graph += 1;
        self.graphs.insert(self.next_graph, (graph, instance));
        Ok(GraphId(self.next_graph))
    }

    fn run_graph(&mut self, graph: GraphId) -> Result<(), CudaError> {
        let Some(&(_, instance)) = self.graphs.get(&graph.0) else {
            return Err(CudaError::Kernels { what: "a graph that was dropped".to_owned() });
        };
        self.bind()?;
        // SAFETY: instance and stream are of the current context.
        unsafe { result::graph::launch(instance, self.stream) }.map_err(failed("cuGraphLaunch"))
    }

    fn drop_graph(&mut self, graph: GraphId) {
        if let Some((graph, instance)) = self.graphs.remove(&graph.0)
            && self.bind().is_ok()
        {
            // SAFETY: made here; the driver keeps what still runs until it is done.
            unsafe {
                let _ = result::graph::exec_destroy(instance);
                let _ = result::graph::destroy(graph);
            }
        }
    }

    fn is_busy(&mut self) -> Result<bool, CudaError> {
        self.bind()?;
        // SAFETY: a stream of the current context.
        match unsafe { sys::cuStreamQuery(self.stream) }.result() {
            Ok(()) => Ok(false),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(true),
            Err(error) => Err(failed("cuStreamQuery")(error)),
        }
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: a stream of the current context.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("cuStreamSynchronize"))
    }

    fn time_graph(&mut self, graph: GraphId, times: u32) -> Result<f64, CudaError> {
        self.synchronize()?;
        let [begin, end] = self.events;
        // SAFETY: event and stream are of the current context.
        unsafe { result::event::record(begin, self.stream) }.map_err(failed("cuEventRecord"))?;
        for _ in 0..times {
            self.run_graph(graph)?;
        }
        // SAFETY: as above.
        unsafe { result::event::record(end, self.stream) }.map_err(failed("cuEventRecord"))?;
        self.synchronize()?;
        // SAFETY: both were recorded and have passed.
        let milliseconds =
            unsafe { result::event::elapsed(begin, end) }.map_err(failed("cuEventElapsedTime"))?;
        Ok(f64::from(milliseconds) / 1000.0)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        let _ = self.synchronize();
        let graphs: Vec<u64> = self.graphs.keys().copied().collect();
        graphs.into_iter().for_each(|graph| self.drop_graph(GraphId(graph)));
        // SAFETY: all of these were made by this value, at most once, and no work uses them any more.
        unsafe {
            for address in self.allocations.drain() {
                let _ = result::free_sync(address);
            }
            for memory in self.shared.drain(..) {
                let _ = result::free_host(memory.as_ptr().cast());
            }
            if let Some(mut staging) = self.staging.take() {
                staging.free();
            }
            for event in self.events.into_iter().filter(|event| !event.is_null()) {
                let _ = result::event::destroy(event);
            }
            if !self.module.is_null() {
                let _ = result::module::unload(self.module);
            }
            if !self.stream.is_null() {
                let _ = result::stream::destroy(self.stream);
            }
            let _ = result::ctx::set_current(std::ptr::null_mut());
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
